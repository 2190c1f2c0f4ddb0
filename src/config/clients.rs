//! The callers, and by which credential each is known.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::client::{Client, Others};
use super::secret::Digest;
use super::section::Section;
use super::setting::Setting;
use crate::clock::UnixMillis;

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
    pub(super) fn read_all(root: &mut Section<'_>, others: &Others<'_>) -> Self {
        let mut clients = Self { all: Vec::new(), keys: HashMap::default(), have_origins: false };
        let mut names = HashSet::new();
        let sections = root.sections("clients");
        if sections.is_empty() {
            let problem = "is missing; `kore-gateway key NAME` makes a key and its [[clients]]";
            root.report_missing("clients", &[], problem);
        }
        for (number, mut section) in sections.into_iter().enumerate() {
            let has_oidc = section.has("oidc");
            let client = Arc::new(Client::read(&mut section, number, others));
            if !names.insert(client.name.clone()) {
                section.report("name", "is the name of an earlier client too");
            }
            clients.read_keys(&mut section, &client, has_oidc);
            clients.check_issuer(&section, &client);
            clients.have_origins |= !client.origins.is_empty();
            clients.all.push(client);
            section.close();
        }
        clients
    }

    fn read_keys(&mut self, section: &mut Section<'_>, client: &Arc<Client>, has_oidc: bool) {
        let only: Option<Digest> = section.optional("api_key_sha256");
        let several = section.sections("api_keys");
        if only.is_none() && several.is_empty() && section.is_known("api_keys") && !has_oidc {
            let expected = Digest::EXPECTED;
            let problem = format!("is missing, and so are `api_keys` and `oidc`; it is {expected}");
            section.report_missing("api_key_sha256", &["api_keys", "oidc"], problem);
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
