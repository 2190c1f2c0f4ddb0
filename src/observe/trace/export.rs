//! Sends spans to a collector: a bounded queue, batches, and a timeout for each batch.

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

/// How long a batch waits for more spans.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// Spans of one batch at most: some half a megabyte.
const MAX_BATCH: usize = 512;

/// The queue of spans, and the task that sends them.
pub struct Export {
    spans: mpsc::Sender<SpanData>,
    finishing: CancellationToken,
    running: Mutex<Option<JoinHandle<()>>>,
}

/// No exporter can be made: there are no certificates to trust, or the URL is invalid.
pub type ExporterError = Box<dyn std::error::Error + Send + Sync>;

impl Export {
    /// Sends to the collector at `endpoint`, in a task that ends when this is dropped.
    pub fn start(
        endpoint: &Url,
        config: &Tracing,
        clock: &Clock,
        (exported, dropped): (Counter, Counter),
    ) -> Result<Self, ExporterError> {
        let (spans, queue) = mpsc::channel(config.queue);
        let finishing = CancellationToken::new();
        let collector = Collector {
            exporter: exporter(endpoint, config)?,
            timeout: config.timeout,
            exported,
            dropped,
            is_reachable: true,
        };
        let running = tokio::spawn(send_batches(queue, collector, clock.clone(), finishing.clone()));
        Ok(Self { spans, finishing, running: Mutex::new(Some(running)) })
    }

    /// Adds a span to the queue. Whether there was room for it.
    pub fn take(&self, span: SpanData) -> bool {
        self.spans.try_send(span).is_ok()
    }

    /// Closes the queue, and waits until the rest of it is sent; at most `within`.
    pub async fn finish(&self, within: Duration) {
        self.finishing.cancel();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            // What is sent later is lost with the process.
            let _ = tokio::time::timeout(within, running).await;
        }
    }
}

/// Sends spans until the queue is closed and empty.
async fn send_batches(
    mut queue: mpsc::Receiver<SpanData>,
    mut collector: Collector,
    clock: Clock,
    finishing: CancellationToken,
) {
    let mut batch = Vec::new();
    loop {
        // Waits for a first span, then for those that come soon after it.
        tokio::select! {
            () = finishing.cancelled() => queue.close(),
            _ = queue.recv_many(&mut batch, MAX_BATCH) => {}
        }
        let mut delay = std::pin::pin!(clock.sleep(BATCH_DELAY));
        while batch.len() < MAX_BATCH {
            let room = MAX_BATCH - batch.len();
            tokio::select! {
                biased;
                more = queue.recv_many(&mut batch, room) => if more == 0 { break },
                () = finishing.cancelled(), if !queue.is_closed() => queue.close(),
                () = &mut delay => break,
            }
        }
        if batch.is_empty() {
            return;
        }
        collector.send(std::mem::take(&mut batch)).await;
    }
}

struct Collector {
    exporter: opentelemetry_otlp::SpanExporter,
    timeout: Duration,
    exported: Counter,
    dropped: Counter,
    /// Whether it took the last batch.
    is_reachable: bool,
}

impl Collector {
    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let sent = tokio::time::timeout(self.timeout, self.exporter.export(batch)).await;
        let problem = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it did not answer within tracing.timeout".to_owned()),
        };
        if problem.is_none() {
            self.exported.inc_by(count)
        } else {
            self.dropped.inc_by(count)
        };
        let was_reachable = std::mem::replace(&mut self.is_reachable, problem.is_none());
        match problem {
            Some(problem) if was_reachable => tracing::warn!(%problem, "the collector takes no spans"),
            None if !was_reachable => tracing::info!("the collector takes spans again"),
            _ => {}
        }
    }
}

fn exporter(endpoint: &Url, config: &Tracing) -> Result<opentelemetry_otlp::SpanExporter, ExporterError> {
    let mut http = reqwest::Client::builder()
        .user_agent(concat!("kore-gateway/", env!("CARGO_PKG_VERSION")))
        .timeout(config.timeout)
        // Batches are rare, so each has a connection of its own. A kept connection would stay with the
        // collector's old address for as long as something answers there.
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    if endpoint.scheme() == "http" {
        // No certificate is needed.
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
