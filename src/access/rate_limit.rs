//! How often a client may ask: GCRA per client, and the header fields that tell where it stands.
//!
//! The fields are those of draft-ietf-httpapi-ratelimit-headers-11; this is the one place that
//! writes them, for the draft still moves.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::{HeaderName, HeaderValue};
use prometheus_client::metrics::counter::Counter;

use crate::clock::Clock;
use crate::config::Rate;
use crate::error::whole_seconds;

pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// The limit of one client, or of whatever else asks.
pub struct Limiter {
    policy: &'static str,
    rate: Rate,
    /// The time in which one request's worth comes back.
    period: Duration,
    limiter: RateLimiter<NotKeyed, InMemoryState, Clock, StateInformationMiddleware>,
    clock: Clock,
    refused: Counter,
}

/// Where a caller stands after a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The policy's name: what is counted.
    pub policy: &'static str,
    pub rate: Rate,
    /// Requests that would pass at once.
    pub left: u32,
    /// Until all of them are back; with none left, until one is.
    pub reset: Duration,
}

impl Limiter {
    pub fn new(policy: &'static str, rate: Rate, clock: Clock, refused: Counter) -> Self {
        let amount = NonZeroU32::new(rate.amount).unwrap_or(NonZeroU32::MIN);
        let period = rate.window / amount.get();
        // A rate of billions a second has a period of less than a nanosecond: one will do.
        let quota =
            Quota::with_period(period).unwrap_or(Quota::per_second(NonZeroU32::MAX)).allow_burst(amount);
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone()).with_middleware();
        Self { policy, rate, period, limiter, clock, refused }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Counts one request; those that are over the limit in `refused` too. Both ways out say where
    /// the caller stands; an `Err` is over the limit.
    pub fn check(&self) -> Result<Standing, Standing> {
        let standing = |left, reset| Standing { policy: self.policy, rate: self.rate, left, reset };
        match self.limiter.check() {
            Ok(state) => {
                let left = state.remaining_burst_capacity();
                let units = if left == 0 { 1 } else { self.rate.amount.saturating_sub(left) };
                Ok(standing(left, self.period * units))
            }
            Err(not_until) => {
                self.refused.inc();
                Err(standing(0, not_until.wait_time_from(governor::clock::Clock::now(&self.clock))))
            }
        }
    }
}

/// `RateLimit-Policy` and `RateLimit`: Lists (RFC 9651) with a member for each policy.
pub fn headers(standings: &[Standing]) -> [(HeaderName, HeaderValue); 2] {
    let list = |member: fn(&Standing) -> String| {
        let text = standings.iter().map(member).collect::<Vec<_>>().join(", ");
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    };
    let policies =
        list(|of| format!(r#""{}";q={};w={}"#, of.policy, of.rate.amount, of.rate.window.as_secs()));
    let standings = list(|of| format!(r#""{}";r={};t={}"#, of.policy, of.left, whole_seconds(of.reset)));
    [(POLICY, policies), (STANDING, standings)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    #[test]
    fn waiting_as_long_as_told_works_and_a_moment_less_does_not() {
        let clock = Clock::manual(UnixMillis(0));
        let limiter = Limiter::new(
            "client",
            Rate { amount: 3, window: Duration::from_secs(60) },
            clock.clone(),
            Counter::default(),
        );
        for left in [2, 1, 0] {
            assert_eq!(limiter.check().map(|standing| standing.left), Ok(left));
        }
        let over = limiter.check().expect_err("over the limit");
        assert_eq!(over.reset, Duration::from_secs(20));
        clock.advance(over.reset - Duration::from_millis(1));
        assert!(limiter.check().is_err());
        clock.advance(Duration::from_millis(1));
        assert!(limiter.check().is_ok());
    }

    #[test]
    fn the_fields_are_spelled_as_the_draft_spells_them() {
        let rate = Rate { amount: 600, window: Duration::from_secs(60) };
        let client = Standing { policy: "client", rate, left: 412, reset: Duration::from_millis(22_100) };
        let subject = Standing { policy: "subject", left: 0, ..client };
        let [(_, policies), (_, standings)] = headers(&[client, subject]);
        assert_eq!(policies, r#""client";q=600;w=60, "subject";q=600;w=60"#);
        assert_eq!(standings, r#""client";r=412;t=23, "subject";r=0;t=23"#);
    }
}
