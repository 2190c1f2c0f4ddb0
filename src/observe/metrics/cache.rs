//! What is stored, and how requests to a route are answered.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::register;
use crate::routes::{ROUTES, Route};

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OutcomeLabels {
    route: &'static str,
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RefreshLabels {
    route: &'static str,
    /// `changed` or `unchanged`.
    result: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct FormLabels {
    /// `br`, `gzip` or `view`.
    form: &'static str,
}

/// How a request to a route was answered. Each has one, so that their sum is the number of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheOutcome {
    Hit,
    Stale,
    Miss,
    Collapsed,
    /// Neither out of the store nor by the upstream: it was refused, or failed.
    Bypass,
}

impl CacheOutcome {
    const ALL: [Self; OUTCOMES] = [Self::Hit, Self::Stale, Self::Miss, Self::Collapsed, Self::Bypass];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Bypass => "bypass",
        }
    }
}

/// How many there are of them.
const OUTCOMES: usize = 5;

/// What is stored, and how requests to a route are answered.
pub struct Cache {
    /// By route and outcome.
    outcomes: [[Counter; OUTCOMES]; ROUTES.len()],
    entries: Gauge,
    bytes: Gauge<f64, AtomicU64>,
    pub evictions: Counter,
    bodies_made: Family<FormLabels, Counter>,
    settled_refreshes: Family<RefreshLabels, Counter>,
}

impl Cache {
    pub(super) fn new(r: &mut Registry) -> Self {
        let requests = register(
            r,
            "kore_gateway_cache_requests",
            "Requests to a route, by outcome; their sum is all of them",
            Family::<OutcomeLabels, Counter>::default(),
        );
        let outcomes = ROUTES.each_ref().map(|route| {
            let route = route.name.as_str();
            let counter = |outcome| requests.get_or_create_owned(&OutcomeLabels { route, outcome });
            CacheOutcome::ALL.map(CacheOutcome::as_str).map(counter)
        });
        let cache = Self {
            outcomes,
            entries: register(r, "kore_gateway_cache_entries", "Stored answers", Gauge::default()),
            bytes: register(r, "kore_gateway_cache_bytes", "Bytes of stored answers", Gauge::default()),
            evictions: register(
                r,
                "kore_gateway_cache_evictions",
                "Answers that went for want of room",
                Counter::default(),
            ),
            bodies_made: register(
                r,
                "kore_gateway_cache_bodies_made",
                "Bodies made of answers: compressed, or what a client is shown of one",
                Family::default(),
            ),
            settled_refreshes: register(
                r,
                "kore_gateway_cache_settled_refreshes",
                "Answers called settled that were fetched anew; if many have changed, settle is too short",
                Family::default(),
            ),
        };
        for form in ["br", "gzip", "view"] {
            cache.bodies_made.get_or_create_owned(&FormLabels { form });
        }
        for route in ROUTES.each_ref().map(|route| route.name.as_str()) {
            for result in ["changed", "unchanged"] {
                cache.settled_refreshes.get_or_create_owned(&RefreshLabels { route, result });
            }
        }
        cache
    }

    /// How a request to a route was answered; once for each that is counted by [`super::Http::request`].
    pub fn request(&self, route: &Route, outcome: CacheOutcome) {
        self.outcomes[route.name as usize][outcome as usize].inc();
    }

    /// An answer that had been called settled was fetched anew, and was `changed` or not.
    pub fn settled_refresh(&self, route: &Route, changed: bool) {
        let result = if changed { "changed" } else { "unchanged" };
        let labels = RefreshLabels { route: route.name.as_str(), result };
        self.settled_refreshes.get_or_create_owned(&labels).inc();
    }

    /// Sets what is read rather than counted.
    pub fn size(&self, entries: u64, bytes: u64) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        #[expect(clippy::cast_precision_loss, reason = "a gauge; exact up to 8 PiB")]
        self.bytes.set(bytes as f64);
    }

    /// A body was made of an answer: in a coding, or a client's view.
    pub fn body_made(&self, form: &'static str) {
        self.bodies_made.get_or_create_owned(&FormLabels { form }).inc();
    }
}
