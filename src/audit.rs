//! Who was handed what: one line of JSON for each body that leaves, never the body.
//!
//! A line is written before its body is handed out, by a thread of its own that takes what has
//! gathered in one write. A line that cannot be written is counted, and if so configured its body is
//! not handed out.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::config::{self, AuditTo};
use crate::error::{Error, Kind};
use crate::metrics::Metrics;

/// Lines that wait for the thread; whoever comes then waits for room.
const MOST_WAITING: usize = 1024;
/// Lines of one write.
const MOST_AT_ONCE: usize = 256;

/// What is known of a body that is handed out. The order is that of the line.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    /// RFC 3339.
    pub time: String,
    pub request_id: &'a str,
    pub client: &'a str,
    /// The first digits of the key's SHA-256, or the token's subject.
    pub who: &'a str,
    pub address: std::net::IpAddr,
    pub route: &'static str,
    pub account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bot: Option<&'a str>,
    /// Of the conversation, session or call asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// First moment and the first one after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<[String; 2]>,
    pub status: u16,
    pub outcome: &'static str,
    /// The profiles it was shown through.
    pub redaction: Vec<&'a str>,
    pub own_rows_only: bool,
}

/// Takes records. Cheap to ask where nothing is audited.
pub struct Audit {
    lines: Option<mpsc::Sender<Line>>,
    refuses: bool,
    timeout: Duration,
    written: Counter,
    failed: Counter,
}

struct Line {
    text: Vec<u8>,
    written: oneshot::Sender<bool>,
}

impl Audit {
    /// Opens what `config` names, anew each time: a file that was moved away is made again.
    pub fn open(config: &config::Audit, metrics: &Metrics) -> io::Result<Self> {
        let (written, failed) = metrics.audit();
        let sink: Option<Box<dyn Write + Send>> = match &config.to {
            AuditTo::Nowhere => None,
            AuditTo::Stdout => Some(Box::new(io::stdout())),
            AuditTo::File(path) => Some(Box::new(append(path)?)),
        };
        let lines = match sink {
            None => None,
            Some(sink) => {
                let (sender, receiver) = mpsc::channel(MOST_WAITING);
                std::thread::Builder::new()
                    .name("audit".to_owned())
                    .spawn(move || write_lines(receiver, sink))?;
                Some(sender)
            }
        };
        Ok(Self { lines, refuses: config.refuse_on_failure, timeout: config.timeout, written, failed })
    }

    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Writes a record; an error where it could not be written and its body must not be handed out.
    pub async fn record(&self, record: &Record<'_>) -> Result<(), Error> {
        let Some(lines) = &self.lines else { return Ok(()) };
        let written = async {
            let mut text = serde_json::to_vec(record).ok()?;
            text.push(b'\n');
            let (sender, written) = oneshot::channel();
            lines.send(Line { text, written: sender }).await.ok()?;
            written.await.ok().filter(|written| *written)
        };
        // Somebody else's disk can take its time; a caller's is his.
        match tokio::time::timeout(self.timeout, written).await {
            Ok(Some(_)) => {
                self.written.inc();
                Ok(())
            }
            _ => {
                self.failed.inc();
                let refused = Error::new(Kind::AuditUnavailable, "the answer cannot be audited")
                    .retry_after(self.timeout);
                if self.refuses { Err(refused) } else { Ok(()) }
            }
        }
    }
}

fn append(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Ends when nobody can send any more.
fn write_lines(mut lines: mpsc::Receiver<Line>, mut sink: Box<dyn Write + Send>) {
    let mut is_torn = false;
    while let Some(first) = lines.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < MOST_AT_ONCE
            && let Ok(line) = lines.try_recv()
        {
            batch.push(line);
        }
        // What a failed write has left of a line ends there.
        let mut text = if is_torn { vec![b'\n'] } else { Vec::new() };
        batch.iter().for_each(|line| text.extend_from_slice(&line.text));
        let written = sink.write_all(&text).and_then(|()| sink.flush());
        if let Err(error) = &written
            && !is_torn
        {
            tracing::error!(%error, "the audit cannot be written");
        }
        is_torn = written.is_err();
        for line in batch {
            // Whoever has stopped waiting has counted it already.
            let _ = line.written.send(!is_torn);
        }
    }
}
