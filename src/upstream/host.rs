//! One base URL: how it is doing, what may be repeated against it, and over which connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;

use super::breaker::Breaker;
use super::pace::Pace;
use super::retry::{Budget, RetryPermit};
use crate::clock::Clock;
use crate::config;
use crate::routes::{Query, ROUTES};

/// After a connection that the upstream closed while it lay idle, each call has one of its own for so
/// long: others that lie there may be just so.
const USED_ONCE_FOR: Duration = Duration::from_secs(60);

/// What lives with one base URL, longer than one configuration.
pub struct Host {
    pub breaker: Breaker,
    pub budget: Budget,
    /// Of each route's answers, and of those with a summary, which a language model has to write first.
    paces: [Pace; ROUTES.len() + 1],
    /// Until when no connection is used again, in milliseconds since the clock's start.
    used_once_until: AtomicU64,
}

/// Over what a call goes.
pub enum Connection<'a> {
    /// One that is kept, or that will be. Should it turn out that the upstream was just closing it,
    /// the call is made again, which is paid for beforehand.
    Kept(RetryPermit<'a>),
    /// One of its own.
    UsedOnce,
}

impl Host {
    pub fn new(config: &config::Upstream, clock: Clock, state: Gauge) -> Self {
        Self {
            breaker: Breaker::new(config.breaker, clock, state),
            budget: Budget::new(config.retry.budget),
            paces: Default::default(),
            used_once_until: AtomicU64::new(0),
        }
    }

    /// How long such an answer takes.
    pub fn pace(&self, query: &Query) -> &Pace {
        let [of_summaries, of_routes @ ..] = &self.paces;
        let of_route = of_routes.get(query.route.name as usize).filter(|_| !query.requested.with_summary());
        of_route.unwrap_or(of_summaries)
    }

    /// Another rule from here on, for the same upstream.
    pub fn reshape(&self, config: &config::Upstream) {
        self.breaker.reshape(config.breaker);
        self.budget.reshape(config.retry.budget);
    }

    /// What a call goes over. A connection that has lain idle is used only where a repeat can be had:
    /// within the budget, and with `room` for it in the quota. So none that was closed while it lay
    /// there ever shows to a caller, and no repeat exceeds the budget.
    pub fn connection(&self, room: bool, now: Duration) -> Connection<'_> {
        let may_be_kept = room && millis(now) >= self.used_once_until.load(Ordering::Relaxed);
        let permit = if may_be_kept { self.budget.reserve() } else { None };
        permit.map_or(Connection::UsedOnce, Connection::Kept)
    }

    /// A connection was closed while it lay idle.
    pub fn closes_idle_ones(&self, now: Duration) {
        self.used_once_until.fetch_max(millis(now + USED_ONCE_FOR), Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
