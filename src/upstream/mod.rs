//! Calls to the upstream: quota, then token, then the exchange, then what its outcome means.

mod breaker;
mod quota;
mod request;
mod token;

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Error, Kind};
use crate::metrics::{AttemptResult, Metrics};
use crate::routes::{Base, Query};

use breaker::Breaker;
use quota::{Exhausted, Pool};
pub use token::random_id;
use token::{Minter, Token};

/// After a refusal that names no time. Clients of the vendor's other APIs wait as long.
const QUOTA_REFUSED_FOR: Duration = Duration::from_secs(60);

/// The vendor's words for a used-up quota, whatever the status they come under.
const QUOTA_MESSAGES: [&str; 3] = [
    "exceeded the per-minute rate limit",
    "exceeded the hourly rate limit",
    "Rate limit for this API has been reached",
];

/// A refusal is a short envelope; longer bodies are not searched for the vendor's words.
const LONGEST_REFUSAL: usize = 4096;

/// Bots whose quota is counted at a time. Callers can make up bots only where an account has
/// `bots = ["*"]`.
const MOST_BOT_POOLS: u64 = 10_000;

/// The way to the upstream. Knows the token, the quota and the breaker of every account.
pub struct Upstream {
    http: reqwest::Client,
    accounts: HashMap<Arc<str>, State>,
    breakers: HashMap<String, Breaker>,
    timeout: Duration,
    max_body: usize,
    max_waiting: usize,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// What lives with one account.
struct State {
    /// In the order of `Account::credentials`.
    minters: Vec<Minter>,
    pool: Pool,
    bot_pools: moka::sync::Cache<String, Arc<Pool>>,
}

/// What one exchange came to.
enum Outcome {
    Answered(Answer),
    /// The token was refused, or the scope, or the bot: one status stands for all.
    TokenRefused(StatusCode),
    QuotaRefused(Duration),
}

impl Upstream {
    /// Fails where the machine has no certificates to trust and an upstream is https.
    pub fn new(config: &Config, clock: &Clock, metrics: &Arc<Metrics>) -> Result<Self, reqwest::Error> {
        let accounts = config.accounts.iter().map(|account| {
            let minters = account.credentials.iter();
            let minters =
                minters.map(|credential| Minter::new(credential.clone(), clock.clone(), metrics)).collect();
            let pool = Pool::new(&account.quota.account, config.upstream.max_waiting, clock.clone());
            let bot_pools = moka::sync::Cache::new(MOST_BOT_POOLS);
            (account.id.clone(), State { minters, pool, bot_pools })
        });
        let bases = config
            .accounts
            .iter()
            .flat_map(|account| [account.contact_center_url.clone(), account.automation_url.clone()]);
        let breakers: HashMap<String, Breaker> = bases
            .map(|base| {
                let state = metrics.breaker(&base);
                (base, Breaker::new(config.upstream.breaker, clock.clone(), state))
            })
            .collect();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("kore-gateway/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.upstream.connect_timeout)
            // A redirect would carry the token to wherever it points.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy();
        if breakers.keys().all(|base| base.starts_with("http:")) {
            // Nobody to trust: a machine without certificates will do.
            http = http.tls_certs_only([]);
        }
        Ok(Self {
            http: http.build()?,
            accounts: accounts.collect(),
            breakers,
            timeout: config.upstream.timeout,
            max_body: config.upstream.max_body,
            max_waiting: config.upstream.max_waiting,
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
    }

    /// The answer to `query`, within the configured time, waiting for quota included. Of two tries
    /// the second is for a token that the upstream did not take.
    pub async fn call(&self, query: &Query) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.timeout;
        let (state, minter) = self.credentials(query)?;
        let mut token = None;
        for _ in 0..2 {
            let pool = self.pool(query, state);
            self.reserve(&pool, deadline).await?;
            let fresh = minter.token()?;
            let outcome = self.attempt(query, &fresh, deadline).await?;
            match outcome {
                Outcome::Answered(answer) => return Ok(answer),
                Outcome::QuotaRefused(wait) => {
                    pool.close_for(wait);
                    return Err(Error::new(
                        Kind::TemporaryReducedCapacity,
                        "the upstream's quota is used up",
                    )
                    .retry_after(wait));
                }
                Outcome::TokenRefused(status) => {
                    minter.give_up(&fresh);
                    token = Some(status);
                }
            }
        }
        let status = token.map_or(0, |status| status.as_u16());
        Err(Error::new(
            Kind::UpstreamRefused,
            format!(
                "the upstream answered {status} to a fresh token of credential {}: its secret, its scope or its \
                 bots are not right",
                minter.name()
            ),
        ))
    }

    fn credentials(&self, query: &Query) -> Result<(&State, &Minter), Error> {
        let state = self.accounts.get(&query.account.id);
        let minter = state.and_then(|state| {
            let index = query.account.credential(query.route.scope, query.bot.as_deref())?;
            Some((state, state.minters.get(index)?))
        });
        minter.ok_or_else(|| Error::new(Kind::Internal, "no credential serves this route"))
    }

    /// The pool that counts a query: the account's, or its bot's.
    fn pool<'a>(&self, query: &Query, state: &'a State) -> PoolRef<'a> {
        match (query.route.base, &query.bot) {
            (Base::Automation, Some(bot)) => {
                let rates = &query.account.quota.bot;
                PoolRef::Bot(state.bot_pools.get_with(bot.to_string(), || {
                    Arc::new(Pool::new(rates, self.max_waiting, self.clock.clone()))
                }))
            }
            _ => PoolRef::Account(&state.pool),
        }
    }

