//! The callers: by which credential each is known, and what it may do.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::account::Account;
use super::bots::Bots;
use super::oidc::{Oidc, OidcRule};
use super::redaction::Redaction;
use super::secret::Digest;
use super::section::Section;
use super::setting::Setting;
use super::value::{Origin, Rate};
use crate::clock::UnixMillis;
use crate::routes::{Name, ROUTES, Route};

/// The largest weight of a client: against 1 it leaves the other nothing of any real quota.
const HEAVIEST: u32 = 1000;

/// One caller, or one team, and what it may do. What is not allowed here is denied.
#[derive(Debug)]
pub struct Client {
    /// Its place in the file: what a configuration holds for each client, it holds in this order.
    pub number: usize,
    pub name: Arc<str>,
    pub accounts: Vec<Arc<str>>,
    pub bots: Bots,
    routes: [bool; ROUTES.len()],
    pub rate_limit: Rate,
    /// Of each bearer of a token apart, within the client's.
    pub subject_rate_limit: Option<Rate>,
    pub lane: Lane,
    /// At least 1.
    pub weight: u32,
    /// The pages whose scripts may read its answers, as browsers spell them in `Origin`.
    pub origins: Vec<String>,
    /// What its answers are shown without.
    pub redact: Vec<Arc<Redaction>>,
    /// It may ask for a whole account's window although it may see some bots only, and gets the rows
    /// of those.
    pub filter_rows: bool,
    /// Its `Cache-Control: no-cache` is heard.
    pub may_refresh: bool,
    /// Whose identity tokens make their bearers this client.
    pub oidc: Option<OidcRule>,
}

/// Whose misses go first when the upstream's quota is short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    Interactive,
    Background,
}

impl Client {
    pub fn may_use(&self, route: &Route) -> bool {
        self.routes[route.name as usize]
    }
}

/// The clients, found by their credentials.
pub struct Clients {
    /// In the order of the file.
    all: Vec<Arc<Client>>,
    /// By the first eight bytes of the digest: what a look-up's time can tell is at most these.
    keys: HashMap<u64, Vec<ApiKey>, foldhash::fast::RandomState>,
    have_origins: bool,
}

/// One API key of a client. It may have several, so that a new one is in use before the old one goes.
struct ApiKey {
    digest: [u8; 32],
    /// From then on it is nobody's.
    expires: Option<UnixMillis>,
    client: Arc<Client>,
}

impl Clients {
    /// The client one of whose keys has this SHA-256 and has not expired at `now`. Digests are
    /// compared in constant time.
    pub fn by_digest(&self, digest: &[u8; 32], now: UnixMillis) -> Option<&Arc<Client>> {
        let key = self.key(digest)?;
        key.expires.is_none_or(|expires| now < expires).then_some(&key.client)
    }

    /// Whether it is a client's key, valid or expired.
    pub fn has_key(&self, digest: &[u8; 32]) -> bool {
        self.key(digest).is_some()
    }

    /// Whether it has keys, and none of them is valid at `now`.
    pub(super) fn all_keys_expired(&self, client: &Client, now: UnixMillis) -> bool {
        let mut keys =
            self.keys.values().flatten().filter(|key| key.client.number == client.number).peekable();
        keys.peek().is_some() && keys.all(|key| key.expires.is_some_and(|expires| expires <= now))
    }

    fn key(&self, digest: &[u8; 32]) -> Option<&ApiKey> {
        self.keys
            .get(&prefix(digest))?
            .iter()
            .find(|key| verify_slices_are_equal(&key.digest, digest).is_ok())
    }

    /// The client at that place in the file.
    pub fn get(&self, number: usize) -> Option<&Arc<Client>> {
        self.all.get(number)
    }

    /// The client of that name.
    pub fn named(&self, name: &str) -> Option<&Arc<Client>> {
        self.all.iter().find(|client| *client.name == *name)
    }

    /// The origins of all clients.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        self.all.iter().flat_map(|client| &client.origins).map(String::as_str)
    }

    /// Whether pages may call at all.
    pub fn have_origins(&self) -> bool {
        self.have_origins
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.all.iter()
    }
}

