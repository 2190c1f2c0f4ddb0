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
use crate::clock::Clock;
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
        /// There was an entry, but it was past its lifetime.
        replaced: bool,
    },
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
    /// most `wait`; the fill goes on without this caller.
    pub async fn get_or_fill<F>(
        &self,
        query: &Query,
        rule: &Rule,
        wait: Duration,
        fill: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Served, Error>
    where
        F: Future<Output = Result<Answer, Error>> + Send + 'static,
    {
        let now = self.0.clock.now();
        let stored = self.0.memory.get(&query.key);
        let stale = match stored.map(|entry| (entry.freshness(now), entry)) {
            Some((Freshness::Fresh { left }, entry)) => {
                return Ok(Served { entry, source: Source::Hit { left } });
            }
            Some((Freshness::Revalidating { past }, entry)) => {
                // Nobody waits for this ticket; the flight lands all the same.
                drop(self.fly(query, *rule, fill));
                return Ok(Served { entry, source: Source::Stale { past, because: Because::Revalidating } });
            }
            Some((Freshness::OnlyIfError { past }, entry)) => Some((past, entry)),
            Some((Freshness::Gone, _)) | None => None,
        };

        let ticket = self.fly(query, *rule, fill);
        let collapsed = ticket.joined;
        let filled = match tokio::time::timeout(wait, ticket.landed()).await {
            Ok(Some(filled)) => filled,
            Ok(None) => Err(Error::new(Kind::Internal, "the gateway failed while it fetched the answer")),
            Err(_) => Err(Error::new(Kind::UpstreamTimeout, "the upstream did not answer in time")
                .proxy_status("http_response_timeout")),
        };
        match (filled, stale) {
            (Ok(admitted), Some((past, entry))) if failed(admitted.entry.answer.status) => {
                Ok(Served { entry, source: Source::Stale { past, because: Because::Error } })
            }
            (Err(_), Some((past, entry))) => {
                Ok(Served { entry, source: Source::Stale { past, because: Because::Error } })
            }
            (Ok(Admitted { entry, stored }), stale) => {
                let replaced = stale.is_some();
                Ok(Served { entry, source: Source::Upstream { stored, collapsed, replaced } })
            }
            (Err(error), None) => Err(error),
        }
    }

    fn fly<F>(&self, query: &Query, rule: Rule, fill: impl FnOnce() -> F + Send + 'static) -> Ticket<Filled>
    where
        F: Future<Output = Result<Answer, Error>> + Send + 'static,
    {
        self.0.flights.join_or_start(&query.key, || {
            let (cache, query) = (self.0.clone(), query.clone());
            async move { cache.fill(query, rule, fill).await }
        })
    }
}

impl Inner {
    /// Runs in a flight.
    async fn fill<F>(&self, query: Query, rule: Rule, fill: impl FnOnce() -> F) -> Filled
    where
        F: Future<Output = Result<Answer, Error>> + Send,
    {
        // Again: another flight may have landed between the caller's look and this one's start.
        if let Some(entry) = self.memory.get(&query.key)
            && let Freshness::Fresh { .. } = entry.freshness(self.clock.now())
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