    async fn reserve(&self, pool: &Pool, deadline: Instant) -> Result<(), Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let started = Instant::now();
        let reserved = pool.reserve(self.clock.uptime() + left);
        let outcome = tokio::time::timeout_at(deadline, reserved).await;
        self.metrics.quota_wait.observe(started.elapsed().as_secs_f64());
        let wait = match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Exhausted(wait))) => wait,
            Err(_) => QUOTA_REFUSED_FOR,
        };
        Err(Error::new(Kind::TemporaryReducedCapacity, "the upstream's quota is used up").retry_after(wait))
    }

    /// One exchange, seen through the breaker of its base URL.
    async fn attempt(&self, query: &Query, token: &Token, deadline: Instant) -> Result<Outcome, Error> {
        let breaker = self.breakers.get(request::base(query));
        let permit = match breaker.map(Breaker::permit) {
            Some(Err(wait)) => {
                return Err(Error::new(
                    Kind::TemporaryReducedCapacity,
                    "the upstream has failed several times in a row and is left alone for a moment",
                )
                .retry_after(wait)
                .proxy_status("destination_unavailable"));
            }
            Some(Ok(permit)) => Some(permit),
            None => None,
        };
        let started = Instant::now();
        let outcome = match tokio::time::timeout_at(deadline, self.exchange(query, token)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(Kind::UpstreamTimeout, "the upstream did not answer in time")
                .proxy_status("http_response_timeout")),
        };
        let (status, result, failed) = match &outcome {
            Ok(Outcome::Answered(answer)) => {
                (answer.status.as_u16(), AttemptResult::Answered, answer.status.is_server_error())
            }
            Ok(Outcome::TokenRefused(status)) => (status.as_u16(), AttemptResult::TokenRefused, false),
            Ok(Outcome::QuotaRefused(_)) => (429, AttemptResult::QuotaRefused, false),
            Err(_) => (0, AttemptResult::Failed, true),
        };
        if let Some(permit) = permit {
            permit.report(!failed);
        }
        self.metrics.upstream_attempt(query.route, status, result, started.elapsed());
        outcome
    }

    async fn exchange(&self, query: &Query, token: &Token) -> Result<Outcome, Error> {
        let mut request = self
            .http
            .request(query.route.method.clone(), request::url(query))
            .headers(request::headers(query, token.header.clone()));
        let body = query.key.parts().body;
        if !body.is_empty() {
            request = request.body(body.to_owned());
        }
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        if status.is_redirection() {
            return Err(Error::new(
                Kind::UpstreamInvalid,
                "the upstream answered with a redirect, which is not followed",
            ));
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Ok(Outcome::TokenRefused(status));
        }
        let body = self.body(&mut response).await?;
        if status == StatusCode::TOO_MANY_REQUESTS || tells_of_quota(&body) {
            return Ok(Outcome::QuotaRefused(retry_after(&headers).unwrap_or(QUOTA_REFUSED_FOR)));
        }
        let content_type = headers.get(header::CONTENT_TYPE).cloned();
        Ok(Outcome::Answered(Answer { status, content_type, body }))
    }

    /// The whole decoded body, as far as the cap allows.
    async fn body(&self, response: &mut reqwest::Response) -> Result<Bytes, Error> {
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > self.max_body {
                return Err(Error::new(
                    Kind::UpstreamInvalid,
                    format!("the upstream's answer is larger than {} bytes", self.max_body),
                )
                .proxy_status("http_response_body_size"));
            }
            body.extend_from_slice(&chunk);
        }
        // Exactly as large as it is: what grew by doubling would cost the store up to twice.
        Ok(Bytes::from(body.as_ref().to_vec()))
    }

    /// Sets the gauges that are read rather than counted.
    pub fn observe(&self) {
        for (account, state) in &self.accounts {
            self.metrics.quota_available(account, "account", state.pool.available());
            // Bots are many: the pool that is nearest to its end speaks for all.
            if let Some(least) = state.bot_pools.iter().map(|(_, pool)| pool.available()).min() {
                self.metrics.quota_available(account, "bot", least);
            }
        }
    }
}

