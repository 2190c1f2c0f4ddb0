//! Identity tokens: JSON Web Tokens (RFC 7519) signed by an issuer whose keys are fetched from one
//! configured place.
//!
//! A token says which key it is signed with, by `kid` unless its issuer has one only (OpenID Connect
//! Core §10.1), and nothing else about how it is to be checked: the algorithm is the key's, and every header that brings or points to a key (`jwk`,
//! `jku`, `x5u`, `x5c`) is not looked at. Signatures are jsonwebtoken's; what they prove is decided
//! here, with the time handed in.

mod claims;
pub mod key_set;
pub mod keys;
mod members;
mod reason;

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::clock::{Clock, UnixMillis};
use crate::config::{Client, Clients, Config};
use crate::observe::metrics::Metrics;
pub use claims::Claims;
use key_set::{Key, Keys};
use keys::Jwks;
use members::Members;
pub use reason::{Reason, Refused};

/// `typ` of what may be used as a credential here (RFC 9068 §2.1, RFC 8725 §3.11). A logout token or
/// a proof of possession is signed with the same keys.
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// The issuers of one configuration, each with its keys.
pub struct Issuers(HashMap<Arc<str>, Arc<Jwks>>);

impl Issuers {
    /// Keeps the keys of issuers that `previous` has fetched from the same place already.
    pub fn new(
        config: &Config,
        clock: &Clock,
        metrics: &Metrics,
        previous: Option<&Self>,
    ) -> Result<Self, reqwest::Error> {
        let mut issuers: HashMap<Arc<str>, Arc<Jwks>> = HashMap::new();
        for rule in config.clients.iter().filter_map(|client| client.oidc.as_ref()) {
            if issuers.contains_key(&rule.issuer) {
                continue;
            }
            let known = previous.and_then(|previous| previous.0.get(&rule.issuer));
            let known = known.filter(|known| known.is_from(&rule.jwks_url));
            let jwks = match known {
                Some(jwks) if jwks.is_fetched_by(&config.oidc) => jwks.clone(),
                known => {
                    let known = known.map(Arc::as_ref);
                    Jwks::start(rule, config.oidc.clone(), clock.clone(), metrics, known)?
                }
            };
            issuers.insert(rule.issuer.clone(), jwks);
        }
        Ok(Self(issuers))
    }

    /// What `token` proves, if it is signed by one of these issuers. What it proves is held against
    /// the clients apart, for that can change while the token does not.
    pub async fn verify(&self, token: &[u8]) -> Result<Claims, Refused> {
        let token = Token::parse(token)?;
        let issuer = token.claims.text("iss").ok_or(Reason::Issuer)?;
        let jwks = self.0.get(issuer).ok_or(Reason::Issuer)?;
        if let Some(kid) = token.kid()? {
            let key = jwks.key(|keys| keys.named(kid)).await?.ok_or(Reason::UnknownKey)?;
            return Ok(token.proven_by(&key)?);
        }
        // Nothing else tells that the one key has been replaced.
        let is_it = |key: &Arc<Key>| token.check(key).is_ok();
        let key = jwks.key(|keys| keys.only().filter(is_it)).await?;
        let reason = if jwks.known(Keys::only).is_some() { Reason::Signature } else { Reason::KeyNotNamed };
        key.map(|_| Claims::new(token.claims)).ok_or(reason.into())
    }
}

/// The client of `clients` that `claims` make their bearer at `now`: the first in the file whose
/// issuer, audience and groups they meet. If there is none, what kept them from the one they came closest to.
pub fn client<'a>(clients: &'a Clients, claims: &Claims, now: UnixMillis) -> Result<&'a Arc<Client>, Reason> {
    let mut closest = Reason::Issuer;
    for client in clients.iter() {
        let Some(rule) = &client.oidc else { continue };
        match claims.meet(rule, now) {
            Ok(()) => return Ok(client),
            Err(reason) => closest = closest.max(reason),
        }
    }
    Err(closest)
}

/// Whether a bearer credential has the form of a token.
pub fn is_token(credential: &[u8]) -> bool {
    credential.iter().filter(|byte| **byte == b'.').count() == 2
}

/// A token in its parts, not yet checked.
pub struct Token<'a> {
    signed: &'a str,
    signature: &'a str,
    header: Members,
    claims: Members,
}

impl<'a> Token<'a> {
    /// Refuses what is in no compact form (RFC 7515 §7.1), names a member twice, or asks for what is not
    /// understood here. How long it may be, `server.max_head` says.
    pub fn parse(token: &'a [u8]) -> Result<Self, Reason> {
        let parts = Self::parts(token).ok_or(Reason::Malformed)?;
        // An extension that must be understood is not (RFC 7515 §4.1.11), encryption and compression
        // neither.
        if ["crit", "b64", "enc", "zip"].iter().any(|name| parts.header.get(name).is_some()) {
            return Err(Reason::Extension);
        }
        match parts.header.get("typ") {
            None => Ok(parts),
            Some(Value::String(typ)) if TYPES.contains(&typ.to_ascii_lowercase().as_str()) => Ok(parts),
            Some(_) => Err(Reason::Type),
        }
    }

    fn parts(token: &'a [u8]) -> Option<Self> {
        let (signed, signature) = std::str::from_utf8(token).ok()?.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let members = |part: &str| Members::parse(&URL_SAFE_NO_PAD.decode(part).ok()?);
        Some(Self { signed, signature, header: members(header)?, claims: members(claims)? })
    }

    /// The key it says it is signed with, if it says so.
    pub fn kid(&self) -> Result<Option<&str>, Reason> {
        match self.header.get("kid") {
            None => Ok(None),
            Some(Value::String(kid)) => Ok(Some(kid)),
            Some(_) => Err(Reason::UnknownKey),
        }
    }

    /// What it claims, if it names the key's algorithm and is signed with the key.
    pub fn proven_by(self, key: &Key) -> Result<Claims, Reason> {
        self.check(key)?;
        Ok(Claims::new(self.claims))
    }

    /// Whether it names the key's algorithm and is signed with the key.
    pub fn check(&self, key: &Key) -> Result<(), Reason> {
        if self.header.text("alg") != Some(key.name()) {
            return Err(Reason::Algorithm);
        }
        let is_signed =
            jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), &key.key, key.algorithm);
        if is_signed.unwrap_or(false) { Ok(()) } else { Err(Reason::Signature) }
    }
}
