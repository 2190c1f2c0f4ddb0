//! The state of one base URL: its breaker, its budget of repeats, its answer times and its connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;

use super::breaker::Breaker;
use super::pace::Pace;
use super::retry::{Budget, RetryPermit};
use crate::clock::Clock;
use crate::config;
use crate::routes::{Query, ROUTES};

/// After the upstream has closed an idle connection, each call has a connection of its own for this long: other idle
/// connections may be closed too.
const NO_REUSE_FOR: Duration = Duration::from_secs(60);

/// The state of one base URL. It outlives a configuration.
pub struct Host {
    pub breaker: Breaker,
    pub budget: Budget,
    /// The first is of answers with a summary, which a language model has to write. The others are of one route each.
    paces: [Pace; ROUTES.len() + 1],
    /// Until when no connection is reused, in milliseconds since the clock's start.
    no_reuse_until: AtomicU64,
}

/// The kind of connection that a call uses.
pub enum Connection<'a> {
    /// One from the pool, or one that will go there. If the upstream turns out to have closed it, the call is repeated
    /// with this permit.
    Kept(RetryPermit<'a>),
    /// One for this call alone.
    UsedOnce,
}

impl Host {
    pub fn new(config: &config::Upstream, clock: Clock, state: Gauge) -> Self {
        Self {
            breaker: Breaker::new(config.breaker, clock, state),
            budget: Budget::new(config.retry.budget),
            paces: Default::default(),
            no_reuse_until: AtomicU64::new(0),
        }
    }

    /// The answer times of such a query.
    pub fn pace(&self, query: &Query) -> &Pace {
        let [of_summaries, of_routes @ ..] = &self.paces;
        let of_route = of_routes.get(query.route.name as usize).filter(|_| !query.requested.with_summary());
        of_route.unwrap_or(of_summaries)
    }

    /// Changes the rules for the same upstream.
    pub fn reshape(&self, config: &config::Upstream) {
        self.breaker.reshape(config.breaker);
        self.budget.reshape(config.retry.budget);
    }

    /// Chooses the connection of a call. An idle connection is used only if the call can be repeated: the budget has
    /// a permit and the quota has `room`. So no caller ever sees that an idle connection was closed, and no repeat
    /// exceeds the budget.
    pub fn connection(&self, room: bool, now: Duration) -> Connection<'_> {
        let may_be_kept = room && millis(now) >= self.no_reuse_until.load(Ordering::Relaxed);
        let permit = if may_be_kept { self.budget.reserve() } else { None };
        permit.map_or(Connection::UsedOnce, Connection::Kept)
    }

    /// The upstream closed an idle connection.
    pub fn note_idle_close(&self, now: Duration) {
        self.no_reuse_until.fetch_max(millis(now + NO_REUSE_FOR), Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
