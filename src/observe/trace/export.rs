//! The way of spans to a collector: a bounded queue, batches, and a time for each to be taken in.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prometheus_client::metrics::counter::Counter;
use reqwest::Url;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Tracing;
use crate::observe::metrics::VERSION;

/// How long spans gather before they go out together.
const GATHERED_FOR: Duration = Duration::from_secs(1);
/// Spans that go out together at most: some half a megabyte.
const MOST_TOGETHER: usize = 512;

/// The end of the way that takes spans.
pub struct Export {
    spans: mpsc::Sender<SpanData>,
    finishing: CancellationToken,
    running: Mutex<Option<JoinHandle<()>>>,
}

/// A collector cannot be spoken to: there are no certificates to trust, or its URL is none.
pub type NotMade = Box<dyn std::error::Error + Send + Sync>;

impl Export {
    /// Tells the collector at `endpoint`, in a task that ends when this is dropped.
    pub fn start(
        endpoint: &Url,
        config: &Tracing,
        clock: &Clock,
        (exported, dropped): (Counter, Counter),
    ) -> Result<Self, NotMade> {
        let (spans, queue) = mpsc::channel(config.queue);
        let finishing = CancellationToken::new();
        let collector = Collector {
            exporter: exporter(endpoint, config)?,
            timeout: config.timeout,
            exported,
            dropped,
            takes_spans: true,
        };
        let running = tokio::spawn(pass_on(queue, collector, clock.clone(), finishing.clone()));
        Ok(Self { spans, finishing, running: Mutex::new(Some(running)) })
    }

    /// Whether there was room for it.
    pub fn take(&self, span: SpanData) -> bool {
        self.spans.try_send(span).is_ok()
    }

    /// Takes no more, and waits until what there is has gone out; at most for so long.
    pub async fn finish(&self, within: Duration) {
        self.finishing.cancel();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            // What is late is lost with the process.
            let _ = tokio::time::timeout(within, running).await;
        }
    }
}

/// Passes spans on until there will be no more.
async fn pass_on(
    mut queue: mpsc::Receiver<SpanData>,
    mut collector: Collector,
    clock: Clock,
    finishing: CancellationToken,
) {
    let mut batch = Vec::new();
    loop {
        // One, to begin with; then those that come soon after it.
        tokio::select! {
            () = finishing.cancelled() => queue.close(),
            _ = queue.recv_many(&mut batch, MOST_TOGETHER) => {}
        }
        let mut gathered = std::pin::pin!(clock.sleep(GATHERED_FOR));
        while batch.len() < MOST_TOGETHER {
            let room = MOST_TOGETHER - batch.len();
            tokio::select! {
                biased;
                more = queue.recv_many(&mut batch, room) => if more == 0 { break },
                () = finishing.cancelled(), if !queue.is_closed() => queue.close(),
                () = &mut gathered => break,
            }
        }
        if batch.is_empty() {
            return;
        }
        collector.tell(std::mem::take(&mut batch)).await;
    }
}

struct Collector {
    exporter: opentelemetry_otlp::SpanExporter,
    timeout: Duration,
    exported: Counter,
    dropped: Counter,
    /// As far as is known.
    takes_spans: bool,
}

impl Collector {
    async fn tell(&mut self, batch: Vec<SpanData>) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let told = tokio::time::timeout(self.timeout, self.exporter.export(batch)).await;
        let problem = match told {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it did not answer in time".to_owned()),
        };
        if problem.is_none() {
            self.exported.inc_by(count)
        } else {
            self.dropped.inc_by(count)
        };
        let took_spans = std::mem::replace(&mut self.takes_spans, problem.is_none());
        match problem {
            Some(problem) if took_spans => tracing::warn!(%problem, "the collector takes no spans"),
            None if !took_spans => tracing::info!("the collector takes spans again"),
            _ => {}
        }
    }
}

fn exporter(endpoint: &Url, config: &Tracing) -> Result<opentelemetry_otlp::SpanExporter, NotMade> {
    let mut http = reqwest::Client::builder()
        .user_agent(concat!("kore-gateway/", env!("CARGO_PKG_VERSION")))
        .timeout(config.timeout)
        // A batch now and then, each over a connection of its own: one that is kept would go to where the
        // collector was once, for as long as somebody answers there.
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    if endpoint.scheme() == "http" {
        // There is nobody to trust.
        http = http.tls_certs_only([]);
    } else if let Some(pem) = &config.ca {
        http = http.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
    }
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(http.build()?)
        .with_endpoint(endpoint.as_str())
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(config.timeout)
        .build()?;
    let name = [KeyValue::new("service.name", "kore-gateway"), KeyValue::new("service.version", VERSION)];
    exporter.set_resource(&Resource::builder_empty().with_attributes(name).build());
    Ok(exporter)
}
