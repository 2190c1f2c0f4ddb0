//! What some callers are shown of an entry, kept beside it: an entry of its own, under a key of its
//! own, in the groups of the other, counted in the same bytes. It is only ever found by way of the
//! entry it was made from.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::entry::{Entry, Tag};
use super::jobs::{INLINE, Jobs};
use super::variants::{Shown, Variants};
use super::{Cache, Source, Turn};
use crate::error::cause::Cause;
use crate::error::{Error, Kind};
use crate::fetch::answer::Answer;
use crate::lifecycle::phase::Phase;
use crate::routes::Key;

impl Cache {
    /// `whole`, served from `source`, as the projection `id` shows it, and the key of that; made by
    /// `project` unless it is at hand. Kept as long as the answer it shows a part of, if that is kept. What is made
    /// of an answer is made once for all who wait for it, and goes to whoever asks while one of them still has it.
    /// `project` is to end soon once what it is given becomes true: then nobody waits any more.
    pub async fn projected(
        &self,
        key: &Key,
        (whole, source): (&Arc<Entry>, Source),
        id: &[u8],
        turn: &Turn,
        project: impl FnOnce(&Answer, Arc<AtomicBool>) -> Result<Part, Error> + Send + 'static,
    ) -> Result<(Key, Arc<Entry>), Error> {
        let memory = &self.0.memory;
        let is_stored = !matches!(source, Source::Upstream { stored: Err(_), .. });
        let projected = key.projected(id, &whole.tag.0);
        let kept = memory.get(&projected).filter(|kept| kept.answer.asked_at == whole.answer.asked_at);
        if let Some(entry) = kept.filter(|_| is_stored).or_else(|| whole.variants.view_at_hand(id)) {
            return Ok((projected, entry));
        }
        let make = {
            let (inner, whole, id, key, projected, began) =
                (self.0.clone(), whole.clone(), id.to_owned(), key.clone(), projected.clone(), memory.now());
            move |is_unwanted| {
                inner.metrics.cache.body_made("view");
                let entry = Arc::new(part_of(&whole, project(&whole.answer, is_unwanted)?));
                whole.variants.shows(&id, &entry);
                if is_stored {
                    let is_outdated = || !inner.memory.holds(&key, &whole);
                    // It can be shown all the same if there is no room for it, or nothing to keep it for.
                    let _ = inner.memory.put(projected, entry.clone(), began, is_outdated);
                }
                Ok(entry)
            }
        };
        let shown = if whole.answer.body.len() > INLINE {
            match whole.variants.view(id, || Jobs::job(make)) {
                Shown::Made(entry) => Ok(entry),
                Shown::UnderWay(job) => {
                    let lost = || Err(Error::new(Kind::Internal, "the gateway failed"));
                    let done = self.done(job, turn).await.ok_or_else(too_late)?;
                    done.unwrap_or_else(lost)
                }
            }
        } else {
            make(Arc::default())
        };
        Ok((projected, shown?))
    }
}

/// As long as a body takes that is looked into.
const BUSY_FOR: Duration = Duration::from_secs(5);

fn too_late() -> Error {
    let detail = "this answer could not be made ready for this client in time";
    Error::new(Kind::TemporaryReducedCapacity, detail).retry_after(BUSY_FOR).because(Cause::Overload)
}

/// What is shown of an answer.
pub struct Part {
    pub body: Vec<u8>,
    /// Its own, where that is not the whole answer's.
    pub phase: Option<Phase>,
}

