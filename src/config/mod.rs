//! The configuration, twice: as it is written, and what it means.
//!
//! As written it is a TOML table, put together from the compiled-in defaults, files, and the
//! environment.
//! What it means is [`Config`]: complete, checked, immutable, without an `Option` that stands for a
//! default. [`Config::resolve`] is the only way from one to the other and reports **all** faults.

mod account;
mod audit;
mod bots;
mod cache;
mod certificates;
mod client;
mod clients;
mod copied;
mod effective;
mod fault;
mod file;
mod findings;
mod fingerprint;
mod limits;
mod load;
mod locations;
mod log;
mod oidc;
mod overview;
mod proxies;
mod redaction;
mod reload;
mod secret;
mod section;
mod server;
mod setting;
mod tls;
mod tracing;
mod unreadable;
mod upstream;
mod url;
mod value;

use std::sync::Arc;

use toml::Table;

use crate::routes::RequestLimits;
use account::Accounts;
use client::Others;
use fault::Faults;
use section::Section;

pub use account::{Account, Claims, Credential, Quota, UnprovenSessions};
pub use audit::{Audit, AuditTo};
pub use bots::Bots;
pub use cache::Cache;
pub use client::{Client, Lane};
pub use clients::Clients;
pub use effective::{effective, filled};
pub use fault::ConfigFault;
pub use file::{read_file, read_text};
pub use fingerprint::Fingerprint;
pub use limits::Callers;
pub use load::{ENVIRONMENT_PREFIX, Layer, Sources, limits, load, load_noting};
pub use log::{Log, LogFormat, LogTo};
pub use oidc::{Oidc, OidcRule};
pub use overview::changed_sections;
pub use proxies::{Proxies, ProxyHeader};
pub use redaction::{Pointer, Redaction, RedactionKind, Step};
pub use reload::Reload;
pub use secret::{KEY_PREFIX, secret};
pub use server::{Ops, Server};
pub use tls::Tls;
pub use tracing::Tracing;
pub use upstream::{Breaker, Fairness, Retry, Upstream};
pub use value::Rate;

/// The defaults, and the manual.
pub const DEFAULTS: &str = include_str!("../../config/gateway.toml");

// With somebody's own configuration in its place, a build would have no defaults.
const _: () = assert!(
    begins_with(DEFAULTS.as_bytes(), b"# kore-gateway: the manual."),
    "config/gateway.toml is not the manual, which is compiled in as the defaults: restore it, and keep your own \
     configuration in another file"
);

const fn begins_with(mut text: &[u8], mut start: &[u8]) -> bool {
    while let [expected, rest @ ..] = start {
        match text {
            [found, following @ ..] if *found == *expected => (text, start) = (following, rest),
            _ => return false,
        }
    }
    true
}

/// What the configuration means.
#[derive(Debug)]
pub struct Config {
    pub server: Server,
    pub ops: Ops,
    pub log: Log,
    pub tracing: Tracing,
    pub reload: Reload,
    pub audit: Audit,
    pub upstream: Upstream,
    pub limits: RequestLimits,
    pub callers: Callers,
    /// Steps that looking into one body for a client may take.
    pub redaction_work: u64,
    pub cache: Cache,
    pub oidc: Oidc,
    pub accounts: Vec<Arc<Account>>,
    pub clients: Clients,
}

impl Config {
    /// What a table means, or everything that is wrong with it. Reads the files that it names.
    pub fn resolve(written: Table) -> Result<Self, Vec<ConfigFault>> {
        let faults = Faults::default();
        let config = Self::read(Section::root(written, &faults));
        match faults.into_vec() {
            faults if faults.is_empty() => Ok(config),
            faults => Err(faults),
        }
    }

    /// Each part reads itself; what concerns several is held against one another by the later one.
    fn read(mut root: Section<'_>) -> Self {
        let server = Server::read(root.section("server"));
        let ops = Ops::read(root.section("ops"));
        if server.listen == ops.listen && server.listen.port() != 0 {
            root.report("ops.listen", "is the address of server.listen too; the two need one each");
        }
        let log = Log::read(root.section("log"));
        let tracing = Tracing::read(root.section("tracing"));
        let reload = Reload::read(root.section("reload"));
        let audit = Audit::read(root.section("audit"));
        let (upstream, allow_plain_http) = Upstream::read(root.section("upstream"), server.client_share);
        let limits = limits::Limits::read(root.section("limits"));
        let cache = Cache::read(root.section("cache"));
        let accounts = Accounts::read_all(&mut root, allow_plain_http);
        let redactions = Redaction::read_all(root.section("redaction"));
        let oidc = Oidc::read(root.section("oidc"));
        let redactions = root.is_known("redaction").then_some(&*redactions);
        let others = Others { accounts: &accounts, redactions, oidc: &oidc };
        let clients = Clients::read_all(&mut root, &others);
        root.close();
        Self {
            limits: RequestLimits {
                conversation_details_limit: limits.conversation_details_limit,
                max_json_depth: server.max_json_depth,
            },
            callers: limits.callers,
            redaction_work: limits.redaction_work,
            server,
            ops,
            log,
            tracing,
            reload,
            audit,
            upstream,
            cache,
            oidc,
            accounts: accounts.into_vec(),
            clients,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_whole_but_for_accounts_and_clients() {
        let faults = Config::resolve(DEFAULTS.parse().expect("TOML")).expect_err("nobody may call");
        let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["accounts", "clients"], "{faults:?}");
        assert!(begins_with(b"abc", b"ab") && !begins_with(b"a", b"ab") && !begins_with(b"ba", b"ab"));
    }
}
