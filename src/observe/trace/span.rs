//! The attributes of spans, under the names of OpenTelemetry's conventions for HTTP.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Version};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Trace, TraceContext};

/// A request and its result: the attributes of a server span.
pub struct ServerSpan<'a> {
    /// One of the known methods, or `_OTHER`.
    pub method: &'static str,
    /// The pattern of its path.
    pub route: Option<&'static str>,
    pub is_tls: bool,
    pub version: Version,
    /// `None`: the caller left before there was an answer.
    pub status: Option<u16>,
    pub client: Option<&'a str>,
    pub outcome: Option<&'static str>,
    /// The kind of an error of the gateway's own.
    pub error: Option<&'static str>,
}

/// A call to the upstream and its result: the attributes of a client span.
pub struct ClientSpan<'a> {
    pub method: &'a str,
    /// The pattern of its path.
    pub route: &'static str,
    /// The base URL it went to.
    pub base: &'a str,
    /// `None`: no answer came.
    pub status: Option<u16>,
    pub result: &'static str,
    /// Why none came.
    pub error: Option<&'static str>,
    /// How many calls were made for the same request before it.
    pub before: u32,
}

/// The span of a call to the upstream that has not ended yet.
pub struct OpenClientSpan<'a> {
    pub(super) trace: &'a Trace,
    pub(super) context: TraceContext,
    pub(super) began: Instant,
}

impl Trace {
    /// Records the request's span; it ends now.
    pub fn end(&self, request: &ServerSpan<'_>) {
        let Some(tracer) = self.recorder() else { return };
        let mut attributes = vec![
            KeyValue::new("http.request.method", request.method),
            KeyValue::new("url.scheme", if request.is_tls { "https" } else { "http" }),
        ];
        let mut note = |name: &'static str, value: Option<Value>| {
            attributes.extend(value.map(|value| KeyValue::new(name, value)));
        };
        note("network.protocol.version", version(request.version).map(Value::from));
        note("http.route", request.route.map(Value::from));
        note("http.response.status_code", request.status.map(|status| i64::from(status).into()));
        note("kore_gateway.client", request.client.map(|client| client.to_owned().into()));
        note("kore_gateway.cache.outcome", request.outcome.map(Value::from));
        // A refused request is not a failure of the server.
        let failed = match request.status {
            None => Some("unanswered".into()),
            Some(status) if status >= 500 => {
                Some(request.error.map_or_else(|| status.to_string().into(), Value::from))
            }
            Some(_) => None,
        };
        let status = if failed.is_some() { Status::error("") } else { Status::Unset };
        note("error.type", failed);
        let name = name(request.method, request.route);
        let span = self.span(&self.context, self.parent, SpanKind::Server, name, self.began.1);
        tracer.take(SpanData { parent_span_is_remote: self.parent.is_some(), attributes, status, ..span });
    }

    /// A span of this trace that ends now.
    fn span(
        &self,
        context: &TraceContext,
        parent: Option<SpanId>,
        span_kind: SpanKind,
        name: Cow<'static, str>,
        began: Instant,
    ) -> SpanData {
        let flags = if context.is_sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        let (trace, span) = (context.trace, context.span);
        SpanData {
            span_context: SpanContext::new(trace, span, flags, false, TraceState::NONE),
            parent_span_id: parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: false,
            span_kind,
            name,
            start_time: self.time(began),
            end_time: self.time(Instant::now()),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    /// The wall-clock time of a moment of the request. All moments are measured on one clock, so that a child span
    /// lies within its parent.
    fn time(&self, moment: Instant) -> SystemTime {
        let (wall, began) = self.began;
        let since_epoch = Duration::from_millis(u64::try_from(wall.0).unwrap_or_default());
        UNIX_EPOCH + since_epoch + moment.saturating_duration_since(began)
    }
}

impl OpenClientSpan<'_> {
    /// `traceparent` for the upstream.
    pub fn header(&self) -> Option<HeaderValue> {
        self.context.header()
    }

    /// Records the call's span; it ends now.
    pub fn end(self, call: &ClientSpan<'_>) {
        let Some(tracer) = self.trace.recorder() else { return };
        let mut attributes = vec![
            KeyValue::new("http.request.method", call.method.to_owned()),
            KeyValue::new("url.template", call.route),
            KeyValue::new("kore_gateway.upstream.result", call.result),
        ];
        let mut note = |name: &'static str, value: Option<Value>| {
            attributes.extend(value.map(|value| KeyValue::new(name, value)));
        };
        let base = reqwest::Url::parse(call.base).ok();
        let host = base.as_ref().and_then(reqwest::Url::host_str);
        note("server.address", host.map(|host| host.to_owned().into()));
        let port = base.as_ref().and_then(reqwest::Url::port_or_known_default);
        note("server.port", port.map(|port| i64::from(port).into()));
        note("http.response.status_code", call.status.map(|status| i64::from(status).into()));
        note("http.request.resend_count", (call.before > 0).then(|| i64::from(call.before).into()));
        let failed = match call.status {
            None => Some(call.error.unwrap_or(call.result).into()),
            Some(status) if status >= 400 => Some(status.to_string().into()),
            Some(_) => None,
        };
        let status = if failed.is_some() { Status::error("") } else { Status::Unset };
        note("error.type", failed);
        let parent = Some(self.trace.context.span);
        let name = name(call.method, Some(call.route));
        let span = self.trace.span(&self.context, parent, SpanKind::Client, name, self.began);
        tracer.take(SpanData { attributes, status, ..span });
    }
}

fn name(method: &str, route: Option<&str>) -> Cow<'static, str> {
    // The conventions' word for a method that is none.
    let method = if method == "_OTHER" { "HTTP" } else { method };
    route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}")).into()
}

/// As the conventions spell it.
fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}
