//! What lives with the process, and what goes with one configuration.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use prometheus_client::metrics::counter::Counter;

use crate::access::oidc::Issuers;
use crate::access::rate_limit::{Limiter, Table};
use crate::access::redact::Projection;
use crate::access_log::AccessLog;
use crate::audit::Audit;
use crate::cache::{Cache, Limits};
use crate::clock::Clock;
use crate::config::{self, Client, Config, Fault, Sources};
use crate::error::{Error, Kind};
use crate::in_flight::Responses;
use crate::metrics::{Metrics, Names, VERSION};
use crate::reload::{self, Outcome, Reloads};
use crate::request_id::RequestIds;
use crate::routes::openapi::Contract;
use crate::routes::{Name, ROUTES, Route};
use crate::trace::Tracer;
use crate::upstream::{Resolver, Upstream};
use crate::waiting::Waiting;
use crate::watch::{self, Seen};

/// Lives as long as the process.
pub struct App {
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub cache: Cache,
    /// The bodies that responses hold.
    pub responses: Responses,
    /// The requests that wait.
    pub waiting: Arc<Waiting>,
    /// The limits of those who bring no valid credential, by address.
    pub strangers: Table,
    /// The limits of the bearers of tokens.
    pub subjects: Table,
    sources: Sources,
    resolver: Option<Resolver>,
    current: ArcSwap<Snapshot>,
    /// What was in the files when they were read last, taken up or not. Written by [`Self::take_up`] only.
    seen: Mutex<Seen>,
    reloads: Reloads,
    draining: AtomicBool,
    pub request_ids: RequestIds,
}

/// One configuration and what was made from it. Immutable: a request takes one when it comes in and
/// keeps it to the end.
pub struct Snapshot {
    pub config: Config,
    /// The same as it is written, for people to read.
    pub written: toml::Table,
    pub upstream: Arc<Upstream>,
    pub issuers: Issuers,
    pub audit: Audit,
    pub access_log: AccessLog,
    pub tracer: Option<Arc<Tracer>>,
    /// Made when somebody first asks for it.
    contract: OnceLock<Contract>,
    /// What callers are shown: of the configuration, or of its files as they have become since.
    pub tls: ArcSwapOption<config::Tls>,
    /// By client.
    limiters: Vec<Arc<Limiter>>,
    /// What each client is shown, by route; none where that is everything.
    projections: Vec<[Option<Arc<Projection>>; ROUTES.len()]>,
    /// Another one has taken its place.
    is_superseded: AtomicBool,
}

impl App {
    /// The app that `sources` describe; all their faults at once if they do not.
    pub fn new(sources: Sources, clock: Clock) -> Result<Arc<Self>, Vec<Fault>> {
        Self::resolving(sources, clock, None)
    }

    /// The same; upstreams' names are looked up by `resolver` if there is one, else as the machine does.
    pub fn resolving(
        sources: Sources,
        clock: Clock,
        resolver: Option<Resolver>,
    ) -> Result<Arc<Self>, Vec<Fault>> {
        let (files, loaded) = watch::read(&sources);
        let (written, config) = loaded?;
        let metrics = Arc::new(Metrics::new());
        let config::Cache { capacity, seen, back_off, .. } = config.cache;
        let cache = Cache::new(Limits { capacity, seen, back_off }, clock.clone(), &metrics);
        let snapshot = Snapshot::new(written, config, &clock, &metrics, resolver.as_ref(), None)?;
        metrics.config_loaded(true, clock.now());
        let most = snapshot.config.callers.tracked;
        let table = |policy, refused: &Counter| Table::new(policy, most, refused.clone());
        let (reloads, asked) = Reloads::new();
        let app = Arc::new(Self {
            strangers: table("address", &metrics.addresses_limited),
            subjects: table("subject", &metrics.subjects_limited),
            clock,
            metrics,
            cache,
            responses: Responses::default(),
            waiting: Arc::default(),
            sources,
            resolver,
            seen: Mutex::new(files.in_effect()),
            reloads,
            current: ArcSwap::from_pointee(snapshot),
            draining: AtomicBool::new(false),
            request_ids: RequestIds::default(),
        });
        tokio::spawn(reload::serve(Arc::downgrade(&app), asked));
        Ok(app)
    }

    /// The configuration of now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Has the sources read again and the configuration swapped, whole: from then on new requests see the
    /// new one, those under way keep theirs. If anything is wrong with it, the old one stays. What is read
    /// is at least as new as this call.
    pub async fn reload(&self) -> Outcome {
        self.reloads.ask(None).await
    }

    /// The same, unless `seen` is what was read last.
    pub async fn reload_unless_seen(&self, seen: Seen) -> Outcome {
        self.reloads.ask(Some(seen)).await
    }

    /// What was in the configuration's files when they were read last, taken up or not.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One reload. For [`reload::serve`] alone: two at a time could swap in the wrong order.
    pub(crate) fn take_up(&self) -> Outcome {
        let (seen, loaded) = watch::read(&self.sources);
        // Whether it is taken up or refused on the way: its names may have been given to series by then.
        let named = loaded.as_ref().map(|(_, config)| Names::of(config)).unwrap_or_default();
        let swapped = loaded.and_then(|(written, config)| self.next(written, config)).map(|snapshot| {
            let previous = self.current.swap(Arc::new(snapshot));
            // After the swap: whoever sees that his is not the one of now finds the one that is.
            previous.is_superseded.store(true, Ordering::Release);
            self.forget_but_current(&Names::of(&previous.config));
        });
        self.forget_but_current(&named);
        let seen = if swapped.is_ok() { seen.in_effect() } else { seen };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        self.metrics.config_loaded(swapped.is_ok(), self.clock.now());
        match &swapped {
            Ok(()) => tracing::info!("the configuration was reloaded"),
            Err(faults) => {
                for fault in faults {
                    tracing::warn!(%fault, "the configuration was not reloaded");
                }
            }
        }
        swapped
    }