fn prefix(digest: &[u8; 32]) -> u64 {
    digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Clients {
    pub(super) fn read_all(
        root: &mut Section<'_>,
        accounts: &[Arc<Account>],
        redactions: &[Arc<Redaction>],
        oidc: &Oidc,
    ) -> Self {
        let mut clients = Self { all: Vec::new(), keys: HashMap::default(), have_origins: false };
        let mut names = HashSet::new();
        let sections = root.sections("clients");
        if sections.is_empty() {
            root.report("clients", "is missing; `kore-gateway key NAME` makes a key and its [[clients]]");
        }
        for (number, mut section) in sections.into_iter().enumerate() {
            let client = Client::read(&mut section, accounts, redactions, oidc);
            let client = Arc::new(Client { number, ..client });
            if !names.insert(client.name.clone()) {
                section.report("name", "is the name of an earlier client too");
            }
            clients.read_keys(&mut section, &client);
            clients.check_issuer(&section, &client);
            clients.have_origins |= !client.origins.is_empty();
            clients.all.push(client);
            section.close();
        }
        clients
    }

    fn read_keys(&mut self, section: &mut Section<'_>, client: &Arc<Client>) {
        let only: Option<Digest> = section.optional("api_key_sha256");
        let several = section.sections("api_keys");
        if only.is_none() && several.is_empty() && client.oidc.is_none() {
            section.report(
                "api_key_sha256",
                format!("is missing, and so are `api_keys` and `oidc`; it is {}", Digest::EXPECTED),
            );
        }
        if let Some(digest) = only {
            self.add_key(
                section,
                "api_key_sha256",
                ApiKey { digest: digest.0, expires: None, client: client.clone() },
            );
        }
        for mut key in several {
            let digest: Digest = key.required("sha256");
            let expires = key.optional("expires");
            self.add_key(&key, "sha256", ApiKey { digest: digest.0, expires, client: client.clone() });
            key.close();
        }
    }

    /// An issuer's keys come from one place.
    fn check_issuer(&self, section: &Section<'_>, client: &Client) {
        let Some(rule) = &client.oidc else { return };
        let others = self.all.iter().filter_map(|other| Some((other, other.oidc.as_ref()?)));
        for (other, known) in others.filter(|(_, known)| known.issuer == rule.issuer) {
            if known.jwks_url != rule.jwks_url {
                let problem = format!("has another jwks_url than client {}, for the same issuer", other.name);
                return section.report("oidc", problem);
            }
            // Whoever is this client would be the other one first.
            let is_hidden = known.audience == rule.audience
                && (known.groups.is_empty()
                    || known.groups_claim == rule.groups_claim && known.groups == rule.groups);
            if is_hidden {
                let problem = format!("is met by nobody: whoever meets it is client {} already", other.name);
                return section.report("oidc", problem);
            }
        }
    }

    fn add_key(&mut self, section: &Section<'_>, name: &str, key: ApiKey) {
        // All zeros stand for what was at fault and has been reported.
        if key.digest == [0; 32] {
            return;
        }
        if let Some(other) = self.key(&key.digest) {
            section.report(name, format!("is the key of client {} too", other.client.name));
        }
        self.keys.entry(prefix(&key.digest)).or_default().push(key);
    }
}

impl Client {
    fn read(
        section: &mut Section<'_>,
        accounts: &[Arc<Account>],
        redactions: &[Arc<Redaction>],
        oidc: &Oidc,
    ) -> Self {
        let name: String = section.required("name");
        let permitted: Vec<String> = section.required("accounts");
        if permitted.is_empty() {
            section.report("accounts", "is empty; a client sees what it is given, so name the accounts");
        }
        for id in &permitted {
            if !accounts.iter().any(|account| *account.id == **id) {
                section.report("accounts", format!("{id:?} is no account of this file"));
            }
        }
        let bots = Bots::read(section);
        if let Bots::These(list) = &bots {
            let theirs = |bot: &str| {
                accounts.iter().any(|account| {
                    permitted.iter().any(|id| **id == *account.id) && account.bots.include(bot)
                })
            };
            for bot in list.iter().filter(|bot| !theirs(bot)) {
                section.report("bots", format!("{bot:?} belongs to none of this client's accounts"));
            }
        }
        let named: Vec<Name> = section.required("routes");
        if named.is_empty() {
            section.report("routes", format!("is empty; it is a list of {}", Name::EXPECTED));
        }
        for route in named.iter().map(|name| Route::named(*name)) {
            let serves = |account: &&Arc<Account>| {
                let mut apps = account.credentials.iter();
                permitted.iter().any(|id| **id == *account.id)
                    && apps.any(|app| app.scopes.contains(&route.scope))
            };
            if !permitted.is_empty() && !accounts.iter().any(|account| serves(&account)) {
                let (name, scope) = (route.name.as_str(), route.scope.as_str());
                section.report(
                    "routes",
                    format!("{name:?} needs the scope {scope:?}, which no credential of its accounts has"),
                );
            }
        }
        let routes = ROUTES.each_ref().map(|route| named.contains(&route.name));
        let lanes = [("interactive", Lane::Interactive), ("background", Lane::Background)];
        let mut redact = Vec::new();
        for name in section.or::<Vec<String>>("redact", Vec::new()) {
            match redactions.iter().find(|redaction| *redaction.name == *name) {
                Some(redaction) => redact.push(redaction.clone()),
                None => section.report(
                    "redact",
                    format!("{name:?} is no profile of this file; write [redaction.{name}]"),
                ),
            }
        }
        let filter_rows = section.or("filter_rows", false);
        if filter_rows && bots == Bots::Any {
            section.report(
                "filter_rows",
                "is true, but this client may see all bots: there is nothing to filter",
            );
        }
        let client = Self {
            number: 0,
            redact,
            filter_rows,
            may_refresh: section.or("may_refresh", false),
            oidc: section.optional_section("oidc").map(|section| OidcRule::read(section, oidc)),
            name: name.into(),
            accounts: permitted.into_iter().map(Arc::from).collect(),
            bots,
            routes,
            rate_limit: section.or("rate_limit", Rate { amount: 600, window: Duration::from_secs(60) }),
            subject_rate_limit: section.optional("subject_rate_limit"),
            weight: u32::try_from(section.or::<u64>("weight", 1)).unwrap_or(u32::MAX),
            lane: section.one_of("lane", &lanes, Some(Lane::Interactive)),
            origins: section
                .or::<Vec<Origin>>("origins", Vec::new())
                .into_iter()
                .map(|origin| origin.0)
                .collect(),
        };
        if client.weight > HEAVIEST {
            section.report("weight", format!("is more than {HEAVIEST}"));
        }
        if client.subject_rate_limit.is_some() && client.oidc.is_none() {
            section.report("subject_rate_limit", "is there, but without `oidc` this client has no subjects");
        }
        client
    }
}

impl Setting for Name {
    const EXPECTED: &'static str = r#""conversation", "interaction_details" or "conversation_details""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let named = |text: &str| ROUTES.iter().map(|route| route.name).find(|name| name.as_str() == text);
        value.as_str().and_then(named).ok_or_else(|| format!("is no route; it is {}", Self::EXPECTED))
    }

    fn placeholder() -> Self {
        Self::Conversation
    }
}
