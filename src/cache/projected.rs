//! What some callers are shown of an entry, kept beside it: an entry of its own, under a key of its
//! own, in the groups of the other, counted in the same bytes. It is only ever found by way of the
//! entry it was made from.

use std::sync::Arc;

use super::entry::{Entry, Tag};
use super::variants::Variants;
use super::{Cache, Source};
use crate::answer::Answer;
use crate::error::{Error, Kind};
use crate::routes::Key;

/// Bytes of a body from which on the work leaves the request's thread: some 0.3 ms of it.
const LARGE: usize = 64 * 1024;

impl Cache {
    /// `whole`, served from `source`, as the projection `id` shows it, and the key of that; made by
    /// `project` unless it is at hand. Kept as long as the answer it shows a part of, if that is kept.
    pub async fn projected(
        &self,
        key: &Key,
        (whole, source): (&Arc<Entry>, Source),
        id: &[u8],
        project: impl FnOnce(&Answer) -> Result<Vec<u8>, Error> + Send + 'static,
    ) -> Result<(Key, Arc<Entry>), Error> {
        let memory = &self.0.memory;
        let is_stored = !matches!(source, Source::Upstream { stored: Err(_), .. });
        let projected = key.projected(id, &whole.tag.0);
        let kept = memory.get(&projected).filter(|kept| kept.answer.asked_at == whole.answer.asked_at);
        if let Some(entry) = kept.filter(|_| is_stored) {
            return Ok((projected, entry));
        }
        let began = memory.now();
        let make = {
            let whole = whole.clone();
            move || project(&whole.answer)
        };
        let shown = if whole.answer.body.len() < LARGE {
            make()?
        } else {
            let failed = |_| Error::new(Kind::Internal, "the gateway failed");
            tokio::task::spawn_blocking(make).await.map_err(failed)??
        };
        let entry = Arc::new(Entry {
            tag: Tag::of(&shown),
            answer: Answer { body: shown.into(), ..whole.answer.clone() },
            phase: whole.phase,
            word: whole.word,
            standing: whole.standing,
            bots: whole.bots.clone(),
            is_opaque: whole.is_opaque,
            // A transcript is never cut from what only some may see of one.
            groups: whole.groups.iter().filter(|group| !group.is_of_a_plain_one()).copied().collect(),
            lifetime: whole.lifetime,
            variants: Variants::default(),
        });
        if is_stored {
            let is_outdated = || !memory.holds(key, whole);
            // It can be shown all the same if there is no room for it, or nothing to keep it for.
            let _ = memory.put(projected.clone(), entry.clone(), began, is_outdated);
        }
        Ok((projected, entry))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::cache::Limits;
    use crate::cache::entry::{Lifetime, Word};
    use crate::clock::{Clock, UnixMillis};
    use crate::metrics::Metrics;
    use crate::phase::Phase;
    use crate::routes::ROUTES;

    /// The clock stands still, as it does between two answers of the same millisecond.
    #[tokio::test]
    async fn a_view_of_one_answer_is_never_shown_for_another() {
        let limits = Limits { capacity: 1 << 20, seen: 10, back_off: Duration::ZERO };
        let clock = Clock::manual(UnixMillis(0));
        let cache = Cache::new(limits, clock.clone(), &Arc::new(Metrics::new()));
        let key = Key::of_nothing(&ROUTES[0]);
        for body in ["first", "second"] {
            let answer = Answer {
                status: StatusCode::OK,
                content_type: None,
                retry_after: None,
                body: body.as_bytes().into(),
                asked_at: clock.moment(),
            };
            let lifetime = Lifetime { ttl: Duration::from_secs(1), ..Default::default() };
            let entry = Arc::new(Entry {
                tag: Tag::of(&answer.body),
                answer,
                phase: Phase::Unknown,
                word: Word::Told,
                standing: None,
                bots: Box::default(),
                is_opaque: false,
                groups: Arc::from([]),
                lifetime,
                variants: Variants::default(),
            });
            let began = cache.0.memory.now();
            assert!(cache.0.memory.put(key.clone(), entry.clone(), began, || false).is_ok());
            let source = Source::Hit { left: lifetime.ttl };
            let project = |answer: &Answer| Ok(answer.body.to_vec());
            let shown = cache.projected(&key, (&entry, source), b"id", project).await;
            assert_eq!(*shown.expect("a view").1.answer.body, *body.as_bytes());
        }
    }
}
