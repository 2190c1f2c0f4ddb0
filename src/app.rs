//! What lives with the process, and what goes with one configuration.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::access::rate_limit::Limiter;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::{Client, Config};
use crate::metrics::Metrics;
use crate::upstream::Upstream;

/// Lives as long as the process.
pub struct App {
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub cache: Cache,
    current: ArcSwap<Snapshot>,
    draining: AtomicBool,
}

/// One configuration and what was made from it. Immutable: a request takes one when it comes in and
/// keeps it to the end.
pub struct Snapshot {
    pub config: Config,
    pub upstream: Arc<Upstream>,
    limiters: HashMap<Arc<str>, Limiter>,
}

impl App {
    /// Fails where the machine has no certificates to trust and an upstream is https.
    pub fn new(config: Config, clock: Clock) -> Result<Arc<Self>, reqwest::Error> {
        let metrics = Arc::new(Metrics::new());
        let cache = Cache::new(config.cache.capacity, config.cache.seen, clock.clone(), &metrics);
        let snapshot = Snapshot::new(config, &clock, &metrics)?;
        metrics.config_loaded(true);
        Ok(Arc::new(Self {
            clock,
            metrics,
            cache,
            current: ArcSwap::from_pointee(snapshot),
            draining: AtomicBool::new(false),
        }))
    }

    /// The configuration of now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// From here on the process is not ready for more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl Snapshot {
    fn new(config: Config, clock: &Clock, metrics: &Arc<Metrics>) -> Result<Self, reqwest::Error> {
        let upstream = Arc::new(Upstream::new(&config, clock, metrics)?);
        let limiter = |client: &Arc<Client>| {
            let refused = metrics.rate_limited(&client.name);
            (client.name.clone(), Limiter::new(client.rate_limit, clock.clone(), refused))
        };
        let limiters = config.clients.iter().map(limiter).collect();
        Ok(Self { config, upstream, limiters })
    }

    /// The limiter of a client of this configuration.
    pub fn limiter(&self, client: &Client) -> Option<&Limiter> {
        self.limiters.get(&client.name)
    }
}
