//! The audit: one line of JSON for each body that leaves, saying who got it, without the body.
//!
//! A line is on the disk before its body is sent. A thread of its own writes all waiting lines with one write and one
//! sync. A line that cannot be written is counted, and with `audit.refuse_on_failure` its body is not sent.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::config::{self, AuditTo};
use crate::error::{Error, Kind};
use crate::observe::lines::open_to_append;
use crate::observe::metrics::Metrics;

/// Lines that may wait for the thread; one more waits for room.
const MAX_WAITING: usize = 1024;
/// Lines of one write, and of one sync.
const MAX_BATCH: usize = MAX_WAITING;

/// What a line says. The order of the fields is that of the line.
#[derive(Debug, Serialize)]
pub struct AuditRecord<'a> {
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

/// Takes records. It costs nothing where the audit is off.
pub struct Audit {
    to: AuditTo,
    lines: Option<mpsc::Sender<AuditLine>>,
    refuses: bool,
    timeout: Duration,
    written: Counter,
    failed: Counter,
}

struct AuditLine {
    text: Vec<u8>,
    written: oneshot::Sender<bool>,
}

impl Audit {
    /// Opens what `config` names, anew each time: a file that was moved away is made again. Standard
    /// output cannot be moved away, and stays with the thread of `previous`.
    pub fn open(config: &config::Audit, metrics: &Metrics, previous: Option<&Self>) -> io::Result<Self> {
        let kept = previous.filter(|previous| config.to == AuditTo::Stdout && previous.to == AuditTo::Stdout);
        let lines = match kept.and_then(|previous| previous.lines.clone()) {
            Some(lines) => Some(lines),
            None => Self::start(config)?,
        };
        let (written, failed) = metrics.process.audit();
        let (to, timeout) = (config.to.clone(), config.timeout);
        Ok(Self { to, lines, refuses: config.refuse_on_failure, timeout, written, failed })
    }

    /// A thread that writes to what `config` names; none where that is nowhere.
    fn start(config: &config::Audit) -> io::Result<Option<mpsc::Sender<AuditLine>>> {
        let sink: Option<Box<dyn Sink>> = match &config.to {
            AuditTo::Nowhere => None,
            AuditTo::Stdout => Some(Box::new(io::stdout())),
            AuditTo::File(path) => Some(Box::new(AppendOnly::open(path, config.sync)?)),
        };
        let Some(sink) = sink else { return Ok(None) };
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || write_lines(receiver, sink))?;
        Ok(Some(sender))
    }

    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Writes a record; an error if it could not be written and its body must not be sent.
    pub async fn record(&self, record: &AuditRecord<'_>) -> Result<(), Error> {
        let Some(lines) = &self.lines else { return Ok(()) };
        let written = async {
            let mut text = serde_json::to_vec(record).ok()?;
            text.push(b'\n');
            let (sender, written) = oneshot::channel();
            lines.send(AuditLine { text, written: sender }).await.ok()?;
            written.await.ok().filter(|written| *written)
        };
        // A request waits for a slow disk no longer than `audit.timeout`.
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

/// Where lines are written to.
trait Sink: Send {
    /// Whether it ends in the middle of a line.
    fn is_torn(&self) -> bool {
        false
    }

    /// Writes all lines, durably where that was asked for.
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;
}

impl Sink for io::Stdout {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.write_all(lines)?;
        self.flush()
    }
}

/// A file that only grows.
struct AppendOnly {
    file: File,
    sync: bool,
    is_torn: bool,
}

impl AppendOnly {
    fn open(path: &Path, sync: bool) -> io::Result<Self> {
        let file = open_to_append(path)?;
        // Pipes and devices keep nothing that could be synced or looked at.
        let is_file = file.metadata()?.is_file();
        Ok(Self { sync: sync && is_file, is_torn: is_file && ends_in_a_line(path)?, file })
    }
}

/// Whether the last line of a file has no newline: the machine stopped while it was written.
fn ends_in_a_line(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}

impl Sink for AppendOnly {
    fn is_torn(&self) -> bool {
        self.is_torn
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)?;
        if self.sync { self.file.sync_data() } else { Ok(()) }
    }
}

/// Ends when all senders are gone.
fn write_lines(mut lines: mpsc::Receiver<AuditLine>, mut sink: Box<dyn Sink>) {
    let (mut is_torn, mut has_failed) = (sink.is_torn(), false);
    while let Some(first) = lines.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(line) = lines.try_recv()
        {
            batch.push(line);
        }
        // A failed write may have left a part of a line: a newline ends it.
        let mut text = if is_torn { vec![b'\n'] } else { Vec::new() };
        batch.iter().for_each(|line| text.extend_from_slice(&line.text));
        let written = sink.write(&text);
        if let Err(error) = &written
            && !has_failed
        {
            tracing::error!(%error, "the audit cannot be written");
        }
        has_failed = written.is_err();
        is_torn = has_failed;
        for line in batch {
            // A request that no longer waits has counted it already.
            let _ = line.written.send(!has_failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A disk with room for so many bytes; then none, then room again.
    struct Disk {
        written: Arc<Mutex<Vec<u8>>>,
        rooms: Vec<usize>,
    }

    impl Sink for Disk {
        fn write(&mut self, lines: &[u8]) -> io::Result<()> {
            let room = self.rooms.pop().unwrap_or(usize::MAX);
            let fits = lines.len().min(room);
            self.written.lock().expect("no panic").extend_from_slice(&lines[..fits]);
            if fits < lines.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    #[test]
    fn a_line_that_was_cut_by_a_full_disk_is_ended_before_the_next() {
        let written = Arc::default();
        let disk = Disk { written: Arc::clone(&written), rooms: vec![5, usize::MAX] };
        let (sender, receiver) = mpsc::channel(10);
        let thread = std::thread::spawn(move || write_lines(receiver, Box::new(disk)));
        let outcomes: Vec<bool> = ["first", "second", "third"]
            .into_iter()
            .map(|text| {
                let (done, outcome) = oneshot::channel();
                let text = format!("{text}\n").into_bytes();
                assert!(sender.blocking_send(AuditLine { text, written: done }).is_ok());
                outcome.blocking_recv().expect("an outcome")
            })
            .collect();
        drop(sender);
        thread.join().expect("no panic");
        assert_eq!(outcomes, [true, false, true]);
        assert_eq!(*written.lock().expect("no panic"), b"first\nsecon\nthird\n");
    }
}
