//! One line for each request, written by another thread (`Lines`): no path, no query string, no body, no credential.
//! Lines may be dropped; what must not be lost belongs to the audit.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TraceId;
use prometheus_client::metrics::counter::Counter;
use serde::ser::Error as _;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::clock::UnixMillis;
use crate::config::{Log, LogFormat, LogTo};
use crate::error::calls::CallsMade;
use crate::observe::lines::{Lines, MAX_BUFFERED};

/// A line without a client is dropped once so many bytes wait: the rest of the room is for clients' lines.
const UNAUTHENTICATED_SHARE: usize = MAX_BUFFERED / 2;

/// What a line says. The order of the fields is that of the line.
#[derive(Debug, Serialize)]
pub struct AccessLine<'a> {
    #[serde(serialize_with = "as_text")]
    pub timestamp: UnixMillis,
    pub level: &'static str,
    pub target: &'static str,
    pub request_id: &'a str,
    /// The trace it belongs to: the caller's, or one of ours.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_optional_text")]
    pub trace_id: Option<TraceId>,
    pub method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'static str>,
    pub status: u16,
    pub duration_ms: Milliseconds,
    /// The caller's, if it is to be written and known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<&'a str>,
    /// How the cache was used ([`super::metrics::CacheOutcome`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<&'static str>,
    /// Of the request's own calls to the upstream: one that joined another request's call has none.
    #[serde(flatten, serialize_with = "upstream")]
    pub upstream: Option<&'a CallsMade>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// The name of the credential, account or base URL that the error is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concerns: Option<&'a str>,
    /// The underlying error, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
}

fn as_text<S: Serializer, T: Display>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_optional_text<S: Serializer, T: Display>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn upstream<S: Serializer>(calls: &Option<&CallsMade>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    if let Some(CallsMade { host, count, took }) = calls {
        map.serialize_entry("upstream_host", &**host)?;
        map.serialize_entry("upstream_calls", count)?;
        map.serialize_entry("upstream_ms", &Milliseconds(*took))?;
    }
    map.end()
}

/// Milliseconds as people read them: three digits after the point, always.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Milliseconds(pub Duration);

impl Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

/// A number of JSON, with its last zeros.
impl Serialize for Milliseconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// Takes lines.
pub struct AccessLog {
    lines: Option<Arc<Lines>>,
    to: LogTo,
    format: LogFormat,
}

impl AccessLog {
    /// Opens what `log` names, anew each time: a file that was moved away is made again. Standard output
    /// cannot be moved away, and stays with the writer of `previous`. `dropped` counts the lines that
    /// were not written.
    pub fn open(log: &Log, dropped: Counter, previous: Option<&Self>) -> io::Result<Self> {
        let kept = previous.filter(|previous| log.access_to == LogTo::Stdout && previous.to == LogTo::Stdout);
        let lines = match kept.and_then(|previous| previous.lines.clone()) {
            _ if !log.access => None,
            Some(lines) => Some(lines),
            None => Some(Arc::new(Lines::open("access-log", &log.access_to, dropped)?)),
        };
        Ok(Self { lines, to: log.access_to.clone(), format: log.format })
    }

    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Takes a line, or counts it as dropped.
    pub fn take(&self, line: &AccessLine<'_>) {
        let Some(lines) = &self.lines else { return };
        let share = if line.client.is_some() { MAX_BUFFERED } else { UNAUTHENTICATED_SHARE };
        lines.take_within(share, |lines| {
            // Writing to memory does not fail.
            let _ = match self.format {
                LogFormat::Json => serde_json::to_writer(&mut *lines, line).map_err(io::Error::from),
                LogFormat::Text => text(lines, line),
            };
            lines.push(b'\n');
        });
    }

    /// Writes what is buffered, and waits for it `at_most` so long. Whether it was written.
    pub fn flush(&self, at_most: Duration) -> bool {
        self.lines.as_ref().is_none_or(|lines| lines.flush(at_most))
    }
}

/// The members of the JSON line, as people read them.
fn text(out: &mut Vec<u8>, line: &AccessLine<'_>) -> io::Result<()> {
    let AccessLine { timestamp, level, target, request_id, method, status, duration_ms, .. } = line;
    write!(out, "{timestamp}  {level} {target}: request_id={request_id:?} ")?;
    if let Some(trace_id) = line.trace_id {
        write!(out, "trace_id=\"{trace_id}\" ")?;
    }
    write!(out, "method={method:?} status={status} ")?;
    write!(out, "duration_ms={duration_ms}")?;
    if let Some(address) = line.address {
        write!(out, " address={address}")?;
    }
    if let Some(CallsMade { host, count, took }) = line.upstream {
        let took = Milliseconds(*took);
        write!(out, " upstream_host={host:?} upstream_calls={count} upstream_ms={took}")?;
    }
    let more = [("route", line.route), ("client", line.client), ("cache", line.cache)];
    let failed =
        [("error", line.error), ("cause", line.cause), ("concerns", line.concerns), ("detail", line.detail)];
    for (name, value) in more.into_iter().chain(failed) {
        if let Some(value) = value {
            write!(out, " {name}={value:?}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(request_id: &str) -> AccessLine<'_> {
        AccessLine {
            timestamp: UnixMillis(1_771_200_000_000),
            level: "INFO",
            target: "access",
            request_id,
            trace_id: None,
            method: "GET",
            route: Some("conversation"),
            status: 200,
            duration_ms: Milliseconds(Duration::from_micros(430)),
            address: None,
            client: Some("a \"client\""),
            cache: Some("hit"),
            upstream: None,
            error: None,
            cause: None,
            concerns: None,
            detail: None,
        }
    }

    fn log(format: LogFormat, path: &std::path::Path) -> (AccessLog, Counter) {
        let dropped = Counter::default();
        let log = Log {
            level: "info".to_owned(),
            format,
            access: true,
            address: true,
            access_to: LogTo::File(path.to_owned()),
        };
        (AccessLog::open(&log, dropped.clone(), None).expect("a file"), dropped)
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
        assert!(log.flush(Duration::from_secs(30)));
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
            written.starts_with(r#"{"timestamp":"2026-02-16T00:00:00.000Z","level":"INFO""#),
            "{written:.80}"
        );
    }
}
