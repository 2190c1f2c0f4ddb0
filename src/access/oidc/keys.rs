//! An issuer's keys: fetched from the configured place only, kept through an outage, replaced when a
//! newer set has been read whole.
//!
//! What is no key for signatures of ours (a secret, another curve, a key for encryption) is passed
//! over: an issuer may publish more than its tokens are signed with.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::Refused;
use crate::clock::Clock;
use crate::config::{Oidc, OidcRule};
use crate::json::Object;
use crate::observe::metrics::Metrics;

/// What an unknown `kid` costs at most: one fetch in this time. Anybody can make one up.
pub const BETWEEN_FETCHES: Duration = Duration::from_secs(30);
/// Requests that wait for the keys of one issuer at a time. A place in them is everybody's who makes up a
/// `kid`, so it must not be one that others need.
pub const MOST_WAITING: usize = 32;

/// A key, and the one algorithm it is good for.
#[derive(Debug)]
pub struct Key {
    pub algorithm: Algorithm,
    pub key: DecodingKey,
    /// What it is made of.
    material: AlgorithmParameters,
}

/// The keys of a set that are good for signatures.
#[derive(Debug, Default)]
pub struct Keys {
    named: HashMap<String, Arc<Key>>,
    nameless: Vec<Arc<Key>>,
    passed_over: Vec<PassedOver>,
}

/// A key of a set that is not used, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassedOver {
    /// As it is published, or its number in the set.
    pub name: String,
    pub why: &'static str,
    /// Whether somebody has to look after it.
    pub is_fault: bool,
}

impl Keys {
    /// The key of that `kid`.
    pub fn named(&self, kid: &str) -> Option<Arc<Key>> {
        self.named.get(kid).cloned()
    }

    /// The key of a set that has one only: then a token need not name it.
    pub fn only(&self) -> Option<Arc<Key>> {
        if self.len() == 1 { self.all().next().cloned() } else { None }
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.named.values().chain(&self.nameless)
    }

    pub fn len(&self) -> usize {
        self.named.len() + self.nameless.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn passed_over(&self) -> &[PassedOver] {
        &self.passed_over
    }
}

/// The keys of one issuer, as they were last read.
pub struct Jwks {
    url: Arc<str>,
    config: Oidc,
    http: reqwest::Client,
    clock: Clock,
    keys: ArcSwapOption<Keys>,
    waiting: Arc<Semaphore>,
    /// Locked while a fetch is under way: whoever needs it waits for it.
    last_fetch: tokio::sync::Mutex<Option<Fetch>>,
    fetched: Counter,
    failed: Counter,
    count: Gauge,
}

/// A fetch that has been made.
#[derive(Clone, Copy)]
struct Fetch {
    /// When it began, on the process's own clock.
    began: Duration,
    failed: bool,
}

impl Key {
    /// Whether the two are one.
    fn is(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.material == other.material
    }

    /// The algorithm's name in a token's header.
    pub fn name(&self) -> &'static str {
        match self.algorithm {
            Algorithm::RS256 => "RS256",
            Algorithm::RS384 => "RS384",
            Algorithm::RS512 => "RS512",
            Algorithm::PS256 => "PS256",
            Algorithm::PS384 => "PS384",
            Algorithm::PS512 => "PS512",
            Algorithm::ES256 => "ES256",
            Algorithm::ES384 => "ES384",
            Algorithm::EdDSA => "EdDSA",
            // Secrets: no key here ever has one of these.
            _ => "",
        }
    }
}

