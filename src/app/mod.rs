//! What lives with the process ([`App`]), what goes with one configuration ([`Snapshot`]), and how one takes the
//! place of another.

mod reload;
mod snapshot;
pub mod triggers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;

use crate::access::rate_limit::Table;
use crate::cache::{Cache, CacheLimits};
use crate::clock::Clock;
use crate::config::{self, Config, ConfigFault, Fingerprint, Sources};
use crate::http::request_id::RequestIds;
use crate::observe::metrics::{Metrics, SeriesNames};
use crate::overload::in_flight::Responses;
use crate::overload::waiting::Waiting;
use crate::upstream::Resolver;
pub use reload::ReloadOutcome;
use reload::Reloads;
pub use snapshot::Snapshot;

/// Lives as long as the process.
pub struct App {
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub cache: Cache,
    /// The bodies that responses hold.
    pub responses: Responses,
    /// The requests that wait.
    pub waiting: Waiting,
    /// The limits of those who bring no valid credential, by address.
    pub unauthenticated: Table,
    /// The limits of the bearers of tokens.
    pub subjects: Table,
    sources: Sources,
    resolver: Option<Resolver>,
    current: ArcSwap<Snapshot>,
    /// What was in the files when they were read last, taken up or not. Written by [`Self::take_up`] only.
    last_read: Mutex<Fingerprint>,
    reloads: Reloads,
    draining: AtomicBool,
    pub request_ids: RequestIds,
}

impl App {
    /// The app that `sources` describe; all their faults at once if they do not.
    pub fn new(sources: Sources, clock: Clock) -> Result<Arc<Self>, Vec<ConfigFault>> {
        Self::resolving(sources, clock, None)
    }

    /// The same; upstreams' names are looked up by `resolver` if there is one, else as the machine does.
    pub fn resolving(
        sources: Sources,
        clock: Clock,
        resolver: Option<Resolver>,
    ) -> Result<Arc<Self>, Vec<ConfigFault>> {
        let mut files = Fingerprint::default();
        let (written, config) = config::load_noting(&sources, &mut files)?;
        let metrics = Arc::new(Metrics::new());
        let config::Cache { capacity, seen, back_off, .. } = config.cache;
        let cache = Cache::new(CacheLimits { capacity, seen, back_off }, clock.clone(), &metrics);
        let snapshot = Snapshot::new(written, config, &clock, &metrics, resolver.as_ref(), None)?;
        metrics.process.config_loaded(true, clock.now());
        let most = snapshot.config.callers.tracked;
        let table = |policy, refused: &Counter| Table::new(policy, most, refused.clone());
        let (reloads, asked) = Reloads::new();
        let app = Arc::new(Self {
            unauthenticated: table("address", &metrics.access.addresses_limited),
            subjects: table("subject", &metrics.access.subjects_limited),
            clock,
            metrics,
            cache,
            responses: Responses::default(),
            waiting: Waiting::default(),
            sources,
            resolver,
            last_read: Mutex::new(files.in_effect()),
            reloads,
            current: ArcSwap::from_pointee(snapshot),
            draining: AtomicBool::new(false),
            request_ids: RequestIds::default(),
        });
        let weak = Arc::downgrade(&app);
        tokio::spawn(reload::serve(asked, move |unless_read| Self::reload_for(weak.clone(), unless_read)));
        Ok(app)
    }

    /// The configuration of now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Has the sources read again and the configuration swapped, whole: from then on new requests see the
    /// new one, those under way keep theirs. If anything is wrong with it, the old one stays. What is read
    /// is at least as new as this call.
    pub async fn reload(&self) -> ReloadOutcome {
        self.reloads.ask(None).await
    }

    /// The same, unless `known` is what was read last.
    pub async fn reload_unless_read(&self, known: Fingerprint) -> ReloadOutcome {
        self.reloads.ask(Some(known)).await
    }

