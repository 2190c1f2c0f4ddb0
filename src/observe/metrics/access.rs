//! Who may call and how often: rate limits, issuers' keys, and the ops token.

use std::net::IpAddr;

use http::StatusCode;
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

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RefusedLabels {
    status: u16,
    /// `none` where it is not known whose request it was.
    client: String,
    /// `loopback`, `private` or `public`.
    address: &'static str,
}

const NO_CLIENT: &str = "none";
const REFUSED: [StatusCode; 2] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];

/// Who may call and how often.
pub struct Access {
    refused: Family<RefusedLabels, Counter>,
    rate_limited: Family<ClientLabels, Counter>,
    pub subjects_limited: Counter,
    pub addresses_limited: Counter,
    pub ops_unauthenticated: Counter,
    jwks_fetches: Family<FetchLabels, Counter>,
    jwks_keys: Family<IssuerLabels, Gauge>,
}

impl Access {
    pub(super) fn new(r: &mut Registry) -> Self {
        let access = Self {
            refused: register(
                r,
                "kore_gateway_access_refused",
                "Requests answered with 401 or 403, by client and kind of address",
                Family::default(),
            ),
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
        };
        access.begin_at_zero(NO_CLIENT);
        access
    }

    fn begin_at_zero(&self, client: &str) {
        for labels in refused_series(client) {
            self.refused.get_or_create_owned(&labels);
        }
    }

    /// A request was answered with `status`; counted if that is 401 or 403.
    pub fn answered(&self, status: StatusCode, client: Option<&str>, address: IpAddr) {
        if REFUSED.contains(&status) {
            let client = client.unwrap_or(NO_CLIENT).to_owned();
            let labels = RefusedLabels { status: status.as_u16(), client, address: class(address) };
            self.refused.get_or_create_owned(&labels).inc();
        }
    }

    /// The counter of a client's requests that were over its limit.
    pub fn rate_limited(&self, client: &str) -> Counter {
        self.begin_at_zero(client);
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
        for labels in refused_series(&client) {
            self.refused.remove(&labels);
        }
        self.rate_limited.remove(&ClientLabels { client });
    }

    pub(super) fn forget_issuer(&self, issuer: String) {
        for result in [SUCCESS, FAILURE] {
            self.jwks_fetches.remove(&FetchLabels { issuer: issuer.clone(), result });
        }
        self.jwks_keys.remove(&IssuerLabels { issuer });
    }
}

fn refused_series(client: &str) -> impl Iterator<Item = RefusedLabels> {
    let of = |status: StatusCode| {
        CLASSES.map(|address| RefusedLabels { status: status.as_u16(), client: client.to_owned(), address })
    };
    REFUSED.map(of).into_iter().flatten()
}

const CLASSES: [&str; 3] = ["loopback", "private", "public"];

/// From how far away a caller is. No address is in a label: it would be personal data, and without end.
fn class(address: IpAddr) -> &'static str {
    let is_private = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    let [loopback, private, public] = CLASSES;
    match address.to_canonical().is_loopback() {
        true => loopback,
        false if is_private => private,
        false => public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_class_of_its_network() {
        for (address, expected) in [
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("10.1.2.3", "private"),
            ("192.168.0.1", "private"),
            ("169.254.1.1", "private"),
            ("fd00::1", "private"),
            ("fe80::1", "private"),
            ("::ffff:172.16.0.1", "private"),
            ("192.0.2.1", "public"),
            ("172.32.0.1", "public"),
            ("2001:db8::1", "public"),
        ] {
            assert_eq!(class(address.parse().expect("an address")), expected, "{address}");
        }
    }
}
