//! A collector of spans on a real socket: what OTLP over HTTP brought, decoded; and its ways of failing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::sync::watch;

/// What a collector does with what it gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    Takes,
    Refuses,
    /// Takes the connection and the bytes, and never answers.
    Hangs,
}

/// A collector that listens as long as it is held.
pub struct Collector {
    pub address: SocketAddr,
    mood: watch::Sender<Mood>,
    taken: Arc<Mutex<Taken>>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Taken {
    spans: Vec<Span>,
    /// As they came, taken or not.
    bodies: Vec<Bytes>,
    headers: Vec<HeaderMap>,
    resource: BTreeMap<String, String>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Collector {
    pub async fn start() -> Self {
        let (mood, moods) = watch::channel(Mood::Takes);
        let taken = Arc::<Mutex<Taken>>::default();
        let keeps = taken.clone();
        let take = async move |headers: HeaderMap, body: Bytes| {
            let mut moods = moods.clone();
            keeps.lock().unwrap().take(headers, body, *moods.borrow());
            // Hangs until that changes.
            let mood = *moods.wait_for(|mood| *mood != Mood::Hangs).await.unwrap();
            if mood == Mood::Takes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/v1/traces", post(take));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, mood, taken, serving }
    }

    /// Lines of `[tracing]` that lead here.
    pub fn config(&self, ratio: f64) -> String {
        format!("tracing.endpoint = \"http://{}\"\ntracing.ratio = {ratio:?}\n", self.address)
    }

    pub fn is(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Requests that came, whatever became of them.
    pub fn count(&self) -> usize {
        self.taken.lock().unwrap().bodies.len()
    }

    pub fn bodies(&self) -> Vec<u8> {
        self.taken.lock().unwrap().bodies.concat()
    }

    pub fn headers(&self) -> Vec<HeaderMap> {
        self.taken.lock().unwrap().headers.clone()
    }

    /// Who the spans are from.
    pub fn resource(&self) -> BTreeMap<String, String> {
        self.taken.lock().unwrap().resource.clone()
    }

    /// Spans that were taken, in the order in which they ended.
    pub fn spans(&self) -> Vec<Span> {
        self.taken.lock().unwrap().spans.clone()
    }
}

impl Taken {
    fn take(&mut self, headers: HeaderMap, body: Bytes, mood: Mood) {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        self.headers.push(headers);
        self.bodies.push(body.clone());
        if mood != Mood::Takes {
            return;
        }
        let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            self.resource
                .extend(attributes.into_iter().map(|pair| (pair.key, text(pair.value.unwrap().value))));
            self.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
}

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

/// What a span says of itself.
pub fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let pairs = span.attributes.iter();
    pairs.map(|pair| (pair.key.as_str(), text(pair.value.clone().unwrap().value))).collect()
}