impl Jwks {
    /// Fetches the keys now and every `refresh`, as long as somebody holds them. Until the first
    /// fetch has worked, those of `previous` are good, which were fetched from the same place.
    pub fn start(
        rule: &OidcRule,
        config: Oidc,
        clock: Clock,
        metrics: &Metrics,
        previous: Option<&Self>,
    ) -> Result<Arc<Self>, reqwest::Error> {
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("kore-gateway/", env!("CARGO_PKG_VERSION")))
            .timeout(config.timeout)
            // Only the configured place says which keys are good.
            // Each fetch discovers again where the issuer is.
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if rule.jwks_url.starts_with("http:") {
            // Loopback: there is nobody to trust.
            http = http.tls_certs_only([]);
        } else if let Some(pem) = &config.ca {
            http = http.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
        }
        let (fetched, failed, count) = metrics.access.jwks(&rule.issuer);
        let every = config.refresh;
        let jwks = Arc::new(Self {
            url: rule.jwks_url.clone(),
            config,
            http: http.build()?,
            clock: clock.clone(),
            keys: ArcSwapOption::new(previous.and_then(|previous| previous.keys.load_full())),
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
            last_fetch: tokio::sync::Mutex::default(),
            fetched,
            failed,
            count,
        });
        let weak = Arc::downgrade(&jwks);
        tokio::spawn(refresh(weak, clock, every));
        Ok(jwks)
    }

    /// Whether they come from `url`.
    pub fn is_from(&self, url: &str) -> bool {
        *self.url == *url
    }

    /// Whether a configuration would fetch them in the same way.
    pub fn is_fetched_by(&self, config: &Oidc) -> bool {
        self.config == *config
    }

    /// The key that `find` finds among them. One that is not there may be new: then the keys are fetched
    /// first, unless they just have been. At most [`MOST_WAITING`] wait for that.
    pub async fn key(
        self: &Arc<Self>,
        find: impl Fn(&Keys) -> Option<Arc<Key>>,
    ) -> Result<Option<Arc<Key>>, Refused> {
        if let Some(key) = self.known(&find) {
            return Ok(Some(key));
        }
        let Ok(waiting) = self.waiting.clone().try_acquire_owned() else { return Err(Refused::Crowded) };
        // In a task of its own: a caller who hangs up takes his own wait with him and nothing else. The task keeps its
        // place, so that those who come and leave do not pile up.
        let jwks = self.clone();
        let fetch = async move {
            jwks.fetch_unless_just_done().await;
            drop(waiting);
        };
        let _ = tokio::spawn(fetch).await;
        match self.known(find) {
            None if self.keys.load().is_none() => Err(Refused::NoKeys),
            found => Ok(found),
        }
    }

    /// The same among those that are at hand.
    pub fn known(&self, find: impl Fn(&Keys) -> Option<Arc<Key>>) -> Option<Arc<Key>> {
        find(self.keys.load().as_deref()?)
    }

    /// Fetches, at most once in [`BETWEEN_FETCHES`]; says whether the last fetch worked.
    async fn fetch_unless_just_done(&self) -> bool {
        let mut last_fetch = self.last_fetch.lock().await;
        let now = self.clock.uptime();
        if let Some(last) = *last_fetch
            && now.saturating_sub(last.began) < BETWEEN_FETCHES
        {
            return !last.failed;
        }
        let fetched = self.fetch().await;
        *last_fetch = Some(Fetch { began: now, failed: fetched.is_err() });
        match fetched {
            Ok(keys) => {
                self.fetched.inc();
                self.count.set(i64::try_from(keys.len()).unwrap_or(i64::MAX));
                self.tell_of(&keys.passed_over);
                self.keys.store(Some(Arc::new(keys)));
                true
            }
            Err(error) => {
                self.failed.inc();
                tracing::warn!(
                    url = &*self.url,
                    error,
                    "the keys of an issuer were not fetched; the last ones stay"
                );
                false
            }
        }
    }

    /// Says which keys are not used, once: as long as they are the same, it is no news.
    fn tell_of(&self, passed_over: &[PassedOver]) {
        let logged = self.keys.load();
        let logged = logged.as_ref().map(|keys| &*keys.passed_over).unwrap_or_default();
        for key in passed_over.iter().filter(|key| !logged.contains(key)) {
            let (url, name, why) = (&*self.url, &*key.name, key.why);
            if key.is_fault {
                tracing::warn!(url, key = name, why, "a key of an issuer is not used; its others are");
            } else {
                tracing::info!(url, key = name, why, "a key of an issuer is not used; its others are");
            }
        }
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let mut response = self.http.get(&*self.url).send().await.map_err(described)?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("the answer is a {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(described)? {
            body.extend_from_slice(&chunk);
            if body.len() > self.config.max_size {
                return Err(format!("the answer is larger than {} bytes", self.config.max_size));
            }
        }
        parse(&body, self.config.max_keys)
    }
}

