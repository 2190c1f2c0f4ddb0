//! The keys of a JWK Set (RFC 7517 §5) that tokens can be signed with. Pure.
//!
//! What is no key for signatures of ours (a secret, another curve, a key for encryption) is passed
//! over: an issuer may publish more than its tokens are signed with.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use crate::json::Object;

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