    /// What was in the configuration's files when they were read last, taken up or not.
    pub fn last_read(&self) -> Fingerprint {
        self.last_read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One reload for all of these requests, if any of them needs one; nothing if the app is gone. Files are read
    /// and opened, which may take its time: never on a thread that serves requests.
    async fn reload_for(app: Weak<Self>, unless_read: Vec<Option<Fingerprint>>) -> Option<ReloadOutcome> {
        let app = app.upgrade()?;
        let last_read = app.last_read();
        if unless_read.iter().all(|known| known.as_ref() == Some(&last_read)) {
            return Some(Ok(()));
        }
        let outcome = tokio::task::spawn_blocking(move || app.take_up()).await;
        Some(outcome.unwrap_or_else(|_| Err(reload::given_up())))
    }

    /// One reload. For [`Self::reload_for`] alone: two at a time could swap in the wrong order.
    fn take_up(&self) -> ReloadOutcome {
        let mut read = Fingerprint::default();
        let loaded = config::load_noting(&self.sources, &mut read);
        // Whether it is taken up or refused on the way: its names may have been given to series by then.
        let named = loaded.as_ref().map(|(_, config)| SeriesNames::of(config)).unwrap_or_default();
        let swapped = loaded.and_then(|(written, config)| self.next(written, config)).map(|snapshot| {
            let snapshot = Arc::new(snapshot);
            let previous = self.current.swap(snapshot.clone());
            // After the swap: whoever sees that his is not the one of now finds the one that is.
            previous.supersede();
            self.forget_but_current(&SeriesNames::of(&previous.config));
            log_change(&previous, &snapshot);
        });
        self.forget_but_current(&named);
        let read = if swapped.is_ok() { read.in_effect() } else { read };
        *self.last_read.lock().unwrap_or_else(PoisonError::into_inner) = read;
        self.metrics.process.config_loaded(swapped.is_ok(), self.clock.now());
        for fault in swapped.as_ref().err().into_iter().flatten() {
            tracing::warn!(%fault, "the configuration was not reloaded");
        }
        swapped
    }

    /// What is made of a configuration that takes the place of the one in effect.
    fn next(&self, written: toml::Table, config: Config) -> Result<Snapshot, Vec<ConfigFault>> {
        let previous = self.snapshot();
        let faults = config.needs_restart(&previous.config);
        if faults.is_empty() {
            let resolver = self.resolver.as_ref();
            Snapshot::new(written, config, &self.clock, &self.metrics, resolver, Some(&*previous))
        } else {
            Err(faults)
        }
    }

    /// Brings the gauges that are read rather than counted up to date.
    pub fn observe(&self) {
        let (entries, bytes) = self.cache.size();
        self.metrics.cache.size(entries, bytes);
        self.metrics.process.bytes_in_flight("responses", self.responses.bytes());
        let snapshot = self.snapshot();
        snapshot.upstream.observe();
        self.metrics.process.certificate_expiry(snapshot.tls.load().as_ref().map(|tls| tls.not_after()));
        // A reload since may have come too early to remove what was set just now.
        if !snapshot.is_current() {
            self.forget_but_current(&SeriesNames::of(&snapshot.config));
        }
    }

    /// Ends the series of those of `names` that the configuration of now does not have.
    fn forget_but_current(&self, names: &SeriesNames) {
        self.metrics.forget(names, &SeriesNames::of(&self.snapshot().config));
    }

    /// From here on the process is not ready for more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// What is different now: the sections by name, and how many there are of what is listed.
fn log_change(before: &Snapshot, after: &Snapshot) {
    let (old, new) = (&before.config, &after.config);
    tracing::info!(
        changed = config::changed_sections(&before.written, &after.written),
        accounts_before = old.accounts.len(),
        accounts = new.accounts.len(),
        clients_before = old.clients.iter().count(),
        clients = new.clients.iter().count(),
        issuers_before = old.issuers(),
        issuers = new.issuers(),
        "the configuration was reloaded"
    );
}
