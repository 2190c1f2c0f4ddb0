//! Calls to the upstream, and what limits them: quota, tokens and circuit breakers.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{register, seconds};
use crate::routes::{ROUTES, Route};

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct CallLabels {
    route: &'static str,
    status: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct AttemptLabels {
    route: &'static str,
    result: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct WithheldLabels {
    route: &'static str,
    reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct PoolLabels {
    account: String,
    /// `account` or `bot`.
    pool: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct AccountLabels {
    account: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct BaseUrlLabels {
    upstream: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct CredentialLabels {
    credential: String,
}

/// What came of one call to the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttemptResult {
    Answered,
    TokenRefused,
    QuotaRefused,
    Failed,
}

impl AttemptResult {
    const ALL: [Self; 4] = [Self::Answered, Self::TokenRefused, Self::QuotaRefused, Self::Failed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::TokenRefused => "token-refused",
            Self::QuotaRefused => "quota-refused",
            Self::Failed => "failed",
        }
    }
}

/// Calls to the upstream, and what limits them.
pub struct Upstream {
    calls: Family<CallLabels, Histogram, fn() -> Histogram>,
    attempts: Family<AttemptLabels, Counter>,
    retries: Family<RouteLabels, Counter>,
    withheld: Family<WithheldLabels, Counter>,
    quota_available: Family<PoolLabels, Gauge>,
    pub quota_wait: Histogram,
    quota_waiting: Family<AccountLabels, Gauge>,
    breaker_state: Family<BaseUrlLabels, Gauge>,
    tokens_minted: Family<CredentialLabels, Counter>,
    token_expiry: Family<CredentialLabels, Gauge>,
}

impl Upstream {
    pub(super) fn new(r: &mut Registry) -> Self {
        let calls = Family::new_with_constructor(seconds as fn() -> Histogram);
        let upstream = Self {
            calls: register(r, "http_client_request_duration_seconds", "Calls to the upstream", calls),
            attempts: register(
                r,
                "kore_gateway_upstream_attempts",
                "Calls to the upstream, by result",
                Family::default(),
            ),
            retries: register(
                r,
                "kore_gateway_upstream_retries",
                "Calls to the upstream that were made again",
                Family::default(),
            ),
            withheld: register(
                r,
                "kore_gateway_upstream_withheld",
                "Complete answers that nobody got: cut, about another record or account, or with the token that was sent",
                Family::default(),
            ),
            quota_available: register(
                r,
                "kore_gateway_upstream_quota_available",
                "Calls there is room for at once",
                Family::default(),
            ),
            quota_wait: register(
                r,
                "kore_gateway_upstream_quota_wait_seconds",
                "Time that calls waited for room",
                seconds(),
            ),
            quota_waiting: register(
                r,
                "kore_gateway_upstream_quota_waiting",
                "Calls that wait for room",
                Family::default(),
            ),
            breaker_state: register(
                r,
                "kore_gateway_breaker_state",
                "0 closed, 1 probing, 2 open, by base URL",
                Family::default(),
            ),
            tokens_minted: register(
                r,
                "kore_gateway_tokens_minted",
                "Tokens minted for the upstream",
                Family::default(),
            ),
            token_expiry: register(
                r,
                "kore_gateway_token_expiry_timestamp_seconds",
                "When the current token expires",
                Family::default(),
            ),
        };
        upstream.begin_at_zero();
        upstream
    }

    fn begin_at_zero(&self) {
        for route in ROUTES.each_ref().map(|route| route.name.as_str()) {
            for result in AttemptResult::ALL.map(AttemptResult::as_str) {
                self.attempts.get_or_create_owned(&AttemptLabels { route, result });
            }
            self.retries.get_or_create_owned(&RouteLabels { route });
            for reason in ["cut", "another-record", "another-account", "token"] {
                self.withheld.get_or_create_owned(&WithheldLabels { route, reason });
            }
        }
    }

    /// One call to the upstream; `status` is 0 where none came.
    pub fn attempt(&self, route: &Route, status: u16, result: AttemptResult, duration: Duration) {
        let route = route.name.as_str();
        self.calls.get_or_create_owned(&CallLabels { route, status }).observe(duration.as_secs_f64());
        self.attempts.get_or_create_owned(&AttemptLabels { route, result: result.as_str() }).inc();
    }

    /// A call is made again.
    pub fn retry(&self, route: &Route) {
        self.retries.get_or_create_owned(&RouteLabels { route: route.name.as_str() }).inc();
    }

    /// An answer that came whole, and that nobody gets.
    pub fn withheld(&self, route: &Route, reason: &'static str) {
        let labels = WithheldLabels { route: route.name.as_str(), reason };
        self.withheld.get_or_create_owned(&labels).inc();
    }

    pub fn quota_available(&self, account: &str, pool: &'static str, calls: u32) {
        let labels = PoolLabels { account: account.to_owned(), pool };
        self.quota_available.get_or_create_owned(&labels).set(calls.into());
    }

    pub fn quota_waiting(&self, account: &str, calls: usize) {
        let labels = AccountLabels { account: account.to_owned() };
        self.quota_waiting.get_or_create_owned(&labels).set(i64::try_from(calls).unwrap_or(i64::MAX));
    }

    /// The state of a base URL's circuit breaker.
    pub fn breaker(&self, base_url: &str) -> Gauge {
        self.breaker_state.get_or_create_owned(&BaseUrlLabels { upstream: base_url.to_owned() })
    }

    /// The counter of tokens minted for a credential, and the gauge of their expiry.
    pub fn credential(&self, credential: &str) -> (Counter, Gauge) {
        let labels = CredentialLabels { credential: credential.to_owned() };
        (self.tokens_minted.get_or_create_owned(&labels), self.token_expiry.get_or_create_owned(&labels))
    }

    pub(super) fn forget_account(&self, account: String) {
        for pool in ["account", "bot"] {
            self.quota_available.remove(&PoolLabels { account: account.clone(), pool });
        }
        self.quota_waiting.remove(&AccountLabels { account });
    }

    pub(super) fn forget_credential(&self, credential: String) {
        let labels = CredentialLabels { credential };
        self.tokens_minted.remove(&labels);
        self.token_expiry.remove(&labels);
    }

    pub(super) fn forget_base_url(&self, upstream: String) {
        self.breaker_state.remove(&BaseUrlLabels { upstream });
    }
}
