//! One line for each request, written off its thread: no path, no query string, no body, no
//! credential.
//!
//! Lines gather in memory and go out together some milliseconds later. A slow disk must hold up
//! nobody, so what finds no room is dropped and counted. What must not be lost is the audit's.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use opentelemetry::trace::TraceId;
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

use crate::clock::UnixMillis;
use crate::config::{Log, LogFormat, LogTo};

/// How long lines gather before they are written.
const GATHERED_FOR: Duration = Duration::from_millis(10);
/// Bytes that wait for the writer in each shard.
const MOST_WAITING: usize = 256 * 1024;
/// Threads that gather in places of their own, so that they do not wait for one another.
const SHARDS: usize = 16;

/// What a line says. The order is the line's.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    #[serde(serialize_with = "rfc3339")]
    pub timestamp: UnixMillis,
    pub level: &'static str,
    pub target: &'static str,
    pub request_id: &'a str,
    /// The trace it belongs to: the caller's, or one of ours.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub trace_id: Option<TraceId>,
    pub method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'static str>,
    pub status: u16,
    pub duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<&'a str>,
    /// The cache's outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'a str>,
}

fn rfc3339<S: serde::Serializer>(time: &UnixMillis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&jiff::Timestamp::from_millisecond(time.0).unwrap_or_default())
}

fn as_text<S: serde::Serializer>(id: &Option<TraceId>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_none(),
    }
}

/// Takes lines. Lets its thread go when it is dropped, with all that was gathered written.
pub struct AccessLog {
    gathered: Option<Arc<Gathered>>,
    writer: Option<Thread>,
    format: LogFormat,
}

struct Gathered {
    shards: [Mutex<Vec<u8>>; SHARDS],
    sink: Mutex<Box<dyn Write + Send>>,
    has_ended: AtomicBool,
    dropped: Counter,
}

impl AccessLog {
    /// Opens what `log` names, anew each time: a file that was moved away is made again. `dropped`
    /// counts the lines that were not written.
    pub fn open(log: &Log, dropped: Counter) -> io::Result<Self> {
        if !log.access {
            return Ok(Self { gathered: None, writer: None, format: log.format });
        }
        let sink: Box<dyn Write + Send> = match &log.access_to {
            LogTo::Stdout => Box::new(io::stdout()),
            LogTo::File(path) => {
                Box::new(OpenOptions::new().append(true).create(true).mode(0o600).open(path)?)
            }
        };
        let gathered = Arc::new(Gathered {
            shards: Default::default(),
            sink: Mutex::new(sink),
            has_ended: AtomicBool::new(false),
            dropped,
        });
        let writing = gathered.clone();
        let thread =
            std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writing.write())?;
        Ok(Self { gathered: Some(gathered), writer: Some(thread.thread().clone()), format: log.format })
    }

    pub fn is_on(&self) -> bool {
        self.gathered.is_some()
    }

    /// Takes a line, or counts it as dropped.
    pub fn take(&self, line: &Line<'_>) {
        let (Some(gathered), Some(writer)) = (&self.gathered, &self.writer) else { return };
        let mut lines = locked(gathered.shard());
        if lines.len() >= MOST_WAITING {
            gathered.dropped.inc();
            return;
        }
        let is_first = lines.is_empty();
        // Writing to memory fails for want of memory only.
        let _ = match self.format {
            LogFormat::Json => serde_json::to_writer(&mut *lines, line).map_err(io::Error::from),
            LogFormat::Text => text(&mut lines, line),
        };
        lines.push(b'\n');
        drop(lines);
        if is_first {
            writer.unpark();
        }
    }

    /// Writes what has been gathered, now.
    pub fn flush(&self) {
        if let Some(gathered) = &self.gathered {
            gathered.write_out();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        if let (Some(gathered), Some(writer)) = (&self.gathered, &self.writer) {
            gathered.has_ended.store(true, Ordering::Release);
            writer.unpark();
        }
    }
}

