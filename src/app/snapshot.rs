//! One configuration and what was made from it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use crate::access::oidc::Issuers;
use crate::access::rate_limit::Limiter;
use crate::access::redact::Projection;
use crate::clock::Clock;
use crate::config::{self, Client, Config, ConfigFault};
use crate::error::{Error, Kind};
use crate::observe::access_log::AccessLog;
use crate::observe::audit::Audit;
use crate::observe::metrics::{Metrics, VERSION};
use crate::observe::trace::Tracer;
use crate::routes::openapi::Contract;
use crate::routes::{ROUTES, Route, RouteName};
use crate::upstream::{Resolver, Upstream};

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

impl Snapshot {
    pub(super) fn new(
        written: toml::Table,
        config: Config,
        clock: &Clock,
        metrics: &Arc<Metrics>,
        resolver: Option<&Resolver>,
        previous: Option<&Self>,
    ) -> Result<Self, Vec<ConfigFault>> {
        let issuers = issuers(&config, clock, metrics, previous)?;
        let cannot_write = |path: &'static str, error: std::io::Error| {
            vec![ConfigFault { path: path.to_owned(), problem: format!("cannot be written: {error}") }]
        };
        let known = previous.map(|previous| &previous.access_log);
        let access_log = AccessLog::open(&config.log, metrics.process.access_lines_dropped.clone(), known)
            .map_err(|error| cannot_write("log.access_to", error))?;
        let audit = Audit::open(&config.audit, metrics, previous.map(|previous| &previous.audit))
            .map_err(|error| cannot_write("audit.to", error))?;
        let tracer = tracer(&config, clock, metrics, previous)?;
        // Last of what can fail: it takes over what the one of before has counted.
        let upstream = upstream(&config, clock, metrics, resolver, previous)?;
        // A limit that stays the same goes on counting: a reload is no fresh start for anybody.
        let limiter = |client: &Arc<Client>| {
            let kept = previous.and_then(|previous| {
                let known = previous.config.clients.named(&client.name)?;
                previous.limiter(known)
            });
            let kept = kept.filter(|limiter| limiter.rate() == client.rate_limit).cloned();
            let new = || {
                let refused = metrics.access.rate_limited(&client.name);
                Arc::new(Limiter::new("client", client.rate_limit, refused))
            };
            kept.unwrap_or_else(new)
        };
        let limiters = config.clients.iter().map(limiter).collect();
        let projections = config.clients.iter().map(|client| {
            ROUTES.each_ref().map(|route| {
                let rows = (client.filter_rows && route.name == RouteName::InteractionDetails)
                    .then_some(&client.bots);
                let shown = Projection::new(client.redact.iter().map(Arc::as_ref), rows)?;
                Some(Arc::new(shown.of(route.listed)))
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

    /// What keeps `config` from being served on this machine, beside files that cannot be written
    /// ([`Config::unwritable`]) and ports. Makes what `Self::new` makes, and drops it: in a runtime that does not
    /// run, nobody hears of it.
    pub fn refusals(config: &Config, clock: &Clock) -> Vec<ConfigFault> {
        let metrics = Arc::new(Metrics::new());
        let tried = [
            issuers(config, clock, &metrics, None).err(),
            tracer(config, clock, &metrics, None).err(),
            upstream(config, clock, &metrics, None, None).err(),
        ];
        tried.into_iter().flatten().flatten().collect()
    }

    /// Another one has taken its place.
    pub(super) fn supersede(&self) {
        self.is_superseded.store(true, Ordering::Release);
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

fn issuers(
    config: &Config,
    clock: &Clock,
    metrics: &Metrics,
    previous: Option<&Snapshot>,
) -> Result<Issuers, Vec<ConfigFault>> {
    let known = previous.map(|previous| &previous.issuers);
    Issuers::new(config, clock, metrics, known).map_err(|error| no_https("oidc", &error))
}

fn tracer(
    config: &Config,
    clock: &Clock,
    metrics: &Metrics,
    previous: Option<&Snapshot>,
) -> Result<Option<Arc<Tracer>>, Vec<ConfigFault>> {
    let known = previous.and_then(|previous| previous.tracer.as_ref());
    Tracer::start(&config.tracing, clock, metrics, known)
        .map_err(|error| no_https("tracing.endpoint", &*error))
}

fn upstream(
    config: &Config,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    resolver: Option<&Resolver>,
    previous: Option<&Snapshot>,
) -> Result<Arc<Upstream>, Vec<ConfigFault>> {
    let known = previous.map(|previous| &*previous.upstream);
    Upstream::start(config, clock, metrics, resolver, known).map_err(|error| no_https("upstream", &error))
}

/// Where the machine has no certificates to trust and something is https. The errors of libraries tell that last.
fn no_https(path: &str, error: &dyn std::error::Error) -> Vec<ConfigFault> {
    let mut reason = error;
    while let Some(deeper) = reason.source() {
        reason = deeper;
    }
    let problem =
        format!("cannot make https connections: {reason}; on Debian, `apt-get install ca-certificates`");
    vec![ConfigFault { path: path.to_owned(), problem }]
}
