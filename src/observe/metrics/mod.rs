//! What is counted. Names are promises (README, "Metrics"); no id but an account's and a credential's,
//! which operators have configured, and no free text is in a label.

mod named;

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::Method;
use opentelemetry::trace::TraceId;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use self::named::Names;
use crate::clock::UnixMillis;
use crate::routes::{ROUTES, Route};

/// The buckets of OpenTelemetry's HTTP metrics, in seconds.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The release, and the commit it was built from, if the build was told.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub const COMMIT: &str = match option_env!("KORE_GATEWAY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    status: u16,
}

/// Where to look at one of those that were counted.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct TraceLabels {
    trace_id: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct CallLabels {
    route: &'static str,
    status: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OutcomeLabels {
    route: &'static str,
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct WithheldLabels {
    route: &'static str,
    reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RefreshLabels {
    route: &'static str,
    /// `changed` or `unchanged`.
    result: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct FormLabels {
    /// `br`, `gzip` or `view`.
    form: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct InFlightLabels {
    /// `responses` or `fills`.
    of: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ResultLabels {
    route: &'static str,
    result: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ClientLabels {
    client: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct CredentialLabels {
    credential: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct PoolLabels {
    account: String,
    pool: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct IssuerLabels {
    issuer: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct FetchLabels {
    issuer: String,
    result: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct AccountLabels {
    account: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct EndedLabels {
    listener: &'static str,
    reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct DoneLabels {
    result: &'static str,
}

/// Of a series that is there or not.
type NoLabels = [(&'static str, &'static str); 0];

/// How a request to a route was answered. Each has one, so that their sum is the number of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Hit,
    Stale,
    Miss,
    Collapsed,
    /// Neither out of the store nor by the upstream: it was refused, or failed.
    Bypass,
}

impl Outcome {
    const ALL: [Self; OUTCOMES] = [Self::Hit, Self::Stale, Self::Miss, Self::Collapsed, Self::Bypass];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Bypass => "bypass",
        }
    }
}

/// How many there are of them.
const OUTCOMES: usize = 5;

/// Why the gateway ended a connection that its peer did not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Its address had as many as it may have.
    AddressLimit,
    /// There were no descriptors, or no memory.
    NotAccepted,
    /// Its TLS handshake failed or took too long.
    Handshake,
    HeaderTimeout,
    WriteTimeout,
    Idle,
    /// It had no request under way, and another needed its place.
    Displaced,
    /// It sent much that asked for nothing.
    Flood,
    /// It was asked to end, and did not.
    Unresponsive,
    /// The process is to end.
    Drained,
}

impl Ended {
    const fn as_str(self) -> &'static str {
        match self {
            Self::AddressLimit => "address-limit",
            Self::NotAccepted => "not-accepted",
            Self::Handshake => "handshake",
            Self::HeaderTimeout => "header-timeout",
            Self::WriteTimeout => "write-timeout",
            Self::Idle => "idle",
            Self::Displaced => "displaced",
            Self::Flood => "flood",
            Self::Unresponsive => "unresponsive",
            Self::Drained => "drained",
        }
    }
}

/// The connections of one listener.
#[derive(Clone)]
pub struct Connections {
    listener: &'static str,
    ended: Family<EndedLabels, Counter>,
}

impl Connections {
    /// The gateway ended one.
    pub fn ended(&self, reason: Ended) {
        let labels = EndedLabels { listener: self.listener, reason: reason.as_str() };
        self.ended.get_or_create_owned(&labels).inc();
    }
}

/// What came of one call to the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttemptResult {
    Answered,
    TokenRefused,
    QuotaRefused,
    Failed,
}

impl AttemptResult {
    const ALL: [Self; 4] = [Self::Answered, Self::TokenRefused, Self::QuotaRefused, Self::Failed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::TokenRefused => "token-refused",
            Self::QuotaRefused => "quota-refused",
            Self::Failed => "failed",
        }
    }
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// A histogram whose buckets name a recorded trace, in OpenMetrics.
type Traced = HistogramWithExemplars<TraceLabels>;

fn traced_seconds() -> Traced {
    Traced::new(SECONDS.into_iter())
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// Everything that is counted, for one process.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Traced, fn() -> Traced>,
    /// Of `requests`, those of hits, held so that they need not be looked up: by route, method and
    /// whether it was a 200 or a 304.
    hits: [[[OnceLock<Traced>; 2]; METHODS.len()]; ROUTES.len()],
    pub active_requests: Gauge,
    connections_ended: Family<EndedLabels, Counter>,
    calls: Histograms<CallLabels>,
    cache_requests: Family<OutcomeLabels, Counter>,
    /// The same, by route and outcome.
    outcomes: [[Counter; OUTCOMES]; ROUTES.len()],
    cache_entries: Gauge,
    cache_bytes: Gauge<f64, AtomicU64>,
    pub cache_evictions: Counter,
    cache_made: Family<FormLabels, Counter>,
    bytes_in_flight: Family<InFlightLabels, Gauge>,
    settled_refreshes: Family<RefreshLabels, Counter>,
    withheld: Family<WithheldLabels, Counter>,
    rate_limited: Family<ClientLabels, Counter>,
    pub subjects_limited: Counter,
    pub addresses_limited: Counter,
    attempts: Family<ResultLabels, Counter>,
    quota_available: Family<PoolLabels, Gauge>,
    pub quota_wait: Histogram,
    quota_waiting: Family<AccountLabels, Gauge>,
    retries: Family<RouteLabels, Counter>,
    breaker_state: Family<UpstreamLabels, Gauge>,
    tokens_minted: Family<CredentialLabels, Counter>,
    token_expiry: Family<CredentialLabels, Gauge>,
    config_reloads: Family<DoneLabels, Counter>,
    certificate_reloads: Family<DoneLabels, Counter>,
    certificate_expiry: Family<NoLabels, Gauge>,
    config_good: Gauge,
    config_loaded_at: Gauge,
    audit_records: Family<DoneLabels, Counter>,
    pub access_lines_dropped: Counter,
    pub log_lines_dropped: Counter,
    pub panics: Counter,
    pub ops_unauthenticated: Counter,
    trace_spans: Family<DoneLabels, Counter>,
    jwks_fetches: Family<FetchLabels, Counter>,
    jwks_keys: Family<IssuerLabels, Gauge>,
}

impl Metrics {
    pub fn new() -> Self {
        let cache_requests = Family::<OutcomeLabels, Counter>::default();
        let outcomes = ROUTES.each_ref().map(|route| {
            let labels =
                |outcome: Outcome| OutcomeLabels { route: route.name.as_str(), outcome: outcome.as_str() };
            Outcome::ALL.map(|outcome| cache_requests.get_or_create_owned(&labels(outcome)))
        });
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::new_with_constructor(traced_seconds),
            hits: Default::default(),
            outcomes,
            active_requests: Gauge::default(),
            connections_ended: Family::default(),
            calls: Family::new_with_constructor(seconds),
            cache_requests,
            cache_entries: Gauge::default(),
            cache_bytes: Gauge::default(),
            cache_evictions: Counter::default(),
            cache_made: Family::default(),
            bytes_in_flight: Family::default(),
            settled_refreshes: Family::default(),
            withheld: Family::default(),
            rate_limited: Family::default(),
            subjects_limited: Counter::default(),
            addresses_limited: Counter::default(),
            attempts: Family::default(),
            quota_available: Family::default(),
            quota_wait: seconds(),
            quota_waiting: Family::default(),
            retries: Family::default(),
            breaker_state: Family::default(),
            tokens_minted: Family::default(),
            token_expiry: Family::default(),
            config_reloads: Family::default(),
            certificate_reloads: Family::default(),
            certificate_expiry: Family::default(),
            config_good: Gauge::default(),
            config_loaded_at: Gauge::default(),
            audit_records: Family::default(),
            access_lines_dropped: Counter::default(),
            log_lines_dropped: Counter::default(),
            panics: Counter::default(),
            ops_unauthenticated: Counter::default(),
            trace_spans: Family::default(),
            jwks_fetches: Family::default(),
            jwks_keys: Family::default(),
        };
        metrics.begin();
        metrics.register();
        metrics
    }

    /// What is counted begins at zero and not with its first event: a rate needs two samples.
    fn begin(&self) {
        for route in ROUTES.each_ref().map(|route| route.name.as_str()) {
            for result in AttemptResult::ALL.map(AttemptResult::as_str) {
                self.attempts.get_or_create_owned(&ResultLabels { route, result });
            }
            for result in ["changed", "unchanged"] {
                self.settled_refreshes.get_or_create_owned(&RefreshLabels { route, result });
            }
            self.retries.get_or_create_owned(&RouteLabels { route });
            for reason in ["cut", "another-record", "another-account", "token"] {
                self.withheld.get_or_create_owned(&WithheldLabels { route, reason });
            }
        }
        for form in ["br", "gzip", "view"] {
            self.cache_made.get_or_create_owned(&FormLabels { form });
        }
        for result in ["success", "failure"] {
            self.config_reloads.get_or_create_owned(&DoneLabels { result });
        }
    }

    /// Counters get their `_total` when they are written out.
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("http_server_request_duration_seconds", "Requests, by route", self.requests.clone());
        r.register("http_server_active_requests", "Requests under way", self.active_requests.clone());
        r.register(
            "kore_gateway_connections_ended",
            "Connections that the gateway ended, by reason",
            self.connections_ended.clone(),
        );
        r.register("http_client_request_duration_seconds", "Calls to the upstream", self.calls.clone());
        r.register(
            "kore_gateway_cache_requests",
            "Requests to a route, by outcome; their sum is all of them",
            self.cache_requests.clone(),
        );
        r.register("kore_gateway_cache_entries", "Stored answers", self.cache_entries.clone());
        r.register("kore_gateway_cache_bytes", "Bytes of stored answers", self.cache_bytes.clone());
        let made = "Bodies made of answers: compressed, or what a client is shown of one";
        r.register("kore_gateway_cache_bodies_made", made, self.cache_made.clone());
        let held = "Bytes held beside the store: by responses, and of answers that are being read";
        r.register("kore_gateway_bytes_in_flight", held, self.bytes_in_flight.clone());
        r.register(
            "kore_gateway_cache_evictions",
            "Answers that went for want of room",
            self.cache_evictions.clone(),
        );
        r.register(
            "kore_gateway_cache_settled_refreshes",
            "Answers called settled that were fetched anew; if many have changed, settle is too short",
            self.settled_refreshes.clone(),
        );
        r.register(
            "kore_gateway_upstream_withheld",
            "Complete answers that nobody got: cut, about another record or account, or with the token that was sent",
            self.withheld.clone(),
        );
        r.register(
            "kore_gateway_rate_limited",
            "Requests over their client's rate limit",
            self.rate_limited.clone(),
        );
        r.register(
            "kore_gateway_subjects_rate_limited",
            "Requests over the limit of one bearer of a token",
            self.subjects_limited.clone(),
        );
        r.register(
            "kore_gateway_addresses_rate_limited",
            "Requests without a valid credential over the limit of their address",
            self.addresses_limited.clone(),
        );
        r.register(
            "kore_gateway_upstream_attempts",
            "Calls to the upstream, by result",
            self.attempts.clone(),
        );
        r.register(
            "kore_gateway_upstream_quota_available",
            "Calls there is room for at once",
            self.quota_available.clone(),
        );
        r.register(
            "kore_gateway_upstream_quota_wait_seconds",
            "Time that calls waited for room",
            self.quota_wait.clone(),
        );
        r.register(
            "kore_gateway_upstream_quota_waiting",
            "Calls that wait for room",
            self.quota_waiting.clone(),
        );
        r.register(
            "kore_gateway_upstream_retries",
            "Calls to the upstream that were made again",
            self.retries.clone(),
        );
        r.register(
            "kore_gateway_breaker_state",
            "0 closed, 1 probing, 2 open, by base URL",
            self.breaker_state.clone(),
        );
        r.register(
            "kore_gateway_tokens_minted",
            "Tokens minted for the upstream",
            self.tokens_minted.clone(),
        );
        r.register(
            "kore_gateway_token_expiry_timestamp_seconds",
            "When the current token expires",
            self.token_expiry.clone(),
        );
        r.register(
            "kore_gateway_config_reloads",
            "Configurations taken up and refused",
            self.config_reloads.clone(),
        );
        r.register(
            "kore_gateway_certificate_reloads",
            "Renewed certificates taken up and refused",
            self.certificate_reloads.clone(),
        );
        r.register(
            "kore_gateway_certificate_expiry_timestamp_seconds",
            "When the certificate that callers are shown expires",
            self.certificate_expiry.clone(),
        );
        r.register(
            "kore_gateway_config_last_reload_successful",
            "1 if the configuration as it is written is in effect, 0 if it was refused",
            self.config_good.clone(),
        );
        r.register(
            "kore_gateway_config_last_reload_success_timestamp_seconds",
            "When the configuration in effect was taken up",
            self.config_loaded_at.clone(),
        );
        r.register(
            "kore_gateway_access_lines_dropped",
            "Access lines that were not written",
            self.access_lines_dropped.clone(),
        );
        r.register(
            "kore_gateway_log_lines_dropped",
            "Lines of the gateway's own log that were not written",
            self.log_lines_dropped.clone(),
        );
        r.register(
            "kore_gateway_ops_unauthenticated",
            "Requests to the ops listener with a wrong ops token",
            self.ops_unauthenticated.clone(),
        );
        r.register("kore_gateway_panics", "Panics, each a defect of the gateway", self.panics.clone());
        r.register(
            "kore_gateway_trace_spans",
            "Spans that the collector took, and those that were dropped",
            self.trace_spans.clone(),
        );
        r.register("kore_gateway_audit_records", "Lines of the audit", self.audit_records.clone());
        r.register("kore_gateway_jwks_fetches", "Fetches of issuers' keys", self.jwks_fetches.clone());
        r.register("kore_gateway_jwks_keys", "Keys of an issuer that are known", self.jwks_keys.clone());
        r.register(
            "kore_gateway_build",
            "What is running",
            Info::new(vec![("version", VERSION), ("commit", COMMIT)]),
        );
    }

    /// One request answered, after `duration`. `route` is `none` where no route was found. `recorded` is
    /// the trace where it can be looked at.
    pub fn request(
        &self,
        route: Option<&Route>,
        method: &Method,
        status: u16,
        duration: Duration,
        recorded: Option<TraceId>,
    ) {
        let method = method_index(method);
        let look_up = |route| {
            self.requests.get_or_create_owned(&RequestLabels { route, method: METHODS[method], status })
        };
        let observe = |histogram: &Traced| {
            let exemplar = recorded.map(|trace| TraceLabels { trace_id: trace.to_string() });
            histogram.observe(duration.as_secs_f64(), exemplar, None);
        };
        match (route, status) {
            (Some(route), 200 | 304) => {
                let held = &self.hits[route.name as usize][method][usize::from(status == 304)];
                observe(held.get_or_init(|| look_up(route.name.as_str())));
            }
            (route, _) => observe(&look_up(route.map_or("none", |route| route.name.as_str()))),
        }
    }

    /// What is counted of a listener's connections.
    pub fn connections(&self, listener: &'static str) -> Connections {
        Connections { listener, ended: self.connections_ended.clone() }
    }

    /// How a request to a route was answered; once for each that is counted by [`Self::request`].
    pub fn cache_request(&self, route: &Route, outcome: Outcome) {
        self.outcomes[route.name as usize][outcome as usize].inc();
    }

    /// An answer that had been called settled was fetched anew, and was `changed` or not.
    pub fn settled_refresh(&self, route: &Route, changed: bool) {
        let result = if changed { "changed" } else { "unchanged" };
        let labels = RefreshLabels { route: route.name.as_str(), result };
        self.settled_refreshes.get_or_create_owned(&labels).inc();
    }

    /// Sets what is read rather than counted.
    pub fn cache_size(&self, entries: u64, bytes: u64) {
        self.cache_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        #[expect(clippy::cast_precision_loss, reason = "a gauge; exact up to 8 PiB")]
        self.cache_bytes.set(bytes as f64);
    }

    /// A body was made of an answer: in a coding, or a client's view.
    pub fn cache_made(&self, form: &'static str) {
        self.cache_made.get_or_create_owned(&FormLabels { form }).inc();
    }

    /// Sets what is read rather than counted.
    pub fn bytes_in_flight(&self, of: &'static str, bytes: usize) {
        let gauge = self.bytes_in_flight.get_or_create_owned(&InFlightLabels { of });
        gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The counter of a client's requests that were over its limit.
    pub fn rate_limited(&self, client: &str) -> Counter {
        self.rate_limited.get_or_create_owned(&ClientLabels { client: client.to_owned() })
    }

    /// One call to the upstream; `status` is 0 where none came.
    pub fn upstream_attempt(&self, route: &Route, status: u16, result: AttemptResult, duration: Duration) {
        let route = route.name.as_str();
        self.calls.get_or_create_owned(&CallLabels { route, status }).observe(duration.as_secs_f64());
        self.attempts.get_or_create_owned(&ResultLabels { route, result: result.as_str() }).inc();
    }

    pub fn quota_available(&self, account: &str, pool: &'static str, calls: u32) {
        let labels = PoolLabels { account: account.to_owned(), pool };
        self.quota_available.get_or_create_owned(&labels).set(calls.into());
    }

    pub fn quota_waiting(&self, account: &str, calls: usize) {
        let labels = AccountLabels { account: account.to_owned() };
        self.quota_waiting.get_or_create_owned(&labels).set(i64::try_from(calls).unwrap_or(i64::MAX));
    }

    /// An answer that came whole, and that nobody gets.
    pub fn upstream_withheld(&self, route: &Route, reason: &'static str) {
        let labels = WithheldLabels { route: route.name.as_str(), reason };
        self.withheld.get_or_create_owned(&labels).inc();
    }

    pub fn upstream_retry(&self, route: &Route) {
        self.retries.get_or_create_owned(&RouteLabels { route: route.name.as_str() }).inc();
    }

    pub fn breaker(&self, upstream: &str) -> Gauge {
        self.breaker_state.get_or_create_owned(&UpstreamLabels { upstream: upstream.to_owned() })
    }

    /// The counter of tokens minted for a credential, and the gauge of their expiry.
    pub fn credential(&self, credential: &str) -> (Counter, Gauge) {
        let labels = CredentialLabels { credential: credential.to_owned() };
        (self.tokens_minted.get_or_create_owned(&labels), self.token_expiry.get_or_create_owned(&labels))
    }

    /// The counters of spans that a collector took, and of those that were dropped.
    pub fn trace_spans(&self) -> (Counter, Counter) {
        let spans = |result| self.trace_spans.get_or_create_owned(&DoneLabels { result });
        (spans("exported"), spans("dropped"))
    }

    /// The counters of lines of the audit that were written and lost.
    pub fn audit(&self) -> (Counter, Counter) {
        let records = |result| self.audit_records.get_or_create_owned(&DoneLabels { result });
        (records("success"), records("failure"))
    }

    /// The counters of fetches of an issuer's keys that worked and failed, and the gauge of the keys.
    pub fn jwks(&self, issuer: &str) -> (Counter, Counter, Gauge) {
        let fetches = |result| {
            self.jwks_fetches.get_or_create_owned(&FetchLabels { issuer: issuer.to_owned(), result })
        };
        let keys = self.jwks_keys.get_or_create_owned(&IssuerLabels { issuer: issuer.to_owned() });
        (fetches("success"), fetches("failure"), keys)
    }

    /// A configuration was taken up, or refused, at `now`.
    pub fn config_loaded(&self, good: bool, now: UnixMillis) {
        self.config_good.set(good.into());
        if good {
            self.config_loaded_at.set(now.seconds());
        }
        let result = if good { "success" } else { "failure" };
        self.config_reloads.get_or_create_owned(&DoneLabels { result }).inc();
    }

    /// A renewed certificate was taken up, or refused.
    pub fn certificate_loaded(&self, good: bool) {
        let result = if good { "success" } else { "failure" };
        self.certificate_reloads.get_or_create_owned(&DoneLabels { result }).inc();
    }

    /// When the certificate in use expires; none where there is no TLS, and then there is no series either.
    pub fn certificate_expiry(&self, not_after: Option<UnixMillis>) {
        match not_after {
            Some(not_after) => {
                self.certificate_expiry.get_or_create_owned(&[]).set(not_after.seconds());
            }
            None => self.certificate_expiry.clear(),
        }
    }

    /// All of it, as OpenMetrics text.
    pub fn open_metrics(&self) -> Result<String, std::fmt::Error> {
        let mut written = String::new();
        text::encode(&mut written, &self.registry)?;
        Ok(written)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The methods HTTP knows by name; a made-up one must not make a time series.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "QUERY", "PUT", "DELETE", "OPTIONS", "PATCH", "_OTHER"];

/// What a method is called: one of those that are known, or `_OTHER`.
pub fn method_name(method: &Method) -> &'static str {
    METHODS[method_index(method)]
}

fn method_index(method: &Method) -> usize {
    let known = METHODS.iter().position(|known| *known == method.as_str());
    known.unwrap_or(METHODS.len() - 1)
}

/// OpenMetrics text as the older Prometheus text format (0.0.4), for scrapers that ask for that:
/// there a counter's `TYPE` and `HELP` carry the `_total`, and neither units nor an end are marked.
pub fn prometheus_text(open_metrics: &str) -> String {
    let mut written = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(help) = line.strip_prefix("# HELP ") {
            // The TYPE line follows and says how the name has to be spelled.
            let kind = lines.peek().and_then(|next| next.rsplit(' ').next()).unwrap_or_default();
            let (name, words) = help.split_once(' ').unwrap_or((help, ""));
            let (suffix, _) = suffix_and_kind(kind);
            written.push_str(&format!("# HELP {name}{suffix} {words}\n"));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|kind| kind.split_once(' '))
        {
            let (suffix, kind) = suffix_and_kind(kind);
            written.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else {
            // An exemplar stands behind its sample; no label of ours holds its mark.
            written.push_str(line.split(" # {").next().unwrap_or_default());
            written.push('\n');
        }
    }
    written
}

fn suffix_and_kind(kind: &str) -> (&'static str, &str) {
    match kind {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        other => ("", other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_the_build_are_named_in_both_formats() {
        let metrics = Metrics::new();
        metrics.config_loaded(true, UnixMillis(0));
        let open = metrics.open_metrics().expect("text");
        assert!(open.contains("# TYPE kore_gateway_config_reloads counter\n"));
        assert!(open.contains("kore_gateway_config_reloads_total{result=\"success\"} 1\n"));
        assert!(open.ends_with("# EOF\n"));
        let plain = prometheus_text(&open);
        assert!(plain.contains("# TYPE kore_gateway_config_reloads_total counter\n"));
        assert!(plain.contains("# TYPE kore_gateway_build_info gauge\n"));
        assert!(plain.contains("kore_gateway_build_info{version="));
        assert!(!plain.contains("# EOF"));
    }
}