impl Gathered {
    /// The place of this thread.
    fn shard(&self) -> &Mutex<Vec<u8>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static PLACE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
        }
        &self.shards[PLACE.with(|place| *place)]
    }

    /// The writer's thread.
    fn write(&self) {
        loop {
            let ends = self.has_ended.load(Ordering::Acquire);
            self.write_out();
            if ends {
                return;
            }
            std::thread::park();
            std::thread::sleep(GATHERED_FOR);
        }
    }

    fn write_out(&self) {
        let mut sink = locked(&self.sink);
        for shard in &self.shards {
            let lines = std::mem::take(&mut *locked(shard));
            if !lines.is_empty() && sink.write_all(&lines).and_then(|()| sink.flush()).is_err() {
                let lost = lines.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.inc_by(lost as u64);
            }
        }
    }
}

/// As people read it: the members of the JSON line, without what is always the same.
fn text(out: &mut Vec<u8>, line: &Line<'_>) -> io::Result<()> {
    let time = jiff::Timestamp::from_millisecond(line.timestamp.0).unwrap_or_default();
    let Line { level, target, request_id, method, status, duration_ms, .. } = line;
    write!(out, "{time}  {level} {target}: request_id={request_id:?} ")?;
    if let Some(trace_id) = line.trace_id {
        write!(out, "trace_id=\"{trace_id}\" ")?;
    }
    write!(out, "method={method:?} status={status} ")?;
    write!(out, "duration_ms={duration_ms}")?;
    let more = [("route", line.route), ("client", line.client), ("cache", line.cache)];
    for (name, value) in more.into_iter().chain([("error", line.error), ("cause", line.cause)]) {
        if let Some(value) = value {
            write!(out, " {name}={value:?}")?;
        }
    }
    Ok(())
}

/// A line is appended whole or not at all, so a panic elsewhere spoils none.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(request_id: &str) -> Line<'_> {
        Line {
            timestamp: UnixMillis(1_771_200_000_000),
            level: "INFO",
            target: "access",
            request_id,
            trace_id: None,
            method: "GET",
            route: Some("conversation"),
            status: 200,
            duration_ms: 0.25,
            client: Some("a \"client\""),
            cache: Some("hit"),
            error: None,
            cause: None,
        }
    }

    fn log(format: LogFormat, path: &std::path::Path) -> (AccessLog, Counter) {
        let dropped = Counter::default();
        let log =
            Log { level: "info".to_owned(), format, access: true, access_to: LogTo::File(path.to_owned()) };
        (AccessLog::open(&log, dropped.clone()).expect("a file"), dropped)
    }

    #[test]
    fn every_line_of_every_thread_is_written_whole() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let (log, dropped) = log(LogFormat::Json, file.path());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let log = &log;
                scope.spawn(move || (0..100).for_each(|n| log.take(&line(&format!("r-{thread}-{n}")))));
            }
        });
        log.flush();
        let written = std::fs::read_to_string(file.path()).expect("text");
        let mut ids: Vec<String> = written
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"))
            .map(|line| line["request_id"].as_str().expect("an id").to_owned())
            .collect();
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), dropped.get()), (400, 0));
        assert!(
            written.starts_with(r#"{"timestamp":"2026-02-16T00:00:00Z","level":"INFO""#),
            "{written:.80}"
        );
    }

    #[test]
    fn what_finds_no_room_and_what_a_full_disk_refuses_is_counted() {
        let full = std::path::Path::new("/dev/full");
        let (log, dropped) = log(LogFormat::Text, full);
        for _ in 0..10 {
            log.take(&line("r"));
        }
        log.flush();
        // The writer may have been faster than the flush; both count.
        let sink = locked(&log.gathered.as_ref().expect("it is on").sink);
        assert_eq!(dropped.get(), 10);
        // Nobody writes while the sink is held: what comes now can only gather.
        let room = MOST_WAITING / 64;
        (0..room).for_each(|_| log.take(&line("r")));
        assert!(dropped.get() > 10, "{}", dropped.get());
        drop(sink);
    }
}
