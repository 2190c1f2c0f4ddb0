//! The configuration, twice: as it is written, and what it means.
//!
//! As written it is a TOML table, put together from the compiled-in defaults, files, and the
//! environment.
//! What it means is [`Config`]: complete, checked, immutable, without an `Option` that stands for a
//! default. [`Config::resolve`] is the only way from one to the other and reports **all** faults.

mod client;
mod effective;
mod findings;
pub mod fingerprint;
mod load;
mod log;
mod oidc;
mod places;
mod proxies;
mod redaction;
mod resolve;
mod secret;
mod section;
mod server;
mod tls;
mod tracing;
mod value;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;

use crate::lifecycle::phase::Rule;
use crate::routes::{Limits, ROUTES, Route, Scope};

pub use client::{Client, Clients, Lane};
pub use effective::{effective, filled};
pub use load::{ENVIRONMENT_PREFIX, Layer, Sources, Written, limits, load, written};
pub use oidc::{Oidc, OidcRule};
pub use proxies::{Proxies, ProxyHeader};
pub use redaction::{Kind, Pointer, Redaction, Step};
pub use secret::{KEY_PREFIX, secret};
pub use section::Fault;
pub use server::{Ops, Server};
pub use tls::Tls;
pub use tracing::Tracing;
pub use value::Rate;

/// The defaults, and the manual.
pub const DEFAULTS: &str = include_str!("../../config/gateway.toml");

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
    pub limits: Limits,
    pub callers: Callers,
    /// Steps that looking into one body for a client may take.
    pub redaction_work: u64,
    pub cache: Cache,
    pub oidc: Oidc,
    pub accounts: Vec<Arc<Account>>,
    pub clients: Clients,
}

/// When changed files are taken up.
#[derive(Clone, Copy, Debug)]
pub struct Reload {
    /// Zero: not by themselves.
    pub check_files_every: Duration,
}

#[derive(Debug)]
pub struct Log {
    /// `tracing_subscriber::EnvFilter` syntax, checked.
    pub level: String,
    pub format: LogFormat,
    pub access: bool,
    pub access_to: LogTo,
}

/// Where access lines go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogTo {
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Json,
    Text,
}

/// Where it is written down who was handed what.
#[derive(Debug)]
pub struct Audit {
    pub to: AuditTo,
    /// What cannot be written down is not handed out.
    pub refuse_on_failure: bool,
    /// A line counts as written when it is on the disk, not when the kernel has it.
    pub sync: bool,
    pub timeout: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuditTo {
    Nowhere,
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Debug)]
pub struct Upstream {
    pub connect_timeout: Duration,
    pub timeout: Duration,
    /// Bytes of a decoded answer.
    pub max_body: usize,
    /// Bytes of answers that are being read at the same time.
    pub max_bytes_in_flight: usize,
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

/// When an upstream that fails is left alone, per base URL.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    /// Failures in a row.
    pub failures: u32,
    pub open_for: Duration,
}

/// Limits of callers that are not clients, or not whole ones.
#[derive(Clone, Copy, Debug)]
pub struct Callers {
    /// What one address may ask without a valid credential.
    pub unauthenticated: Rate,
    /// Addresses, and bearers of tokens, that are counted at a time.
    pub tracked: u64,
}

#[derive(Debug)]
pub struct Cache {
    /// Bytes.
    pub capacity: u64,
    /// Ids.
    pub seen: u64,
    /// After a fill that failed, until the next one for the same answer.
    pub back_off: Duration,
    rules: [Rule; ROUTES.len()],
}

impl Cache {
    pub fn rule(&self, route: &Route) -> &Rule {
        &self.rules[route.name as usize]
    }
}

/// A set of bots: some, or any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bots {
    Any,
    These(Vec<String>),
}

impl Bots {
    pub fn include(&self, bot: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(bots) => bots.iter().any(|known| known == bot),
        }
    }

    /// The bot, if there is exactly one.
    pub fn only(&self) -> Option<&str> {
        match self {
            Self::These(bots) if bots.len() == 1 => bots.first().map(String::as_str),
            _ => None,
        }
    }
}