/// An error and what is behind it: that a certificate is not trusted stands at the end.
fn described(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Keeps keys fresh in the background; sooner again where the last fetch failed, whoever made it.
async fn refresh(jwks: Weak<Jwks>, clock: Clock, every: Duration) {
    loop {
        let Some(strong) = jwks.upgrade() else { return };
        let has_worked = strong.fetch_unless_just_done().await;
        let wait = if has_worked { every } else { every.min(BETWEEN_FETCHES) };
        drop(strong);
        clock.sleep(wait).await;
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// The keys of a JWK Set (RFC 7517 §5) that tokens can be signed with. A key that is none of them costs
/// itself and no other.
pub fn parse(body: &[u8], most: usize) -> Result<Keys, String> {
    let Object(Document { keys: published }) =
        serde_json::from_slice(body).map_err(|_| "the answer is no JWK Set".to_owned())?;
    if published.len() > most {
        return Err(format!("there are {} keys, more than {most}", published.len()));
    }
    let mut keys = Keys::default();
    let mut ambiguous = Vec::new();
    for (nth, key) in published.into_iter().enumerate() {
        let name = key.get("kid").and_then(Value::as_str).map(short);
        let (kid, key) = match usable(key) {
            Ok(usable) => usable,
            Err((why, is_fault)) => {
                let name = name.unwrap_or_else(|| format!("number {nth}"));
                keys.passed_over.push(PassedOver { name, why, is_fault });
                continue;
            }
        };
        let Some(kid) = kid else {
            if !keys.nameless.iter().any(|known| known.is(&key)) {
                keys.nameless.push(Arc::new(key));
            }
            continue;
        };
        match keys.named.get(&kid) {
            // Published twice, it is one key all the same.
            Some(known) if known.is(&key) => {}
            // Two keys of one name: which one is meant cannot be known.
            Some(_) => ambiguous.push(kid),
            None => drop(keys.named.insert(kid, Arc::new(key))),
        }
    }
    ambiguous.sort();
    ambiguous.dedup();
    for kid in ambiguous {
        keys.named.remove(&kid);
        let why = "several keys have this `kid`";
        keys.passed_over.push(PassedOver { name: short(&kid), why, is_fault: true });
    }
    if keys.is_empty() { Err(no_key(&keys.passed_over)) } else { Ok(keys) }
}

/// A name that somebody else has made up, for the log.
fn short(kid: &str) -> String {
    const SHOWN: usize = 64;
    kid.chars().take(SHOWN).collect()
}

fn no_key(passed_over: &[PassedOver]) -> String {
    let each: Vec<_> = passed_over.iter().map(|key| format!("{:?}: {}", key.name, key.why)).collect();
    format!("there is no key for signatures among them ({})", each.join("; "))
}

/// A key for signatures of ours and its `kid`; or why it is none, and whether that is a fault.
fn usable(key: Value) -> Result<(Option<String>, Key), (&'static str, bool)> {
    let jwk: Jwk =
        serde_json::from_value(key).map_err(|_| ("it cannot be read, or is of no type known here", true))?;
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    if !(signs && verifies) {
        return Err(("it is not for signatures", false));
    }
    let algorithm = algorithm(&jwk).ok_or(("its type, curve or `alg` is not used here", false))?;
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| ("its parameters cannot be read", true))?;
    Ok((jwk.common.key_id, Key { algorithm, key, material: jwk.algorithm }))
}

/// The one algorithm a key is for: what it says, if that fits its type, else its type's usual one.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    use KeyAlgorithm as Says;
    let says = jwk.common.key_algorithm;
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => match says {
            None | Some(Says::RS256) => Some(Algorithm::RS256),
            Some(Says::RS384) => Some(Algorithm::RS384),
            Some(Says::RS512) => Some(Algorithm::RS512),
            Some(Says::PS256) => Some(Algorithm::PS256),
            Some(Says::PS384) => Some(Algorithm::PS384),
            Some(Says::PS512) => Some(Algorithm::PS512),
            Some(_) => None,
        },
        AlgorithmParameters::EllipticCurve(key) => match (&key.curve, says) {
            (EllipticCurve::P256, None | Some(Says::ES256)) => Some(Algorithm::ES256),
            (EllipticCurve::P384, None | Some(Says::ES384)) => Some(Algorithm::ES384),
            _ => None,
        },
        AlgorithmParameters::OctetKeyPair(key) => match (&key.curve, says) {
            (EllipticCurve::Ed25519, None | Some(Says::EdDSA)) => Some(Algorithm::EdDSA),
            _ => None,
        },
        // A secret in a public document is nobody's signature.
        _ => None,
    }
}

#[cfg(test)]
mod tests;
