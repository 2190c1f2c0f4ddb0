//! Callers' requests and their connections.

use std::sync::OnceLock;
use std::time::Duration;

use http::Method;
use opentelemetry::trace::TraceId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{SECONDS, register};
use crate::routes::{ROUTES, Route};

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
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct EndLabels {
    listener: &'static str,
    reason: &'static str,
}

/// A histogram whose buckets name a recorded trace, in OpenMetrics.
type Traced = HistogramWithExemplars<TraceLabels>;

fn traced_seconds() -> Traced {
    Traced::new(SECONDS.into_iter())
}

/// Callers' requests and their connections.
pub struct Http {
    requests: Family<RequestLabels, Traced, fn() -> Traced>,
    /// Of `requests`, those of hits, held so that they need not be looked up: by route, method and
    /// whether it was a 200 or a 304.
    hits: [[[OnceLock<Traced>; 2]; METHODS.len()]; ROUTES.len()],
    pub active_requests: Gauge,
    connections: Family<ListenerLabels, Gauge>,
    connections_ended: Family<EndLabels, Counter>,
}

impl Http {
    pub(super) fn new(r: &mut Registry) -> Self {
        let requests = Family::new_with_constructor(traced_seconds as fn() -> Traced);
        let http = Self {
            requests: register(r, "http_server_request_duration_seconds", "Requests, by route", requests),
            hits: Default::default(),
            active_requests: register(
                r,
                "http_server_active_requests",
                "Requests under way",
                Gauge::default(),
            ),
            connections: register(r, "kore_gateway_connections", "Open connections", Family::default()),
            connections_ended: register(
                r,
                "kore_gateway_connections_ended",
                "Connections that the gateway ended, by reason",
                Family::default(),
            ),
        };
        for listener in [MAIN_LISTENER, OPS_LISTENER] {
            http.connections.get_or_create_owned(&ListenerLabels { listener });
            for reason in Ended::ALL.map(Ended::as_str) {
                http.connections_ended.get_or_create_owned(&EndLabels { listener, reason });
            }
        }
        http
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
        let open = self.connections.get_or_create_owned(&ListenerLabels { listener });
        Connections { listener, open, ended: self.connections_ended.clone() }
    }
}

/// The connections of one listener.
#[derive(Clone)]
pub struct Connections {
    listener: &'static str,
    open: Gauge,
    ended: Family<EndLabels, Counter>,
}

impl Connections {
    /// There is one more, until what this returns is dropped.
    pub fn open(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    pub fn open_now(&self) -> i64 {
        self.open.get()
    }

    /// The gateway ended one.
    pub fn ended(&self, reason: Ended) {
        self.ended_for(reason).inc();
    }

    /// Those that did not end within the time for a drain.
    pub fn cut(&self) -> u64 {
        self.ended_for(Ended::DrainTimeout).get()
    }

    fn ended_for(&self, reason: Ended) -> Counter {
        let labels = EndLabels { listener: self.listener, reason: reason.as_str() };
        self.ended.get_or_create_owned(&labels)
    }
}

/// A connection that is counted as open.
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub const MAIN_LISTENER: &str = "main";
pub const OPS_LISTENER: &str = "ops";

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
    /// The process is to end, and it had a request under way for longer than `server.drain_timeout` allows.
    DrainTimeout,
}

impl Ended {
    const ALL: [Self; 11] = [
        Self::AddressLimit,
        Self::NotAccepted,
        Self::Handshake,
        Self::HeaderTimeout,
        Self::WriteTimeout,
        Self::Idle,
        Self::Displaced,
        Self::Flood,
        Self::Unresponsive,
        Self::Drained,
        Self::DrainTimeout,
    ];

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
            Self::DrainTimeout => "drain-timeout",
        }
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
