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

use super::Refused;
use crate::clock::Clock;
use crate::config::{Oidc, OidcRule};
use crate::json::Object;
use crate::metrics::Metrics;

/// What an unknown `kid` costs at most: one fetch in this time. Anybody can make one up.
pub const BETWEEN_FETCHES: Duration = Duration::from_secs(30);

/// A key, and the one algorithm it is good for.
#[derive(Debug)]
pub struct Key {
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

/// By their `kid`.
pub type Keys = HashMap<String, Arc<Key>>;

/// The keys of one issuer, as they were last read.
pub struct Jwks {
    url: Arc<str>,
    config: Oidc,
    http: reqwest::Client,
    clock: Clock,
    keys: ArcSwapOption<Keys>,
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
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if rule.jwks_url.starts_with("http:") {
            // Loopback: there is nobody to trust.
            http = http.tls_certs_only([]);
        } else if let Some(pem) = &config.ca {
            http = http.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
        }
        let (fetched, failed, count) = metrics.jwks(&rule.issuer);
        let every = config.refresh;
        let jwks = Arc::new(Self {
            url: rule.jwks_url.clone(),
            config,
            http: http.build()?,
            clock: clock.clone(),
            keys: ArcSwapOption::new(previous.and_then(|previous| previous.keys.load_full())),
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

    /// The key of that name. One that is not known may be new: then the keys are fetched first,
    /// unless they just have been.
    pub async fn key(self: &Arc<Self>, kid: &str) -> Result<Arc<Key>, Refused> {
        if let Some(key) = self.known(kid) {
            return Ok(key);
        }
        // In a task of its own: a caller who hangs up takes his own wait with him and nothing else.
        let jwks = self.clone();
        let _ = tokio::spawn(async move { jwks.fetch_unless_just_done().await }).await;
        match self.known(kid) {
            Some(key) => Ok(key),
            None if self.keys.load().is_none() => Err(Refused::NoKeys),
            None => Err(Refused::Invalid),
        }
    }

    fn known(&self, kid: &str) -> Option<Arc<Key>> {
        self.keys.load().as_ref()?.get(kid).cloned()
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

    async fn fetch(&self) -> Result<Keys, String> {
        let mut response = self.http.get(&*self.url).send().await.map_err(told)?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("the answer is a {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            body.extend_from_slice(&chunk);
            if body.len() > self.config.max_size {
                return Err(format!("the answer is larger than {} bytes", self.config.max_size));
            }
        }
        parse(&body, self.config.max_keys)
    }
}

/// An error and what is behind it: that a certificate is not trusted stands at the end.
fn told(error: reqwest::Error) -> String {
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

/// The keys of a JWK Set (RFC 7517 §5) that tokens can be signed with, by their `kid`.
pub fn parse(body: &[u8], most: usize) -> Result<Keys, String> {
    let Object(Document { keys }) =
        serde_json::from_slice(body).map_err(|_| "the answer is no JWK Set".to_owned())?;
    if keys.len() > most {
        return Err(format!("there are {} keys, more than {most}", keys.len()));
    }
    let mut known: HashMap<String, Option<Arc<Key>>> = HashMap::new();
    for key in keys {
        let Some((kid, key)) = usable(key) else { continue };
        // Two keys of one name: which is meant, nobody can tell.
        known.entry(kid).and_modify(|known| *known = None).or_insert(Some(Arc::new(key)));
    }
    let known: Keys = known.into_iter().filter_map(|(kid, key)| Some((kid, key?))).collect();
    if known.is_empty() { Err("there is no key for signatures among them".to_owned()) } else { Ok(known) }
}

fn usable(key: Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let algorithm = algorithm(&jwk).filter(|_| signs && verifies)?;
    let kid = common.key_id.clone()?;
    Some((kid, Key { algorithm, key: DecodingKey::from_jwk(&jwk).ok()? }))
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
