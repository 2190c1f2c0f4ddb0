//! Series that carry a name of the configuration, and end with it: an alert about what is gone helps nobody.

use std::collections::HashSet;

use super::{
    AccountLabels, ClientLabels, CredentialLabels, FetchLabels, IssuerLabels, Metrics, PoolLabels,
    UpstreamLabels,
};
use crate::config::Config;

/// A name that a configuration gives to series.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Named {
    Account(String),
    Client(String),
    Credential(String),
    Issuer(String),
    Upstream(String),
}

/// The names that a configuration gives to series.
#[derive(Clone, Default, Debug)]
pub struct Names(HashSet<Named>);

impl Names {
    pub fn of(config: &Config) -> Self {
        let mut names = HashSet::new();
        for account in &config.accounts {
            names.insert(Named::Account(account.id.to_string()));
            for base in [&account.contact_center_url, &account.automation_url] {
                names.insert(Named::Upstream(base.clone()));
            }
            let credentials = account.credentials.iter();
            names.extend(credentials.map(|credential| Named::Credential(credential.client_id.clone())));
        }
        for client in config.clients.iter() {
            names.insert(Named::Client(client.name.to_string()));
            let issuer = client.oidc.as_ref().map(|rule| Named::Issuer(rule.issuer.to_string()));
            names.extend(issuer);
        }
        Self(names)
    }
}

impl Metrics {
    /// Removes the series of `names` that `current` does not have. Counters as well: nothing counts for them any more,
    /// and a name that comes back begins at zero, as after a restart.
    pub fn forget(&self, names: &Names, current: &Names) {
        for name in names.0.difference(&current.0) {
            self.remove(name.clone());
        }
    }

    fn remove(&self, name: Named) {
        match name {
            Named::Account(account) => {
                for pool in ["account", "bot"] {
                    self.quota_available.remove(&PoolLabels { account: account.clone(), pool });
                }
                self.quota_waiting.remove(&AccountLabels { account });
            }
            Named::Client(client) => {
                self.rate_limited.remove(&ClientLabels { client });
            }
            Named::Credential(credential) => {
                let labels = CredentialLabels { credential };
                self.tokens_minted.remove(&labels);
                self.token_expiry.remove(&labels);
            }
            Named::Issuer(issuer) => {
                for result in ["success", "failure"] {
                    self.jwks_fetches.remove(&FetchLabels { issuer: issuer.clone(), result });
                }
                self.jwks_keys.remove(&IssuerLabels { issuer });
            }
            Named::Upstream(upstream) => {
                self.breaker_state.remove(&UpstreamLabels { upstream });
            }
        }
    }
}
