//! Traces: which one a request belongs to (W3C Trace Context), and what a collector is told of it
//! (OpenTelemetry's OTLP).
//!
//! A span says what an access line says. Ids of conversations and accounts, keys, paths, query strings
//! and bodies are in none, so `url.path` and `url.full` are left out, against the conventions.

mod context;
mod export;
mod span;

use std::sync::Arc;
use std::time::Instant;

use http::request;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use prometheus_client::metrics::counter::Counter;

use crate::clock::{Clock, UnixMillis};
use crate::config::Tracing;
use crate::observe::metrics::Metrics;

pub use context::{Context, TRACEPARENT};
use export::Export;
pub use export::NotMade;
pub use span::{Asked, Attempt, Call};

/// Decides what is recorded, and takes the spans of it.
pub struct Tracer {
    config: Tracing,
    export: Export,
    dropped: Counter,
    clock: Clock,
}

impl Tracer {
    /// Tells the collector that `config` names, in a task that ends with this; none without one.
    /// `previous` goes on where it does the same.
    pub fn start(
        config: &Tracing,
        clock: &Clock,
        metrics: &Metrics,
        previous: Option<&Arc<Self>>,
    ) -> Result<Option<Arc<Self>>, NotMade> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        if let Some(same) = previous.filter(|previous| previous.config == *config) {
            return Ok(Some(same.clone()));
        }
        let (exported, dropped) = metrics.process.trace_spans();
        let export = Export::start(endpoint, config, clock, (exported, dropped.clone()))?;
        Ok(Some(Arc::new(Self { config: config.clone(), export, dropped, clock: clock.clone() })))
    }

    /// Takes no more, and tells the collector what is left, as far as it takes that in time.
    pub async fn finish(&self) {
        self.export.finish(self.config.timeout).await;
    }

    /// Whether a request is recorded, whose caller belongs to `caller`.
    fn records(&self, caller: Option<&Context>, chance: u32) -> bool {
        match caller {
            Some(caller) if self.config.follow_callers => caller.is_sampled,
            // One more than there are chances: at 1 it is all of them, at 0 none.
            _ => f64::from(chance) < self.config.ratio * (f64::from(u32::MAX) + 1.0),
        }
    }

    /// Never waits: a request must not pay for a collector that is slow.
    fn take(&self, span: SpanData) {
        if !self.export.take(span) {
            self.dropped.inc();
        }
    }
}

/// A request's place in its trace.
pub struct Trace {
    /// Nobody: the trace is its caller's alone.
    tracer: Option<Arc<Tracer>>,
    /// Of the request itself.
    context: Context,
    /// What it is below: its caller's span.
    parent: Option<SpanId>,
    began: (UnixMillis, Instant),
}

impl Trace {
    /// Of a request that has just come. None where nobody asks for one: there is no `tracer`, and either
    /// its caller has none, or it would not be `noted`.
    pub fn begin(tracer: Option<&Arc<Tracer>>, noted: bool, head: &request::Parts) -> Option<Arc<Self>> {
        if tracer.is_none() && !noted {
            return None;
        }
        let caller = Context::of(&head.headers);
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
            context: Context { trace, span: SpanId::from_bytes(random()?), is_sampled },
            parent: caller.map(|caller| caller.span),
            began: (tracer.clock.now(), Instant::now()),
            tracer: Some(tracer.clone()),
        }))
    }

    /// What finds it among others.
    pub fn id(&self) -> TraceId {
        self.context.trace
    }

    /// The same, if somebody can look at it.
    pub fn recorded_id(&self) -> Option<TraceId> {
        self.recorder().map(|_| self.id())
    }

    /// A call to the upstream on this request's behalf begins; none where nothing is to be told of it,
    /// neither to a collector nor to the upstream.
    pub fn call(&self) -> Option<Call<'_>> {
        self.tracer.as_ref()?;
        let context = Context { span: SpanId::from_bytes(random()?), ..self.context };
        Some(Call { trace: self, context, began: Instant::now() })
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
