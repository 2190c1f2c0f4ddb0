//! Logging: one line an event, on standard output, JSON or text. Lines are written by a thread of their
//! own (`Lines`), so that nobody waits for who reads them.

use std::io;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{self, LogFormat, LogTo};
use crate::observe::lines::Lines;

/// The log of the process.
pub struct Log(Arc<Lines>);

impl Log {
    /// Sets up logging for the process. Another one after it is given nothing. `dropped` counts the lines
    /// that were not written.
    pub fn install(log: &config::Log, dropped: Counter) -> io::Result<Self> {
        let lines = Arc::new(Lines::open("log", &LogTo::Stdout, dropped)?);
        let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
        let registry = tracing_subscriber::registry().with(filter);
        let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone());
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

/// Logs each panic and has it counted in `panics`, in place of the message on standard error: nobody waits
/// for who reads that, and a message that was made at run time may hold what was being worked on.
pub fn log_panics(panics: Counter) {
    std::panic::set_hook(Box::new(move |panic| {
        panics.inc();
        tracing::error!(place = %place(panic), message = message(panic), "a panic: a defect of the gateway");
    }));
}

fn place(panic: &PanicHookInfo<'_>) -> String {
    panic.location().map(ToString::to_string).unwrap_or_default()
}

/// What is in the program's text, and nothing that was made from data.
fn message(panic: &PanicHookInfo<'_>) -> &'static str {
    panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("")
}
