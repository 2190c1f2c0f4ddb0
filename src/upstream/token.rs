//! The upstream's token: minted here, kept for most of its life, never printed.
//!
//! HS256 over the app's client secret, with the client id as `appId` (vendor: "JWT Authorization").

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use secrecy::ExposeSecret;
use serde::Serialize;

use crate::clock::{Clock, UnixMillis};
use crate::config::Credential;
use crate::error::{Error, Kind};
use crate::metrics::Metrics;

/// `iat` lies this far back, so that an upstream whose clock is behind does not see the future.
const BACKDATED: Duration = Duration::from_secs(30);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Claims<'a> {
    app_id: &'a str,
    sub: &'a str,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

/// A token, as the header value it goes out as. The value is marked sensitive, so its `Debug` does
/// not show it.
#[derive(Clone)]
pub struct Token {
    pub header: HeaderValue,
    /// Counts the tokens of one credential: a refusal of an older one says nothing of the newest.
    pub generation: u64,
}

struct Current {
    token: Token,
    renew_at: UnixMillis,
}

/// Mints the tokens of one credential.
pub struct Minter {
    credential: Arc<Credential>,
    key: EncodingKey,
    current: Mutex<Option<Current>>,
    clock: Clock,
    minted: Counter,
    expiry: Gauge,
}

impl Minter {
    pub fn new(credential: Arc<Credential>, clock: Clock, metrics: &Metrics) -> Self {
        let key = EncodingKey::from_secret(credential.client_secret.expose_secret().as_bytes());
        let (minted, expiry) = metrics.credential(&credential.client_id);
        Self { credential, key, current: Mutex::new(None), clock, minted, expiry }
    }

    /// The client id: the name of the credential in errors and metrics.
    pub fn name(&self) -> &str {
        &self.credential.client_id
    }

    /// A token to send now: the current one, or a new one when the current one has lived for four
    /// fifths of its life. An app that enforces JTI gets a fresh one each time.
    pub fn token(&self) -> Result<Token, Error> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if let Some(Current { token, renew_at }) = &*current
            && now < *renew_at
            && !self.credential.jti
        {
            return Ok(token.clone());
        }
        // Signing takes a microsecond: under the lock, so that one token is minted, not one each.
        let generation = current.as_ref().map_or(1, |current| current.token.generation + 1);
        let token = self.mint(generation, now)?;
        let renew_at = now.plus(self.credential.lifetime * 4 / 5);
        *current = Some(Current { token: token.clone(), renew_at });
        Ok(token)
    }

    /// Gives up `refused`, if it is still the current one; whoever asks next gets a new one.
    pub fn give_up(&self, refused: &Token) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = &mut *current
            && held.token.generation == refused.generation
        {
            held.renew_at = UnixMillis(i64::MIN);
        }
    }

    fn mint(&self, generation: u64, now: UnixMillis) -> Result<Token, Error> {
        let expires = now.plus(self.credential.lifetime);
        let claims = Claims {
            app_id: &self.credential.client_id,
            sub: &self.credential.client_id,
            iat: now.seconds() - BACKDATED.as_secs().cast_signed(),
            exp: expires.seconds(),
            jti: if self.credential.jti { Some(random_id()?) } else { None },
        };
        let cannot_sign = |_| Error::new(Kind::Internal, "the gateway cannot sign its token");
        let signed = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
            .map_err(|error| cannot_sign(()).caused_by(error))?;
        let mut header = HeaderValue::try_from(signed).map_err(|_| cannot_sign(()))?;
        header.set_sensitive(true);
        self.minted.inc();
        self.expiry.set(expires.seconds());
        Ok(Token { header, generation })
    }
}

/// 128 random bits in hexadecimal.
pub fn random_id() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Error::new(Kind::Internal, "the machine has no random numbers"))?;
    Ok(hex::encode(bytes))
}
