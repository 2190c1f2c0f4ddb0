//! Identity tokens: JSON Web Tokens (RFC 7519) signed by an issuer whose keys are fetched from one
//! configured place.
//!
//! A token says which key it is signed with, by `kid`, and nothing else about how it is to be
//! checked: the algorithm is the key's, and every header that brings or points to a key (`jwk`,
//! `jku`, `x5u`, `x5c`) is not looked at. Signatures are jsonwebtoken's; what they prove is decided
//! here, with the time handed in.

mod claims;
pub mod keys;
mod members;

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::clock::{Clock, UnixMillis};
use crate::config::{Client, Clients, Config};
use crate::error::{Error, Kind};
use crate::metrics::Metrics;
pub use claims::Claims;
use keys::{Jwks, Key};
use members::Members;

/// Bytes of a token. Common ones have one to two thousand.
pub const LONGEST_TOKEN: usize = 8 * 1024;

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
        let token = Token::parse(token).ok_or(Refused::Invalid)?;
        let issuer = token.claims.text("iss").ok_or(Refused::Invalid)?;
        let jwks = self.0.get(issuer).ok_or(Refused::Invalid)?;
        let key = jwks.key(token.kid().ok_or(Refused::Invalid)?).await?;
        token.proven_by(&key).ok_or(Refused::Invalid)
    }
}

/// The client of `clients` that `claims` make their bearer at `now`: the first in the file whose
/// issuer, audience and groups they meet.
pub fn client<'a>(clients: &'a Clients, claims: &Claims, now: UnixMillis) -> Option<&'a Arc<Client>> {
    clients.iter().find(|client| client.oidc.as_ref().is_some_and(|rule| claims.meet(rule, now)))
}

/// Why a token opens nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It proves nothing: whatever is wrong with it is nobody's business but its issuer's.
    Invalid,
    /// It may be good, but the issuer's keys have never been seen.
    NoKeys,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid => Self::new(Kind::Unauthenticated, "the credential is not valid"),
            Refused::NoKeys => {
                Self::new(Kind::IdentityUnavailable, "the keys of the token's issuer cannot be fetched")
                    .retry_after(keys::BETWEEN_FETCHES)
            }
        }
    }
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
    /// `None` for what is too long, is in no compact form (RFC 7515 §7.1), names a member twice, or
    /// asks for what is not understood here.
    pub fn parse(token: &'a [u8]) -> Option<Self> {
        let token = std::str::from_utf8(token).ok().filter(|token| token.len() <= LONGEST_TOKEN)?;
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let members = |part: &str| Members::parse(&URL_SAFE_NO_PAD.decode(part).ok()?);
        let parts = Self { signed, signature, header: members(header)?, claims: members(claims)? };
        // An extension that must be understood is not (RFC 7515 §4.1.11), encryption and compression
        // neither.
        let is_plain = ["crit", "b64", "enc", "zip"].iter().all(|name| parts.header.get(name).is_none());
        let is_credential = match parts.header.get("typ") {
            None => true,
            Some(Value::String(typ)) => TYPES.contains(&typ.to_ascii_lowercase().as_str()),
            Some(_) => false,
        };
        (is_plain && is_credential).then_some(parts)
    }

    /// The key it says it is signed with.
    pub fn kid(&self) -> Option<&str> {
        self.header.text("kid")
    }

    /// What it claims, if it names the key's algorithm and is signed with the key.
    pub fn proven_by(self, key: &Key) -> Option<Claims> {
        let is_proven = self.header.text("alg") == Some(key.name()) && self.is_signed_with(key);
        is_proven.then(|| Claims::new(self.claims))
    }

    fn is_signed_with(&self, key: &Key) -> bool {
        jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), &key.key, key.algorithm)
            .unwrap_or(false)
    }
}
