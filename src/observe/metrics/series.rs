//! Series with a name of the configuration in a label. They end when the name leaves the configuration: an alert
//! about something that no longer exists helps nobody.

use std::collections::HashSet;

use super::Metrics;
use crate::config::Config;

/// A name that a configuration gives to series.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum SeriesName {
    Account(String),
    Client(String),
    Credential(String),
    Issuer(String),
    BaseUrl(String),
}

/// The names that a configuration gives to series.
#[derive(Clone, Default, Debug)]
pub struct SeriesNames(HashSet<SeriesName>);

impl SeriesNames {
    pub fn of(config: &Config) -> Self {
        let mut names = HashSet::new();
        for account in &config.accounts {
            names.insert(SeriesName::Account(account.id.to_string()));
            for base in [&account.contact_center_url, &account.automation_url] {
                names.insert(SeriesName::BaseUrl(base.clone()));
            }
            let credentials = account.credentials.iter();
            names.extend(credentials.map(|credential| SeriesName::Credential(credential.client_id.clone())));
        }
        for client in config.clients.iter() {
            names.insert(SeriesName::Client(client.name.to_string()));
            let issuer = client.oidc.as_ref().map(|rule| SeriesName::Issuer(rule.issuer.to_string()));
            names.extend(issuer);
        }
        Self(names)
    }
}

impl Metrics {
    /// Removes the series of `names` that `current` does not have. Counters as well: nothing counts for them any more,
    /// and a name that comes back begins at zero, as after a restart.
    pub fn forget(&self, names: &SeriesNames, current: &SeriesNames) {
        for name in names.0.difference(&current.0) {
            self.remove(name.clone());
        }
    }

    fn remove(&self, name: SeriesName) {
        match name {
            SeriesName::Account(account) => self.upstream.forget_account(account),
            SeriesName::Client(client) => self.access.forget_client(client),
            SeriesName::Credential(credential) => self.upstream.forget_credential(credential),
            SeriesName::Issuer(issuer) => self.access.forget_issuer(issuer),
            SeriesName::BaseUrl(base_url) => self.upstream.forget_base_url(base_url),
        }
    }
}