/// The entry that shows no more of `whole` than this.
fn part_of(whole: &Entry, Part { body: shown, phase }: Part) -> Entry {
    Entry {
        tag: Tag::of(&shown),
        answer: Answer { body: shown.into(), ..whole.answer.clone() },
        phase: phase.unwrap_or(whole.phase),
        phase_source: whole.phase_source,
        rule_part: whole.rule_part,
        bots: whole.bots.clone(),
        is_opaque: whole.is_opaque,
        // A transcript is never cut from what only some may see of one.
        groups: whole.groups.iter().filter(|group| !group.is_of_a_plain_one()).copied().collect(),
        lifetime: whole.lifetime,
        variants: Variants::default(),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::cache::entry::{Lifetime, PhaseSource};
    use crate::cache::{CacheLimits, ForwardReason, Reason};
    use crate::clock::{Clock, UnixMillis};
    use crate::observe::metrics::Metrics;
    use crate::routes::ROUTES;

    fn entry(cache: &Cache, body: &[u8]) -> Arc<Entry> {
        Arc::new(Entry {
            tag: Tag::of(body),
            answer: Answer {
                status: StatusCode::OK,
                content_type: None,
                retry_after: None,
                body: body.into(),
                asked_at: cache.0.clock.moment(),
            },
            phase: Phase::Unknown,
            phase_source: PhaseSource::OwnBody,
            rule_part: None,
            bots: Box::default(),
            is_opaque: false,
            groups: Arc::from([]),
            lifetime: Lifetime { ttl: Duration::from_secs(1), ..Default::default() },
            variants: Variants::default(),
        })
    }

    fn cache(clock: &Clock) -> Cache {
        let limits = CacheLimits { capacity: 1 << 20, seen: 10, back_off: Duration::ZERO };
        Cache::new(limits, clock.clone(), &Arc::new(Metrics::new()))
    }

    const TURN: &Turn = &Turn { client: None, at_most: Duration::from_secs(60) };

    const NOT_STORED: Source =
        Source::Upstream { stored: Err(Reason::Live), collapsed: false, because: ForwardReason::Miss };

    #[tokio::test]
    async fn a_large_body_is_looked_into_off_the_threads_that_serve() {
        let cache = cache(&Clock::manual(UnixMillis(0)));
        let key = Key::of_nothing(&ROUTES[0]);
        for (length, is_off) in [(INLINE, false), (INLINE + 1, true)] {
            let whole = entry(&cache, &vec![b'x'; length]);
            let (sent, thread) = std::sync::mpsc::channel();
            let project = move |_: &Answer, _| {
                sent.send(std::thread::current().id()).expect("the test listens");
                Ok(Part { body: Vec::new(), phase: None })
            };
            cache.projected(&key, (&whole, NOT_STORED), b"id", TURN, project).await.expect("a view");
            assert_eq!(thread.recv().expect("it was made") != std::thread::current().id(), is_off);
        }
    }

    /// Of what is not stored: as long as somebody still has the first one.
    #[tokio::test]
    async fn a_view_is_made_anew_only_when_nobody_has_it_any_more() {
        let cache = cache(&Clock::manual(UnixMillis(0)));
        let key = Key::of_nothing(&ROUTES[0]);
        for length in [INLINE, INLINE + 1] {
            let (whole, other) = (entry(&cache, &vec![b'x'; length]), entry(&cache, &vec![b'y'; length]));
            let shown = async |whole: &Arc<Entry>, id: &'static [u8]| {
                let project = |answer: &Answer, _| Ok(Part { body: answer.body[..1].to_vec(), phase: None });
                cache.projected(&key, (whole, NOT_STORED), id, TURN, project).await.expect("a view").1
            };
            let first = shown(&whole, b"id").await;
            assert!(Arc::ptr_eq(&first, &shown(&whole, b"id").await));
            assert!(!Arc::ptr_eq(&first, &shown(&whole, b"another").await));
            assert_eq!(*shown(&other, b"id").await.answer.body, *b"y");
            let gone = Arc::downgrade(&first);
            drop(first);
            assert!(gone.upgrade().is_none(), "nothing else holds it");
            assert_eq!(*shown(&whole, b"id").await.answer.body, *b"x");
        }
    }

    /// The clock stands still, as it does between two answers of the same millisecond.
    #[tokio::test]
    async fn a_view_of_one_answer_is_never_shown_for_another() {
        let cache = cache(&Clock::manual(UnixMillis(0)));
        let key = Key::of_nothing(&ROUTES[0]);
        for body in ["first", "second"] {
            let entry = entry(&cache, body.as_bytes());
            let began = cache.0.memory.now();
            assert!(cache.0.memory.put(key.clone(), entry.clone(), began, || false).is_ok());
            let source = Source::Hit { left: entry.lifetime.ttl };
            let project = |answer: &Answer, _| Ok(Part { body: answer.body.to_vec(), phase: None });
            let shown = cache.projected(&key, (&entry, source), b"id", TURN, project).await;
            assert_eq!(*shown.expect("a view").1.answer.body, *body.as_bytes());
        }
    }
}
