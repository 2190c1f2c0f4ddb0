//! What some callers are shown of an entry, kept beside it: an entry of its own, under a key of its
//! own, counted in the same bytes. It is only ever found by way of the entry it was made from.

use std::sync::Arc;

use bytes::Bytes;

use super::entry::{self, Entry};
use super::{Cache, Served, Source};
use crate::answer::Answer;
use crate::error::{Error, Kind};
use crate::routes::Key;

/// Bytes of a body from which on the work leaves the request's thread: some 0.3 ms of it.
const LARGE: usize = 64 * 1024;

impl Cache {
    /// `served` as the projection `id` shows it, made by `project` unless it is at hand. Kept as
    /// long as the answer it shows a part of, if that is kept.
    pub async fn projected(
        &self,
        key: &Key,
        served: Served,
        id: &[u8],
        project: impl FnOnce(&Answer) -> Result<Vec<u8>, Error> + Send + 'static,
    ) -> Result<Served, Error> {
        let Served { entry: whole, source } = served;
        let is_stored = !matches!(source, Source::Upstream { stored: Err(_), .. });
        let key = key.projected(id, whole.etag.as_bytes());
        let kept = self.0.memory.get(&key).filter(|kept| kept.fetched_at == whole.fetched_at);
        if let Some(entry) = kept.filter(|_| is_stored) {
            return Ok(Served { entry, source });
        }
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
            etag: entry::etag(&shown),
            answer: Answer { body: Bytes::from(shown), ..whole.answer.clone() },
            phase: whole.phase,
            bot: whole.bot.clone(),
            fetched_at: whole.fetched_at,
            lifetime: whole.lifetime,
        });
        if is_stored {
            self.0.memory.put(key, entry.clone());
        }
        Ok(Served { entry, source })
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::clock::{Clock, UnixMillis};
    use crate::metrics::Metrics;
    use crate::phase::Phase;
    use crate::routes::ROUTES;

    /// The clock stands still, as it does between two answers of the same millisecond.
    #[tokio::test]
    async fn a_view_of_one_answer_is_never_shown_for_another() {
        let cache = Cache::new(1 << 20, 10, Clock::manual(UnixMillis(0)), &Metrics::new());
        let key = Key::of_nothing(&ROUTES[0]);
        for body in ["first", "second"] {
            let answer = Answer {
                status: StatusCode::OK,
                content_type: None,
                body: Bytes::from_static(body.as_bytes()),
            };
            let lifetime = entry::Lifetime { ttl: std::time::Duration::from_secs(1), ..Default::default() };
            let entry = Arc::new(Entry {
                etag: entry::etag(&answer.body),
                answer,
                phase: Phase::Unknown,
                bot: None,
                fetched_at: UnixMillis(0),
                lifetime,
            });
            let served = Served { entry, source: Source::Hit { left: lifetime.ttl } };
            let shown = cache.projected(&key, served, b"id", |answer| Ok(answer.body.to_vec())).await;
            assert_eq!(shown.expect("a view").entry.answer.body, body);
        }
    }
}
