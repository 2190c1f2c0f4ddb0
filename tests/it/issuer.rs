//! An issuer of identity tokens on a real socket: keys of its own, a key set that tests change, and
//! a count of who fetched it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::world::NOON;

pub const AUDIENCE: &str = "agent-desk";
/// `NOON` as tokens write it.
pub const NOW: i64 = NOON / 1000;

/// A key pair, and the name it is published under.
pub struct Signer {
    pub kid: String,
    pub algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    pub fn new(kid: &str, algorithm: Algorithm) -> Self {
        let key = match algorithm {
            Algorithm::ES256 => {
                let pair =
                    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
                EncodingKey::from_ec_der(pair.unwrap().as_ref())
            }
            Algorithm::EdDSA => EncodingKey::from_ed_der(
                Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap().as_ref(),
            ),
            _ => {
                let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
                let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
                EncodingKey::from_rsa_der(pkcs1(der.as_ref()))
            }
        };
        Self { kid: kid.to_owned(), algorithm, key }
    }

    /// What is published.
    pub fn jwk(&self) -> Value {
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = self.kid.clone().into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub fn header(&self) -> Value {
        json!({ "alg": format!("{:?}", self.algorithm), "typ": "JWT", "kid": self.kid })
    }

    /// A good token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&self.header().to_string(), &claims.to_string())
    }

    /// Whatever stands in it, signed.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encoded(header), encoded(claims));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{signed}.{signature}")
    }
}

/// The RSA key within a PKCS #8 document: its one octet string.
fn pkcs1(pkcs8: &[u8]) -> &[u8] {
    let is_key = |bytes: &[u8]| bytes[..2] == [0x04, 0x82] && bytes[4..] == [0x30, 0x82];
    &pkcs8[pkcs8.windows(6).position(is_key).unwrap() + 4..]
}

pub fn encoded(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

struct State {
    published: Mutex<(StatusCode, String)>,
    fetches: AtomicUsize,
    /// Whether fetches are held.
    held: watch::Sender<bool>,
}

pub struct Issuer {
    address: SocketAddr,
    state: Arc<State>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Issuer {
    pub async fn publishing(keys: &[&Signer]) -> Self {
        let state = Arc::new(State {
            published: Mutex::new((StatusCode::OK, String::new())),
            fetches: AtomicUsize::new(0),
            held: watch::Sender::new(false),
        });
        let served = state.clone();
        let app = Router::new().fallback(move || {
            let served = served.clone();
            async move {
                served.fetches.fetch_add(1, Ordering::SeqCst);
                served.held.subscribe().wait_for(|held| !held).await.unwrap();
                let (status, body) = served.published.lock().unwrap().clone();
                (status, [(header::LOCATION, "/elsewhere")], body).into_response()
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let issuer = Self { address, state, server };
        issuer.publish(keys);
        issuer
    }

    pub fn publish(&self, keys: &[&Signer]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.answer(StatusCode::OK, json!({ "keys": keys }).to_string());
    }

    pub fn answer(&self, status: StatusCode, body: impl Into<String>) {
        *self.state.published.lock().unwrap() = (status, body.into());
    }

    pub fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::SeqCst)
    }

    /// From here on fetches wait, or wait no more.
    pub fn hold(&self, held: bool) {
        self.state.held.send_replace(held);
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The `oidc` line of a client.
    pub fn rule(&self, more: &str) -> String {
        self.rule_at(&self.url(), more)
    }

    /// The same, with the keys fetched by way of another base URL.
    pub fn rule_at(&self, base: &str, more: &str) -> String {
        let issuer = self.url();
        format!(
            "oidc = {{ issuer = \"{issuer}\", audience = \"{AUDIENCE}\", jwks_url = \"{base}/jwks\"{more} }}\n"
        )
    }

    /// What a good token says: of a user called `sub`, for the next five minutes.
    pub fn claims(&self, sub: &str) -> Value {
        json!({ "iss": self.url(), "aud": AUDIENCE, "sub": sub, "iat": NOW, "nbf": NOW, "exp": NOW + 300 })
    }
}
