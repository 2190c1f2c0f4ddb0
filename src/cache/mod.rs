//! Closed conversations, kept. [`Cache::get_or_fill`] is the only door.
//!
//! What is stored is the same for everyone: the fill knows the query, never the caller. Who may see
//! it is decided before the look-up and again, where the body names its bot, after it.

mod admit;
mod entry;
mod flight;
mod memory;
mod projected;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::answer::Answer;
use crate::clock::{Clock, UnixMillis};
use crate::error::{Error, Kind};
use crate::metrics::Metrics;
use crate::phase::Rule;
use crate::routes::{Key, Query};
use crate::seen::Seen;

pub use admit::{Admitted, Reason};
pub use entry::{Entry, Freshness};
use flight::{Flights, Ticket};
use memory::Memory;

/// The store, the fills under way, and what is known of conversations that say nothing themselves.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    memory: Memory,
    flights: Flights<Key, Filled>,
    seen: Seen,
    clock: Clock,
}

/// What a fill leaves to everyone who waits for it.
type Filled = Result<Admitted, Error>;

/// An answer for one caller, and where it came from.
#[derive(Debug)]
pub struct Served {
    pub entry: Arc<Entry>,
    pub source: Source,
}

/// Where an answer came from, in the terms of `Cache-Status` (RFC 9211).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The store, with this much of its lifetime left.
    Hit { left: Duration },
    /// The store, past its lifetime by `past`.
    Stale { past: Duration, because: Because },
    /// The upstream.
    Upstream {
        stored: Result<(), Reason>,
        /// By a call that another request had started.
        collapsed: bool,
        because: Forwarded,
    },
}

/// Why a request went to the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forwarded {
    /// There was no entry.
    Miss,
    /// There was one, past its lifetime.
    Stale,
    /// There was one, but the caller wanted it anew.
    Request,
}

/// Why an answer past its lifetime was served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Because {
    Revalidating,
    Error,
}

impl Cache {
    /// A cache of `capacity` bytes that remembers the phases of `seen` ids.
    pub fn new(capacity: u64, seen: u64, clock: Clock, metrics: &Metrics) -> Self {
        Self(Arc::new(Inner {
            memory: Memory::new(capacity, metrics.cache_evictions.clone()),
            flights: Flights::new(),
            seen: Seen::new(seen),
            clock,
        }))
    }

    /// Entries and bytes.
    pub fn size(&self) -> (u64, u64) {
        self.0.memory.size()
    }

    /// The answer to `query`: from the store, from a fill under way, or from a new one. Waits at
    /// most `wait`; the fill goes on without this caller. With `anew`, what is stored is not an
    /// answer, but better than an error.
    pub async fn get_or_fill<F>(
        &self,
        query: &Query,
        rule: &Rule,
        wait: Duration,
        anew: bool,
        fill: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Served, Error>
    where
        F: Future<Output = Result<Answer, Error>> + Send + 'static,
    {
        let now = self.0.clock.now();
        let stored = self.0.memory.get(&query.key);
        let fallback = match stored.map(|entry| (entry.freshness(now), entry)) {
            Some((Freshness::Fresh { left }, entry)) => {
                let hit = Served { entry, source: Source::Hit { left } };
                if !anew {
                    return Ok(hit);
                }
                Some((Forwarded::Request, hit))
            }
            Some((Freshness::Revalidating { past }, entry)) if !anew => {
                // Nobody waits for this ticket; the flight lands all the same.
                drop(self.fly(query, *rule, now, anew, fill));
                return Ok(Served { entry, source: Source::Stale { past, because: Because::Revalidating } });
            }
            Some((Freshness::OnlyIfError { past } | Freshness::Revalidating { past }, entry)) => {
                let source = Source::Stale { past, because: Because::Error };
                let because = if anew { Forwarded::Request } else { Forwarded::Stale };
                Some((because, Served { entry, source }))
            }
            Some((Freshness::Gone, _)) | None => None,
        };

        let ticket = self.fly(query, *rule, now, anew, fill);
        let collapsed = ticket.joined;
        let filled = match tokio::time::timeout(wait, ticket.landed()).await {
            Ok(Some(filled)) => filled,
            Ok(None) => Err(Error::new(Kind::Internal, "the gateway failed while it fetched the answer")),
            Err(_) => Err(Error::new(Kind::UpstreamTimeout, "the upstream did not answer in time")
                .proxy_status("http_response_timeout")),
        };
        match (filled, fallback) {
            (Ok(admitted), Some((_, served))) if failed(admitted.entry.answer.status) => Ok(served),
            (Err(_), Some((_, served))) => Ok(served),
            (Ok(Admitted { entry, stored }), fallback) => {
                let because = fallback.map_or(Forwarded::Miss, |(because, _)| because);
                Ok(Served { entry, source: Source::Upstream { stored, collapsed, because } })
            }
            (Err(error), None) => Err(error),
        }
    }

    fn fly<F>(
        &self,
        query: &Query,
        rule: Rule,
        asked_at: UnixMillis,
        anew: bool,
        fill: impl FnOnce() -> F + Send + 'static,
    ) -> Ticket<Filled>
    where
        F: Future<Output = Result<Answer, Error>> + Send + 'static,
    {
        self.0.flights.join_or_start(&query.key, || {
            let (cache, query) = (self.0.clone(), query.clone());
            let not_before = anew.then_some(asked_at);
            async move { cache.fill(query, rule, not_before, fill).await }
        })
    }
}

impl Inner {
    /// Runs in a flight. An answer that was fetched until `not_before` will not do.
    async fn fill<F>(
        &self,
        query: Query,
        rule: Rule,
        not_before: Option<UnixMillis>,
        fill: impl FnOnce() -> F,
    ) -> Filled
    where
        F: Future<Output = Result<Answer, Error>> + Send,
    {
        // Again: another flight may have landed between the caller's look and this one's start.
        if let Some(entry) = self.memory.get(&query.key)
            && let Freshness::Fresh { .. } = entry.freshness(self.clock.now())
            && not_before.is_none_or(|not_before| entry.fetched_at > not_before)
        {
            return Ok(Admitted { entry, stored: Ok(()) });
        }
        let answer = fill().await?;
        let admitted = admit::admit(&query, &rule, &self.seen, answer, self.clock.now())?;
        match admitted.stored {
            Ok(()) => self.memory.put(query.key, admitted.entry.clone()),
            // An error says nothing about what is stored; any other answer takes its place.
            Err(_) if failed(admitted.entry.answer.status) => {}
            Err(_) => self.memory.remove(&query.key),
        }
        Ok(admitted)
    }
}

/// Whether a status of the upstream's is a failure that a stale answer is better than (RFC 5861 §4).
fn failed(status: StatusCode) -> bool {
    status.is_server_error()
}