enum PoolRef<'a> {
    Account(&'a Pool),
    Bot(Arc<Pool>),
}

impl std::ops::Deref for PoolRef<'_> {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        match self {
            Self::Account(pool) => pool,
            Self::Bot(pool) => pool,
        }
    }
}

/// Whether a body is one of the vendor's refusals, whatever its status.
fn tells_of_quota(body: &[u8]) -> bool {
    body.len() <= LONGEST_REFUSAL
        && std::str::from_utf8(body).is_ok_and(|text| {
            text.contains("\"errors\"") && QUOTA_MESSAGES.iter().any(|message| text.contains(message))
        })
}

/// `Retry-After` in seconds. The date form is not read: the vendor documents neither.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// An exchange that broke. The URL is taken out of the cause: its query may name anything.
fn broken(error: reqwest::Error) -> Error {
    let error = error.without_url();
    let (kind, detail, proxy_status) = if error.is_connect() && error.is_timeout() {
        (Kind::UpstreamTimeout, "connecting to the upstream took too long", "connection_timeout")
    } else if error.is_timeout() {
        (Kind::UpstreamTimeout, "the upstream did not answer in time", "http_response_timeout")
    } else if error.is_connect() {
        (Kind::UpstreamUnreachable, "the upstream cannot be reached", connect_failure(&error))
    } else if error.is_decode() {
        (Kind::UpstreamInvalid, "the upstream's answer cannot be decoded", "http_protocol_error")
    } else {
        (Kind::UpstreamInvalid, "the upstream broke off its answer", "http_response_incomplete")
    };
    Error::new(kind, detail).proxy_status(proxy_status).caused_by(error)
}

/// Which of RFC 9209's error types a failed connect is.
fn connect_failure(error: &reqwest::Error) -> &'static str {
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if text.contains("certificate") {
            return "tls_certificate_error";
        }
        if text.contains("dns error") {
            return "dns_error";
        }
        cause = error.source();
    }
    "connection_refused"
}
