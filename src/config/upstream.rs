//! How the upstream is called (`[upstream]`).

use std::time::Duration;

use super::certificates::Certificates;
use super::section::Section;
use super::server::bound;
use super::value::Percent;
use crate::overload::shares::Bound;

#[derive(Clone, Debug)]
pub struct Upstream {
    pub connect_timeout: Duration,
    pub timeout: Duration,
    /// Bytes of a decoded answer.
    pub max_body: usize,
    /// Bytes of answers that are being read at the same time, and a client's share of them.
    pub max_bytes_in_flight: Bound,
    /// For passing on what is larger than that.
    pub large_timeout: Duration,
    /// Calls that wait for one pool of the quota.
    pub max_waiting: usize,
    /// Bots of an account that the configuration does not name and whose quota is counted at a time.
    pub max_bots: usize,
    /// How long a connection is kept for the next call.
    pub idle_timeout: Duration,
    /// How old a connection gets at most.
    pub max_connection_age: Duration,
    /// PEM certificates to trust in place of the machine's.
    pub ca: Option<Vec<u8>>,
    pub breaker: Breaker,
    pub retry: Retry,
    pub fairness: Fairness,
}

/// When an upstream that fails is left alone, per base URL.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    /// Failures in a row.
    pub failures: u32,
    pub open_for: Duration,
}

/// How calls that failed are made again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Of all calls, in percent.
    pub budget: u32,
    /// The first wait is anything up to this; each further one up to twice as much as the last.
    pub first_wait: Duration,
    pub longest_wait: Duration,
}

/// How the upstream's quota is shared among clients, in percent of each window.
#[derive(Clone, Copy, Debug)]
pub struct Fairness {
    /// Kept free by whoever has used up its share.
    pub headroom: u32,
    /// Kept free by them at most for one client that comes with its whole share at once.
    pub reserve: u32,
    /// Goes to the background lane before anybody else.
    pub background_minimum: u32,
}

impl Upstream {
    pub(super) fn read(mut section: Section<'_>, client_share: Percent) -> (Self, bool) {
        let upstream = Self {
            connect_timeout: section.positive("connect_timeout"),
            timeout: section.positive("timeout"),
            max_body: section.bytes("max_body"),
            max_bytes_in_flight: bound(section.bytes("max_bytes_in_flight"), client_share),
            large_timeout: section.positive("large_timeout"),
            max_waiting: section.count("max_waiting"),
            max_bots: section.count("max_bots"),
            idle_timeout: section.required("idle_timeout"),
            max_connection_age: section.positive("max_connection_age"),
            ca: section.optional::<Certificates>("ca_file").map(|certificates| certificates.0),
            breaker: Breaker::read(section.section("breaker")),
            retry: Retry::read(section.section("retry")),
            fairness: Fairness::read(section.section("fairness")),
        };
        // moka weighs an entry in 32 bits.
        if upstream.max_body > 1 << 30 {
            section.report("max_body", "is more than 1GiB, the largest answer that is held");
        }
        let allow_plain_http = section.required("allow_plain_http") || !section.is_known("allow_plain_http");
        section.close();
        (upstream, allow_plain_http)
    }
}

impl Breaker {
    fn read(mut section: Section<'_>) -> Self {
        let failures = u32::try_from(section.required::<u64>("failures")).unwrap_or(u32::MAX);
        let breaker = Self { failures, open_for: section.positive("open_for") };
        section.close();
        breaker
    }
}

impl Retry {
    fn read(mut section: Section<'_>) -> Self {
        let retry = Self {
            budget: section.required::<Percent>("budget").0,
            first_wait: section.required("first_wait"),
            longest_wait: section.required("longest_wait"),
        };
        section.close();
        retry
    }
}

impl Fairness {
    fn read(mut section: Section<'_>) -> Self {
        let fairness = Self {
            headroom: section.required::<Percent>("headroom").0,
            reserve: section.required::<Percent>("reserve").0,
            background_minimum: section.required::<Percent>("background_minimum").0,
        };
        for (name, percent) in [("headroom", fairness.headroom), ("reserve", fairness.reserve)] {
            if percent > 50 {
                section.report(name, "is more than 50; half of the quota would lie idle");
            }
        }
        section.close();
        fairness
    }
}
