//! The process itself: what it runs, holds, reloads and writes.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::{FAILURE, ResultLabels, SUCCESS, register};
use crate::clock::UnixMillis;

/// The release, and the commit it was built from, if the build was told.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub const COMMIT: &str = match option_env!("KORE_GATEWAY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct InFlightLabels {
    /// `responses` or `fills`.
    of: &'static str,
}

/// Of a series that is there or not.
type NoLabels = [(&'static str, &'static str); 0];

/// The process itself.
pub struct Process {
    bytes_in_flight: Family<InFlightLabels, Gauge>,
    config_reloads: Family<ResultLabels, Counter>,
    config_good: Gauge,
    config_loaded_at: Gauge,
    certificate_reloads: Family<ResultLabels, Counter>,
    certificate_expiry: Family<NoLabels, Gauge>,
    audit_records: Family<ResultLabels, Counter>,
    pub access_lines_dropped: Counter,
    pub log_lines_dropped: Counter,
    trace_spans: Family<ResultLabels, Counter>,
    pub panics: Counter,
}

impl Process {
    pub(super) fn new(r: &mut Registry) -> Self {
        let build = Info::new(vec![("version", VERSION), ("commit", COMMIT)]);
        r.register("kore_gateway_build", "What is running", build);
        let process = Self {
            bytes_in_flight: register(
                r,
                "kore_gateway_bytes_in_flight",
                "Bytes held beside the store: by responses, and of answers that are being read",
                Family::default(),
            ),
            config_reloads: register(
                r,
                "kore_gateway_config_reloads",
                "Configurations taken up and refused",
                Family::default(),
            ),
            config_good: register(
                r,
                "kore_gateway_config_last_reload_successful",
                "1 if the configuration as it is written is in effect, 0 if it was refused",
                Gauge::default(),
            ),
            config_loaded_at: register(
                r,
                "kore_gateway_config_last_reload_success_timestamp_seconds",
                "When the configuration in effect was taken up",
                Gauge::default(),
            ),
            certificate_reloads: register(
                r,
                "kore_gateway_certificate_reloads",
                "Renewed certificates taken up and refused",
                Family::default(),
            ),
            certificate_expiry: register(
                r,
                "kore_gateway_certificate_expiry_timestamp_seconds",
                "When the certificate that callers are shown expires",
                Family::default(),
            ),
            audit_records: register(r, "kore_gateway_audit_records", "Lines of the audit", Family::default()),
            access_lines_dropped: register(
                r,
                "kore_gateway_access_lines_dropped",
                "Access lines that were not written",
                Counter::default(),
            ),
            log_lines_dropped: register(
                r,
                "kore_gateway_log_lines_dropped",
                "Lines of the gateway's own log that were not written",
                Counter::default(),
            ),
            trace_spans: register(
                r,
                "kore_gateway_trace_spans",
                "Spans that the collector took, and those that were dropped",
                Family::default(),
            ),
            panics: register(
                r,
                "kore_gateway_panics",
                "Panics, each a defect of the gateway",
                Counter::default(),
            ),
        };
        process.begin_at_zero();
        process
    }

    fn begin_at_zero(&self) {
        for of in ["responses", "fills"] {
            self.bytes_in_flight.get_or_create_owned(&InFlightLabels { of });
        }
        for result in [SUCCESS, FAILURE] {
            for family in [&self.config_reloads, &self.certificate_reloads, &self.audit_records] {
                family.get_or_create_owned(&ResultLabels { result });
            }
        }
        self.trace_spans();
    }

    /// Sets what is read rather than counted.
    pub fn bytes_in_flight(&self, of: &'static str, bytes: usize) {
        let gauge = self.bytes_in_flight.get_or_create_owned(&InFlightLabels { of });
        gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A configuration was taken up, or refused, at `now`.
    pub fn config_loaded(&self, good: bool, now: UnixMillis) {
        self.config_good.set(good.into());
        if good {
            self.config_loaded_at.set(now.seconds());
        }
        self.config_reloads.get_or_create_owned(&done(good)).inc();
    }

    /// A renewed certificate was taken up, or refused.
    pub fn certificate_loaded(&self, good: bool) {
        self.certificate_reloads.get_or_create_owned(&done(good)).inc();
    }

    /// When the certificate in use expires; none where there is no TLS, and then there is no series either.
    pub fn certificate_expiry(&self, not_after: Option<UnixMillis>) {
        match not_after {
            Some(not_after) => {
                self.certificate_expiry.get_or_create_owned(&[]).set(not_after.seconds());
            }
            None => self.certificate_expiry.clear(),
        }
    }

    /// The counters of lines of the audit that were written and lost.
    pub fn audit(&self) -> (Counter, Counter) {
        let records = |good| self.audit_records.get_or_create_owned(&done(good));
        (records(true), records(false))
    }

    /// The counters of spans that a collector took, and of those that were dropped.
    pub fn trace_spans(&self) -> (Counter, Counter) {
        let spans = |result| self.trace_spans.get_or_create_owned(&ResultLabels { result });
        (spans("exported"), spans("dropped"))
    }
}

fn done(good: bool) -> ResultLabels {
    ResultLabels { result: if good { SUCCESS } else { FAILURE } }
}