    /// What is made of a configuration that takes the place of the one in effect.
    fn next(&self, written: toml::Table, config: Config) -> Result<Snapshot, Vec<Fault>> {
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
        self.metrics.cache_size(entries, bytes);
        self.metrics.bytes_in_flight("responses", self.responses.bytes());
        let snapshot = self.snapshot();
        snapshot.upstream.observe();
        // A reload since may have come too early to remove what was set just now.
        if !snapshot.is_current() {
            self.forget_but_current(&Names::of(&snapshot.config));
        }
    }

    /// Ends the series of those of `names` that the configuration of now does not have.
    fn forget_but_current(&self, names: &Names) {
        self.metrics.forget(names, &Names::of(&self.snapshot().config));
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
    fn new(
        written: toml::Table,
        config: Config,
        clock: &Clock,
        metrics: &Arc<Metrics>,
        resolver: Option<&Resolver>,
        previous: Option<&Self>,
    ) -> Result<Self, Vec<Fault>> {
        // Where the machine has no certificates to trust and something is https.
        let no_https = |path: &'static str, error: &dyn std::error::Error| {
            let problem = format!(
                "cannot make https connections: {error}; on Debian, `apt-get install ca-certificates`"
            );
            vec![Fault { path: path.to_owned(), problem }]
        };
        let known = previous.map(|previous| &previous.issuers);
        let issuers =
            Issuers::new(&config, clock, metrics, known).map_err(|error| no_https("oidc", &error))?;
        let cannot_write = |path: &'static str, error: std::io::Error| {
            vec![Fault { path: path.to_owned(), problem: format!("cannot be written: {error}") }]
        };
        let known = previous.map(|previous| &previous.access_log);
        let access_log = AccessLog::open(&config.log, metrics.access_lines_dropped.clone(), known)
            .map_err(|error| cannot_write("log.access_to", error))?;
        let audit = Audit::open(&config.audit, metrics, previous.map(|previous| &previous.audit))
            .map_err(|error| cannot_write("audit.to", error))?;
        let known = previous.and_then(|previous| previous.tracer.as_ref());
        let tracer = Tracer::start(&config.tracing, clock, metrics, known).map_err(|error| {
            let problem = format!("no collector can be told: {error}");
            vec![Fault { path: "tracing.endpoint".to_owned(), problem }]
        })?;
        // Last of what can fail: it takes over what the one of before has counted.
        let known = previous.map(|previous| &*previous.upstream);
        let upstream = Upstream::start(&config, clock, metrics, resolver, known)
            .map_err(|error| no_https("upstream", &error))?;
        // A limit that stays the same goes on counting: a reload is no fresh start for anybody.
        let limiter = |client: &Arc<Client>| {
            let kept = previous.and_then(|previous| {
                let known = previous.config.clients.named(&client.name)?;
                previous.limiter(known)
            });
            let kept = kept.filter(|limiter| limiter.rate() == client.rate_limit).cloned();
            let new = || {
                let refused = metrics.rate_limited(&client.name);
                Arc::new(Limiter::new("client", client.rate_limit, refused))
            };
            kept.unwrap_or_else(new)
        };
        let limiters = config.clients.iter().map(limiter).collect();
        let projections = config.clients.iter().map(|client| {
            ROUTES.each_ref().map(|route| {
                let rows =
                    (client.filter_rows && route.name == Name::InteractionDetails).then_some(&client.bots);
                Projection::new(client.redact.iter().map(Arc::as_ref), rows).map(Arc::new)
            })
        });
        let projections = projections.collect();
        let contract = OnceLock::new();
        let tls = ArcSwapOption::new(config.server.tls.clone());
        Ok(Self {
            config,
            written,
            upstream,
            issuers,
            audit,
            access_log,
            tracer,
            contract,
            tls,
            limiters,
            projections,
            is_superseded: AtomicBool::new(false),
        })
    }

    /// Whether it is the configuration of now.
    pub fn is_current(&self) -> bool {
        !self.is_superseded.load(Ordering::Acquire)
    }

    /// What the API promises under this configuration.
    pub fn contract(&self) -> &Contract {
        self.contract.get_or_init(|| Contract::new(self.config.limits, VERSION))
    }

    /// The limiter of a client; none if it is a client of another configuration.
    pub fn limiter(&self, client: &Client) -> Option<&Arc<Limiter>> {
        self.limiters.get(self.place(client)?)
    }

    /// What a client is shown of a route's answers; `None` is everything. A client that is none of
    /// this configuration is an error.
    pub fn projection(&self, client: &Client, route: &Route) -> Result<Option<&Arc<Projection>>, Error> {
        let shown = self.place(client).and_then(|place| self.projections.get(place));
        let shown = shown.ok_or_else(|| Error::new(Kind::Internal, "a client without a policy"))?;
        Ok(shown.get(route.name as usize).and_then(Option::as_ref))
    }

    /// Where this very client stands in what is held for each: its namesake of another configuration
    /// may see something else.
    fn place(&self, client: &Client) -> Option<usize> {
        let own = self.config.clients.get(client.number)?;
        std::ptr::eq(&raw const **own, client).then_some(client.number)
    }
}
