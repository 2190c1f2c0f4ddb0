//! The upstream's token: signed here, kept for most of its life, never printed.
//!
//! HS256 over the app's client secret, with the client id as `appId` (vendor: "JWT Authorization")
//! unless the credential says otherwise.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use memchr::memmem::Finder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::secrets::{Secrets, Use};
use crate::clock::{Clock, UnixMillis};
use crate::config::{self, Credential};
use crate::error::{Error, Kind};
use crate::observe::metrics::Metrics;

/// `iat` is this far in the past, so that an upstream whose clock is a little behind does not see a token from the
/// future. A larger difference is learnt from the upstream's `Date`.
const BACKDATED: Duration = Duration::from_secs(30);

/// A smaller difference between the clocks needs no new token: `Date` is in whole seconds, and is as old as the answer
/// took to arrive.
const SKEW_WORTH_LEARNING_SECONDS: i64 = 5;

/// For this time after an accepted token, a refusal is not the credential's fault.
const ACCEPTED_LATELY: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Claims<'a> {
    #[serde(flatten)]
    who: &'a config::Claims,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

/// A token, as the header value that is sent. The value is marked sensitive, so its `Debug` does not show it.
#[derive(Clone)]
pub struct Token {
    pub header: HeaderValue,
    /// Finds the signature in an answer. Made once, because making it costs more than a search.
    pub signature: Option<Arc<Finder<'static>>>,
    /// The epoch of the [`Secrets`] in which it was signed.
    epoch: u64,
}

struct Current {
    token: Token,
    renew_at: UnixMillis,
}

struct State {
    secrets: Secrets,
    /// The last token, of this epoch or of an older one.
    last: Option<Current>,
    /// By how much the upstream's clock is ahead of ours.
    skew_seconds: i64,
    /// When the upstream last accepted a token.
    accepted_at: Option<UnixMillis>,
    /// Whether the log says that the upstream refuses this credential.
    is_logged: bool,
    /// What was wrong with the secret's file at the last read. Empty: nothing.
    problem: String,
}

/// Mints the tokens of one credential.
pub struct Minter {
    credential: Arc<Credential>,
    state: Mutex<State>,
    /// Held from the read of the secret's file until its result is used, so that results are used in their order.
    reading: tokio::sync::Mutex<()>,
    clock: Clock,
    minted: Counter,
    expiry: Gauge,
}

impl Minter {
    pub fn new(credential: Arc<Credential>, clock: Clock, metrics: &Metrics) -> Self {
        let (minted, expiry) = metrics.upstream.credential(&credential.client_id);
        let state = Mutex::new(State {
            secrets: Secrets::new(credential.client_secret.clone()),
            last: None,
            skew_seconds: 0,
            accepted_at: None,
            is_logged: false,
            problem: String::new(),
        });
        Self { credential, state, reading: tokio::sync::Mutex::default(), clock, minted, expiry }
    }

    /// Takes over what the minter of an earlier configuration has learnt about the same credential: the upstream's
    /// clock, and the secret it accepted last, which may differ from the file's.
    pub fn follow(&self, previous: &Self) {
        let (secrets, skew, is_logged, accepted_at) = {
            let known = previous.state();
            (known.secrets.clone(), known.skew_seconds, known.is_logged, known.accepted_at)
        };
        let mut state = self.state();
        let configured = std::mem::replace(&mut state.secrets, secrets).signing().clone();
        state.secrets.found(configured);
        state.skew_seconds = skew;
        (state.is_logged, state.accepted_at) = (is_logged, accepted_at);
    }

