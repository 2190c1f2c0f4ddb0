//! Logging: one line an event, on standard output, JSON or text. A thread of its own writes the lines (`Lines`), so
//! that nothing waits for their reader.

use std::fmt;
use std::io;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{self, LogFormat, LogTo};
use crate::observe::lines::Lines;

/// The log of the process.
pub struct ProcessLog(Arc<Lines>);

impl ProcessLog {
    /// Sets up logging for the process, once: later calls change nothing. `dropped` counts the lines that were not
    /// written.
    pub fn install(log: &config::Log, dropped: Counter) -> io::Result<Self> {
        let lines = Arc::new(Lines::open("log", &LogTo::Stdout, dropped)?);
        let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
        let registry = tracing_subscriber::registry().with(filter);
        let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone()).with_timer(WallClock);
        let _ = match log.format {
            LogFormat::Json => {
                let layer = layer.json().flatten_event(true).with_current_span(false).with_span_list(false);
                registry.with(layer).try_init()
            }
            LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
        };
        Ok(Self(lines))
    }

    /// Waits until everything logged so far was written, `at_most` for so long.
    pub fn flush(&self, at_most: Duration) {
        self.0.flush(at_most);
    }
}

/// The time of a line, in the format of access lines.
struct WallClock;

impl FormatTime for WallClock {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:.3}", jiff::Timestamp::now())
    }
}

/// Logs each panic and counts it in `panics`, in place of the message on standard error: writing there may block, and
/// a message that was formatted at run time may hold a caller's data.
pub fn log_panics(panics: Counter) {
    std::panic::set_hook(Box::new(move |panic| {
        panics.inc();
        tracing::error!(place = %place(panic), message = message(panic), "a panic: a defect of the gateway");
    }));
}

fn place(panic: &PanicHookInfo<'_>) -> String {
    panic.location().map(ToString::to_string).unwrap_or_default()
}

/// The message if it is a literal of the program; one that was formatted from data is left out.
fn message(panic: &PanicHookInfo<'_>) -> &'static str {
    panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("")
}
