//! An issuer's keys: fetched from the configured place only, kept through an outage, replaced when a
//! newer set has been read whole.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Semaphore;

use super::Refused;
use super::key_set::{Key, Keys, PassedOver, parse};
use crate::clock::Clock;
use crate::config::{Oidc, OidcRule};
use crate::observe::metrics::Metrics;

/// What an unknown `kid` costs at most: one fetch in this time. Anybody can make one up.
pub const BETWEEN_FETCHES: Duration = Duration::from_secs(30);
/// Requests that wait for the keys of one issuer at a time. A place in them is everybody's who makes up a
/// `kid`, so it must not be one that others need.
pub const MOST_WAITING: usize = 32;

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
                self.log_passed_over(keys.passed_over());
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
    fn log_passed_over(&self, passed_over: &[PassedOver]) {
        let logged = self.keys.load();
        let logged = logged.as_ref().map(|keys| keys.passed_over()).unwrap_or_default();
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
