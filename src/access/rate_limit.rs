//! How often a client may ask: GCRA per client, and the header fields that say what is left. Nothing
//! here reads a clock.
//!
//! The fields are those of draft-ietf-httpapi-ratelimit-headers-11; this is the one place that
//! writes them, for the draft still moves.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use aws_lc_rs::digest;
use http::{HeaderName, HeaderValue};
use moka::sync::Cache;
use prometheus_client::metrics::counter::Counter;

use crate::config::Rate;
use crate::error::whole_seconds;
use crate::fetch::limit_status::{LimitStatus, LimitStatuses};
use crate::http::field::{Field, passing};

pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// After this long every limit is whole again.
const LONGEST_WINDOW: Duration = Duration::from_secs(3600);

/// The limit of one client, or of whatever else asks.
pub struct Limiter {
    policy: &'static str,
    rate: Rate,
    /// Nanoseconds in which one request's worth comes back, and in which all of it does.
    period: u64,
    window: u64,
    /// When all of it is back, in nanoseconds of the clock's uptime. That is all that GCRA remembers
    /// (ITU-T I.371: the theoretical arrival time).
    whole_at: AtomicU64,
    refused: Counter,
}

/// Limiters of many callers, at most so many at a time. Whoever asks often is kept, whoever asks
/// seldom goes (TinyLFU): a flood of made-up callers pushes out one another and nobody else.
pub struct Table {
    policy: &'static str,
    limiters: Cache<[u8; 16], Arc<Limiter>>,
    refused: Counter,
}

impl Table {
    /// A table of `most` callers; the requests over their limits are counted in `refused`.
    pub fn new(policy: &'static str, most: u64, refused: Counter) -> Self {
        let limiters = Cache::builder().max_capacity(most).time_to_idle(LONGEST_WINDOW).build();
        Self { policy, limiters, refused }
    }

    /// Counts one request of `caller` against `rate`, at `now` of the clock's uptime.
    pub fn check(&self, caller: Caller, rate: Rate, now: Duration) -> Result<LimitStatus, LimitStatus> {
        let new = || Arc::new(Limiter::new(self.policy, rate, self.refused.clone()));
        let mut limiter = self.limiters.get_with(caller.0, new);
        if limiter.rate() != rate {
            limiter = new();
            self.limiters.insert(caller.0, limiter.clone());
        }
        limiter.check(now)
    }

    /// How many callers are in it, after the housekeeping that is due.
    pub fn callers(&self) -> u64 {
        self.limiters.run_pending_tasks();
        self.limiters.entry_count()
    }
}

/// Who is counted: of one size, and nothing that says who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller([u8; 16]);

impl Caller {
    /// One address, or one network of IPv6: whoever has one of those has all of its 2^64 addresses.
    pub fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().octets()),
            IpAddr::V6(address) => Self((u128::from(address) >> 64 << 64).to_be_bytes()),
        }
    }

    /// One bearer of an issuer's tokens, as one client.
    pub fn bearing(client: &str, issuer: &str, subject: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [client, issuer, subject] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut short = [0; 16];
        short.iter_mut().zip(context.finish().as_ref()).for_each(|(short, byte)| *short = *byte);
        Self(short)
    }
}

