//! What the log says of a configuration: counts, names of sections and times, and no value of a secret.

use toml::Table;

use super::{AuditTo, Config, Layer, Quota, Sources};

/// Descriptors that are no caller's: the ops listener's connections, those to the upstream, files and timers.
const OTHER_DESCRIPTORS: u64 = 300;

impl Sources {
    /// The files of the configuration, later ones over earlier ones.
    pub fn files(&self) -> String {
        let files = self.layers.iter().filter_map(|layer| match layer {
            Layer::File(file) => Some(file.display().to_string()),
            Layer::Text(_) => None,
        });
        listed(files.collect(), "none")
    }
}

impl Config {
    /// Issuers of identity tokens, each once.
    pub fn issuers(&self) -> usize {
        let rules = self.clients.iter().filter_map(|client| client.oidc.as_ref());
        let mut issuers: Vec<_> = rules.map(|rule| &*rule.issuer).collect();
        issuers.sort_unstable();
        issuers.dedup();
        issuers.len()
    }

    /// Until when callers accept the certificate, or that there is none.
    pub fn tls_end(&self) -> String {
        self.server.tls.as_ref().map_or_else(|| "off".to_owned(), |tls| format!("until {}", tls.not_after()))
    }

    /// The rates of accounts and their bots, each once.
    pub fn quotas(&self) -> String {
        let mut quotas: Vec<_> = self.accounts.iter().map(|account| quota(&account.quota)).collect();
        quotas.sort_unstable();
        quotas.dedup();
        quotas.join("; ")
    }

    pub fn audit_to(&self) -> String {
        match &self.audit.to {
            AuditTo::Nowhere => "off".to_owned(),
            AuditTo::Stdout => "stdout".to_owned(),
            AuditTo::File(path) => path.display().to_string(),
        }
    }

    /// What is wrong with a limit of so many file descriptors, if it is less than the configuration needs.
    pub fn too_few_descriptors(&self, limit: u64) -> Option<String> {
        let connections = self.server.max_connections;
        let needed = OTHER_DESCRIPTORS.saturating_add(u64::try_from(connections).unwrap_or(u64::MAX));
        (limit < needed).then(|| {
            format!(
                "the process may open {limit} files (nofile), and server.max_connections = {connections} needs \
                 {needed}; raise the limit (systemd: LimitNOFILE, a shell: ulimit -n, a container: --ulimit nofile) \
                 or lower server.max_connections"
            )
        })
    }
}

fn quota(quota: &Quota) -> String {
    let rates = |rates: &[super::Rate]| {
        let rates: Vec<_> = rates.iter().map(ToString::to_string).collect();
        rates.join(" and ")
    };
    format!("account {}, bot {}", rates(&quota.account), rates(&quota.bot))
}

/// The sections that one configuration has otherwise than another, by their names.
pub fn changed_sections(before: &Table, after: &Table) -> String {
    let mut sections: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    sections.sort_unstable();
    sections.dedup();
    sections.retain(|section| before.get(section) != after.get(section));
    listed(sections, "nothing")
}

fn listed(names: Vec<String>, none: &str) -> String {
    if names.is_empty() { none.to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_section_is_named_and_its_values_are_not() {
        let table = |text: &str| text.parse::<Table>().expect("TOML");
        let before = table("[a]\nsecret = 'x1'\n[b]\nn = 1\n[[clients]]\nname = 'r'");
        for (after, changed) in [
            ("[a]\nsecret = 'x1'\n[b]\nn = 1\n[[clients]]\nname = 'r'", "nothing"),
            ("[a]\nsecret = 'x2'\n[b]\nn = 1\n[[clients]]\nname = 'r'", "a"),
            ("[b]\nn = 1\n[c]\nn = 1\n[[clients]]\nname = 'r'\n[[clients]]\nname = 's'", "a, c, clients"),
        ] {
            assert_eq!(changed_sections(&before, &table(after)), changed, "{after}");
        }
    }
}
