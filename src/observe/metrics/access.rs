//! Who may call and how often: rate limits, issuers' keys, and the ops token.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{FAILURE, SUCCESS, register};

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ClientLabels {
    client: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct IssuerLabels {
    issuer: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct FetchLabels {
    issuer: String,
    result: &'static str,
}

/// Who may call and how often.
pub struct Access {
    rate_limited: Family<ClientLabels, Counter>,
    pub subjects_limited: Counter,
    pub addresses_limited: Counter,
    pub ops_unauthenticated: Counter,
    jwks_fetches: Family<FetchLabels, Counter>,
    jwks_keys: Family<IssuerLabels, Gauge>,
}

impl Access {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            rate_limited: register(
                r,
                "kore_gateway_rate_limited",
                "Requests over their client's rate limit",
                Family::default(),
            ),
            subjects_limited: register(
                r,
                "kore_gateway_subjects_rate_limited",
                "Requests over the limit of one bearer of a token",
                Counter::default(),
            ),
            addresses_limited: register(
                r,
                "kore_gateway_addresses_rate_limited",
                "Requests without a valid credential over the limit of their address",
                Counter::default(),
            ),
            ops_unauthenticated: register(
                r,
                "kore_gateway_ops_unauthenticated",
                "Requests to the ops listener with a wrong ops token",
                Counter::default(),
            ),
            jwks_fetches: register(
                r,
                "kore_gateway_jwks_fetches",
                "Fetches of issuers' keys",
                Family::default(),
            ),
            jwks_keys: register(
                r,
                "kore_gateway_jwks_keys",
                "Keys of an issuer that are known",
                Family::default(),
            ),
        }
    }

    /// The counter of a client's requests that were over its limit.
    pub fn rate_limited(&self, client: &str) -> Counter {
        self.rate_limited.get_or_create_owned(&ClientLabels { client: client.to_owned() })
    }

    /// The counters of fetches of an issuer's keys that worked and failed, and the gauge of the keys.
    pub fn jwks(&self, issuer: &str) -> (Counter, Counter, Gauge) {
        let fetches = |result| {
            self.jwks_fetches.get_or_create_owned(&FetchLabels { issuer: issuer.to_owned(), result })
        };
        let keys = self.jwks_keys.get_or_create_owned(&IssuerLabels { issuer: issuer.to_owned() });
        (fetches(SUCCESS), fetches(FAILURE), keys)
    }

    pub(super) fn forget_client(&self, client: String) {
        self.rate_limited.remove(&ClientLabels { client });
    }

    pub(super) fn forget_issuer(&self, issuer: String) {
        for result in [SUCCESS, FAILURE] {
            self.jwks_fetches.remove(&FetchLabels { issuer: issuer.clone(), result });
        }
        self.jwks_keys.remove(&IssuerLabels { issuer });
    }
}