    /// The client id: the name of the credential in errors and metrics.
    pub fn name(&self) -> &str {
        &self.credential.client_id
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token to send now: the current one, or a new one after four fifths of its lifetime. An app that enforces JTI
    /// gets a new one each time.
    pub fn token(&self) -> Result<Token, Error> {
        let mut state = self.state();
        let now = self.clock.now();
        match state.current() {
            Some(Current { token, renew_at }) if now < *renew_at && !self.credential.jti => Ok(token.clone()),
            // Signing takes a microsecond. It happens under the lock, so that one token is signed for all.
            _ => self.mint(&mut state, now),
        }
    }

    /// The upstream accepted this token.
    pub fn accepted(&self, token: &Token, usage: &Use) {
        let now = self.clock.now();
        let mut state = self.state();
        state.secrets.accepted(token.epoch, usage);
        state.accepted_at = Some(now);
        if std::mem::take(&mut state.is_logged) {
            tracing::info!(credential = self.name(), "the upstream accepts the credential again");
        }
    }

    /// The upstream refused a new token as well. Logged once, and not if it has just accepted others: then it refuses a
    /// bot or a scope, with the same status.
    pub fn is_refused(&self, status: StatusCode) {
        let now = self.clock.now();
        let mut state = self.state();
        if state.is_logged || state.accepted_at.is_some_and(|at| now < at.plus(ACCEPTED_LATELY)) {
            return;
        }
        state.is_logged = true;
        let status = status.as_u16();
        tracing::warn!(
            credential = self.name(),
            status,
            "the upstream refuses the credential: its secret, its scopes or its bots are not right"
        );
    }

    /// The upstream refused this token, at `date` by its own clock. Returns whether a call with another token is
    /// worthwhile.
    pub async fn refused(&self, token: &Token, usage: &Use, date: Option<UnixMillis>) -> bool {
        let reading = self.reading.lock().await;
        // The file is read once for all calls that were refused together.
        let is_newest = token.epoch == self.state().secrets.epoch();
        let read = if is_newest { self.read_file().await } else { None };
        let mut state = self.state();
        let is_secret_new = read.is_some_and(|secret| state.secrets.found(secret));
        drop(reading);
        let now = self.clock.now();
        let skew = date.map_or(state.skew_seconds, |date| date.seconds() - now.seconds());
        let is_skew_new = (skew - state.skew_seconds).abs() >= SKEW_WORTH_LEARNING_SECONDS;
        if is_skew_new {
            state.skew_seconds = skew;
            state.secrets.reset();
        }
        is_secret_new || is_skew_new || state.secrets.refused(token.epoch, usage, now)
    }

    /// Runs between requests: takes over a changed secret, and renews a token before it expires.
    pub async fn keep(&self) {
        let reading = self.reading.lock().await;
        let read = self.read_file().await;
        let mut state = self.state();
        if read.is_some_and(|secret| state.secrets.found(secret)) {
            tracing::info!(credential = self.name(), "the secret has changed and is taken up");
        }
        drop(reading);
        let now = self.clock.now();
        let is_due = state.current().is_some_and(|current| now >= current.renew_at);
        if is_due && !self.credential.jti && self.mint(&mut state, now).is_err() {
            tracing::error!(credential = self.name(), "a token cannot be signed");
        }
    }

    /// The secret in its file. `None` if there is no file, or nothing usable in it.
    async fn read_file(&self) -> Option<SecretString> {
        let file = self.credential.secret_file.clone()?;
        let read = tokio::task::spawn_blocking(move || config::read_text(&file)).await;
        let read = match read.map_err(io::Error::from).flatten() {
            Ok(text) => config::secret(&Zeroizing::new(text)),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        self.log_problem(read.as_ref().err().map_or("", String::as_str));
        read.ok()
    }

    /// Logs the problem with the secret's file, once for each change.
    fn log_problem(&self, problem: &str) {
        let before = std::mem::replace(&mut self.state().problem, problem.to_owned());
        match (before.as_str(), problem) {
            (before, problem) if before == problem => {}
            (_, "") => tracing::info!(credential = self.name(), "the secret's file can be used again"),
            (_, problem) => tracing::warn!(
                credential = self.name(),
                problem,
                "the secret's file cannot be used; the old one stays"
            ),
        }
    }

    fn mint(&self, state: &mut State, now: UnixMillis) -> Result<Token, Error> {
        let iat = now.seconds() + state.skew_seconds - BACKDATED.as_secs().cast_signed();
        // Counted from `iat`: an app that enforces JTI accepts no token with a lifetime of over an hour.
        let exp = iat + self.credential.lifetime.as_secs().cast_signed();
        let jti = if self.credential.jti { Some(random_id()?) } else { None };
        let claims = Claims { who: &self.credential.claims, iat, exp, jti };
        let cannot_sign = |_| Error::new(Kind::Internal, "the gateway cannot sign its token");
        let key = EncodingKey::from_secret(state.secrets.signing().expose_secret().as_bytes());
        let signed = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
            .map_err(|error| cannot_sign(()).caused_by(error))?;
        let mut header = HeaderValue::try_from(signed).map_err(|_| cannot_sign(()))?;
        header.set_sensitive(true);
        self.minted.inc();
        self.expiry.set(exp);
        let token = Token { signature: signature(&header), header, epoch: state.secrets.epoch() };
        let renew_in = (self.credential.lifetime * 4 / 5).saturating_sub(BACKDATED);
        state.last = Some(Current { token: token.clone(), renew_at: now.plus(renew_in) });
        Ok(token)
    }
}

/// The signature of a token.
fn signature(header: &HeaderValue) -> Option<Arc<Finder<'static>>> {
    let text = header.as_bytes();
    let start = memchr::memrchr(b'.', text)? + 1;
    let signature = text.get(start..).filter(|signature| !signature.is_empty())?;
    Some(Arc::new(Finder::new(signature).into_owned()))
}

impl State {
    /// The last token, if it is of the current epoch.
    fn current(&self) -> Option<&Current> {
        self.last.as_ref().filter(|last| last.token.epoch == self.secrets.epoch())
    }
}

/// 128 random bits in hexadecimal.
pub fn random_id() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Error::new(Kind::Internal, "the machine has no random numbers"))?;
    Ok(hex::encode(bytes))
}