impl Config {
    /// What of `self` cannot take the place of `running` without a restart, as faults.
    pub fn needs_restart(&self, running: &Self) -> Vec<Fault> {
        let (new, old) = (self, running);
        let fixed = [
            ("server.listen", new.server.listen == old.server.listen),
            ("server.share_port", new.server.share_port == old.server.share_port),
            ("server.workers", new.server.workers == old.server.workers),
            ("server.max_connections", new.server.max_connections == old.server.max_connections),
            (
                "server.max_connections_per_address",
                new.server.max_connections_per_address == old.server.max_connections_per_address,
            ),
            // The guard and the budget of bytes are made with the listener.
            ("server.max_head", new.server.max_head == old.server.max_head),
            ("server.max_target", new.server.max_target == old.server.max_target),
            ("server.max_fields", new.server.max_fields == old.server.max_fields),
            ("server.max_request_body", new.server.max_request_body == old.server.max_request_body),
            ("server.max_streams", new.server.max_streams == old.server.max_streams),
            ("server.header_timeout", new.server.header_timeout == old.server.header_timeout),
            ("server.idle_timeout", new.server.idle_timeout == old.server.idle_timeout),
            ("server.write_timeout", new.server.write_timeout == old.server.write_timeout),
            ("server.handshake_timeout", new.server.handshake_timeout == old.server.handshake_timeout),
            ("server.drain_timeout", new.server.drain_timeout == old.server.drain_timeout),
            ("ops.listen", new.ops.listen == old.ops.listen),
            ("log.level", new.log.level == old.log.level),
            ("log.format", new.log.format == old.log.format),
            ("limits.tracked_callers", new.callers.tracked == old.callers.tracked),
            ("cache.capacity", new.cache.capacity == old.cache.capacity),
            ("cache.seen", new.cache.seen == old.cache.seen),
            ("cache.back_off", new.cache.back_off == old.cache.back_off),
        ];
        let changed = fixed.into_iter().filter(|(_, same)| !same);
        let problem = "has changed, and only a restart can change it";
        changed.map(|(path, _)| Fault { path: path.to_owned(), problem: problem.to_owned() }).collect()
    }
}

/// One Kore.ai account.
#[derive(Debug)]
pub struct Account {
    pub id: Arc<str>,
    /// Base URL of `/agentassist/*`, without a trailing slash.
    pub contact_center_url: String,
    /// Base URL of `/api/public/*`, without a trailing slash.
    pub automation_url: String,
    pub bots: Bots,
    pub credentials: Vec<Arc<Credential>>,
    pub quota: Quota,
    pub unproven_sessions: UnprovenSessions,
}

/// What becomes of a transcript whose session no answer has said to be any bot's, for clients limited to some bots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnprovenSessions {
    Refuse,
    /// The upstream is trusted to hold a session to the bot in the path.
    Pass,
}

impl Account {
    /// The app to sign with, as its place in `credentials`: the most specific one that holds the
    /// scope. Without a `bot` the whole account is meant, which a bot-bound app cannot speak for.
    pub fn credential(&self, scope: Scope, bot: Option<&str>) -> Option<usize> {
        let place = |fits: &dyn Fn(&Bots) -> bool| {
            self.credentials.iter().position(|app| app.scopes.contains(&scope) && fits(&app.bots))
        };
        let named = |bots: &Bots| bot.is_some_and(|bot| *bots != Bots::Any && bots.include(bot));
        place(&named).or_else(|| place(&|bots| *bots == Bots::Any))
    }
}

/// One app of an account.
#[derive(Debug)]
pub struct Credential {
    pub client_id: String,
    /// Never printed: `SecretString` has no other `Debug`.
    pub client_secret: SecretString,
    /// Where the secret can be read again.
    pub secret_file: Option<PathBuf>,
    pub scopes: Vec<Scope>,
    pub bots: Bots,
    pub lifetime: Duration,
    pub jti: bool,
    pub claims: Claims,
}

/// Who a token says it is from, about and for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claims {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
}

/// What the upstream allows: each pool has several rolling windows, all of which hold.
#[derive(Clone, Debug)]
pub struct Quota {
    pub account: Vec<Rate>,
    pub bot: Vec<Rate>,
}
