//! Traces: which one a request belongs to (W3C Trace Context), and the spans that a collector gets
//! (OpenTelemetry's OTLP).
//!
//! A span has what an access line has. Ids of conversations and accounts, keys, paths, query strings
//! and bodies are in none, so `url.path` and `url.full` are left out, against the conventions.

mod context;
mod export;
mod span;

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use prometheus_client::metrics::counter::Counter;

use crate::clock::{Clock, UnixMillis};
use crate::config::Tracing;
use crate::observe::metrics::Metrics;

pub use context::{TRACEPARENT, TraceContext};
use export::Export;
pub use export::ExporterError;
pub use span::{ClientSpan, OpenClientSpan, ServerSpan};

/// Decides which requests are recorded, and exports their spans.
pub struct Tracer {
    config: Tracing,
    export: Export,
    dropped: Counter,
    clock: Clock,
}

impl Tracer {
    /// Exports to the collector that `config` names, in a task that ends with this; `None` if it names none.
    /// `previous` is kept if its configuration is the same.
    pub fn start(
        config: &Tracing,
        clock: &Clock,
        metrics: &Metrics,
        previous: Option<&Arc<Self>>,
    ) -> Result<Option<Arc<Self>>, ExporterError> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        if let Some(same) = previous.filter(|previous| previous.config == *config) {
            return Ok(Some(same.clone()));
        }
        let (exported, dropped) = metrics.process.trace_spans();
        let export = Export::start(endpoint, config, clock, (exported, dropped.clone()))?;
        Ok(Some(Arc::new(Self { config: config.clone(), export, dropped, clock: clock.clone() })))
    }

    /// Takes no more spans, and sends the rest within `tracing.timeout`.
    pub async fn finish(&self) {
        self.export.finish(self.config.timeout).await;
    }

    /// Whether a request is recorded. `caller` is its caller's span.
    fn records(&self, caller: Option<&TraceContext>, chance: u32) -> bool {
        match caller {
            Some(caller) if self.config.follow_callers => caller.is_sampled,
            // `chance` is below 2^32: at a ratio of 1 every request is recorded, at 0 none.
            _ => f64::from(chance) < self.config.ratio * (f64::from(u32::MAX) + 1.0),
        }
    }

    /// Never waits: a slow collector must not slow a request down.
    fn take(&self, span: SpanData) {
        if !self.export.take(span) {
            self.dropped.inc();
        }
    }
}

/// A request's place in its trace.
pub struct Trace {
    /// `None`: the gateway exports nothing, and only the caller traces.
    tracer: Option<Arc<Tracer>>,
    /// The request's own span.
    context: TraceContext,
    /// The caller's span.
    parent: Option<SpanId>,
    began: (UnixMillis, Instant),
}

impl Trace {
    /// Of a request that has just come. `None` where nothing uses it: there is no `tracer`, and the caller has no
    /// trace or the request is not logged.
    pub fn begin(tracer: Option<&Arc<Tracer>>, is_logged: bool, headers: &HeaderMap) -> Option<Arc<Self>> {
        if tracer.is_none() && !is_logged {
            return None;
        }
        let caller = TraceContext::of(headers);
        let Some(tracer) = tracer else {
            let began = (UnixMillis(0), Instant::now());
            return caller.map(|context| Arc::new(Self { tracer: None, context, parent: None, began }));
        };
        let chance = u32::from_ne_bytes(random()?);
        let trace = match &caller {
            Some(caller) => caller.trace,
            None => TraceId::from_bytes(random()?),
        };
        let is_sampled = tracer.records(caller.as_ref(), chance);
        Some(Arc::new(Self {
            context: TraceContext { trace, span: SpanId::from_bytes(random()?), is_sampled },
            parent: caller.map(|caller| caller.span),
            began: (tracer.clock.now(), Instant::now()),
            tracer: Some(tracer.clone()),
        }))
    }

    /// The trace's id.
    pub fn id(&self) -> TraceId {
        self.context.trace
    }

    /// The trace's id, if the collector gets its spans.
    pub fn recorded_id(&self) -> Option<TraceId> {
        self.recorder().map(|_| self.id())
    }

    /// Begins the span of a call to the upstream for this request; `None` where neither a collector nor the
    /// upstream gets it.
    pub fn client_span(&self) -> Option<OpenClientSpan<'_>> {
        self.tracer.as_ref()?;
        let context = TraceContext { span: SpanId::from_bytes(random()?), ..self.context };
        Some(OpenClientSpan { trace: self, context, began: Instant::now() })
    }

    fn recorder(&self) -> Option<&Arc<Tracer>> {
        self.tracer.as_ref().filter(|_| self.context.is_sampled)
    }
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes)
}