impl Limiter {
    pub fn new(policy: &'static str, rate: Rate, refused: Counter) -> Self {
        let amount = rate.amount.max(1);
        // A rate of billions a second has a period of less than a nanosecond: one will do.
        let period = nanos(rate.window / amount).max(1);
        let window = period.saturating_mul(amount.into());
        Self { policy, rate, period, window, whole_at: AtomicU64::new(0), refused }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Counts one request at `now` of the clock's uptime; those that are over the limit in `refused` too.
    /// Both results say what is left; an `Err` is over the limit.
    pub fn check(&self, now: Duration) -> Result<LimitStatus, LimitStatus> {
        let now = nanos(now);
        let whole_after = |whole_at: u64| whole_at.max(now).saturating_add(self.period);
        let counted = self.whole_at.fetch_update(Relaxed, Relaxed, |whole_at| {
            let whole_at = whole_after(whole_at);
            (whole_at - now <= self.window).then_some(whole_at)
        });
        let limit_status = |left, reset| {
            let reset = Duration::from_nanos(reset);
            LimitStatus { policy: self.policy, rate: self.rate, left, reset }
        };
        match counted {
            Ok(before) => {
                let left = (self.window - (whole_after(before) - now)) / self.period;
                let left = u32::try_from(left).unwrap_or(u32::MAX);
                let units = if left == 0 { 1 } else { self.rate.amount.saturating_sub(left) };
                Ok(limit_status(left, self.period.saturating_mul(units.into())))
            }
            Err(before) => {
                self.refused.inc();
                Err(limit_status(0, whole_after(before) - now - self.window))
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// More than a List of three members, each with a name and two numbers, can have.
const LONGEST: usize = 192;

/// `RateLimit-Policy` and `RateLimit`: Lists (RFC 9651) with a member for each policy.
pub fn headers(limit_statuses: &LimitStatuses) -> [(HeaderName, HeaderValue); 2] {
    [(POLICY, policies(limit_statuses)), (STANDING, limit_status(limit_statuses))]
}

fn policies(limit_statuses: &LimitStatuses) -> HeaderValue {
    list(limit_statuses, ["\";q=", ";w="], |of| [of.rate.amount.into(), of.rate.window.as_secs()])
}

fn limit_status(limit_statuses: &LimitStatuses) -> HeaderValue {
    passing(list(limit_statuses, ["\";r=", ";t="], |of| [of.left.into(), whole_seconds(of.reset)]))
}

fn list(
    limit_statuses: &LimitStatuses,
    names: [&str; 2],
    numbers: impl Fn(&LimitStatus) -> [u64; 2],
) -> HeaderValue {
    let mut list = Field::<LONGEST>::new();
    for limit_status in limit_statuses.iter() {
        list.push(if list.is_empty() { "\"" } else { ", \"" });
        list.push(limit_status.policy);
        for (name, number) in names.iter().zip(numbers(limit_status)) {
            list.push(name);
            list.number(number);
        }
    }
    list.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_as_long_as_told_works_and_a_moment_less_does_not() {
        let rate = Rate { amount: 3, window: Duration::from_secs(60) };
        let limiter = Limiter::new("client", rate, Counter::default());
        let now = Duration::from_secs(1000);
        for left in [2, 1, 0] {
            assert_eq!(limiter.check(now).map(|limit_status| limit_status.left), Ok(left));
        }
        let over = limiter.check(now).expect_err("over the limit");
        assert_eq!(over.reset, Duration::from_secs(20));
        assert!(limiter.check(now + over.reset - Duration::from_nanos(1)).is_err());
        assert!(limiter.check(now + over.reset).is_ok());
    }

    #[test]
    fn no_window_holds_more_than_the_amount_and_the_pause_between_two_is_even() {
        let rate = Rate { amount: 10, window: Duration::from_secs(10) };
        let limiter = Limiter::new("client", rate, Counter::default());
        // Ten times as many as may pass, for a minute, by requests that overtake one another by a little.
        let passed = (0..600_u64).filter(|n| {
            let now = Duration::from_millis(100 * n - 50 * (n % 3).min(*n));
            limiter.check(now).is_ok()
        });
        assert_eq!(passed.count(), 10 + 59);
    }

    #[test]
    fn the_fastest_and_the_slowest_rate_are_kept() {
        for (amount, window) in [(u32::MAX, 1), (1_000_000_000, 1), (1, 3600)] {
            let rate = Rate { amount, window: Duration::from_secs(window) };
            let limiter = Limiter::new("client", rate, Counter::default());
            let limit_status = limiter.check(Duration::ZERO).expect("the first one passes");
            assert_eq!(limit_status.left, amount - 1, "{rate:?}");
            assert_eq!(limiter.check(Duration::from_secs(1)).is_ok(), amount > 1, "{rate:?}");
        }
    }

    #[test]
    fn many_unknown_callers_leave_the_table_small_and_the_one_who_insists_is_still_limited() {
        let refused = Counter::default();
        let table = Table::new("address", 1_000, refused.clone());
        let now = Duration::from_secs(5);
        let rate = Rate { amount: 60, window: Duration::from_secs(60) };
        for n in 0..50_000_u32 {
            let _ = table.check(Caller::at(IpAddr::from(n.to_be_bytes())), rate, now);
            let network = (0x2001_0db8_u128 << 96) + (u128::from(n) << 64);
            let _ = table.check(Caller::at(IpAddr::from(network.to_be_bytes())), rate, now);
        }
        assert!(table.callers() <= 1_000, "{}", table.callers());
        let insisting = Caller::at(IpAddr::from([203, 0, 113, 69]));
        let passed = (0..1000).filter(|_| table.check(insisting, rate, now).is_ok()).count();
        assert!(passed < 200, "{passed}");
        assert_eq!(refused.get(), 1000 - passed as u64);
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller_and_a_mapped_address_is_the_address() {
        let at = |text: &str| Caller::at(text.parse().expect("an address"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:203.0.113.69"), at("203.0.113.69"));
        assert_ne!(at("203.0.113.68"), at("203.0.113.69"));
        assert_ne!(Caller::bearing("a", "bc", "d"), Caller::bearing("ab", "c", "d"));
    }

    #[test]
    fn the_fields_are_spelled_as_the_draft_spells_them() {
        let rate = Rate { amount: 600, window: Duration::from_secs(60) };
        let client = LimitStatus { policy: "client", rate, left: 412, reset: Duration::from_millis(22_100) };
        let upstream = LimitStatus { policy: "upstream", left: 0, ..client };
        let [(_, policies), (_, limit_statuses)] =
            headers(&LimitStatuses { client: Some(client), subject: None, upstream: Some(upstream) });
        assert_eq!(policies, r#""client";q=600;w=60, "upstream";q=600;w=60"#);
        assert_eq!(limit_statuses, r#""client";r=412;t=23, "upstream";r=0;t=23"#);
        assert!(limit_statuses.is_sensitive() && !policies.is_sensitive());

        let most = LimitStatus {
            policy: "upstream",
            rate: Rate { amount: u32::MAX, window: Duration::from_secs(u64::MAX) },
            left: u32::MAX,
            reset: Duration::from_secs(u64::MAX),
        };
        let [(_, policies), (_, limit_statuses)] =
            headers(&LimitStatuses { client: Some(most), subject: Some(most), upstream: Some(most) });
        let members = |value: &HeaderValue| {
            value.to_str().map(|text| text.matches(";w=18446744073709551615").count()).ok()
        };
        assert_eq!(members(&policies), Some(3), "{policies:?}");
        assert_eq!(limit_statuses.len(), policies.len(), "{limit_statuses:?}");
    }
}
