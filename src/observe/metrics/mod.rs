//! What is counted, by owner. Names are promises (docs/REFERENCE.md). Labels have closed sets of values, or names
//! that operators have configured (an account, a client, a credential): no other id and no free text.
//!
//! A metric is made, named and registered on one line of its owner's `new`, and changed by its owner's methods.

mod access;
mod cache;
mod http;
mod process;
mod series;
mod text;
mod upstream;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

pub use self::access::Access;
pub use self::cache::{Cache, CacheOutcome};
pub use self::http::{Connections, Ended, Http, MAIN_LISTENER, OPS_LISTENER, OpenConnection, method_name};
pub use self::process::{COMMIT, Process, VERSION};
pub use self::series::SeriesNames;
pub use self::text::prometheus_text;
pub use self::upstream::{AttemptResult, Upstream};

/// The buckets of OpenTelemetry's HTTP metrics, in seconds.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

const SUCCESS: &str = "success";
const FAILURE: &str = "failure";

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// Everything that is counted, for one process.
pub struct Metrics {
    registry: Registry,
    pub http: Http,
    pub cache: Cache,
    pub upstream: Upstream,
    pub access: Access,
    pub process: Process,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::default();
        Self {
            http: Http::new(&mut registry),
            cache: Cache::new(&mut registry),
            upstream: Upstream::new(&mut registry),
            access: Access::new(&mut registry),
            process: Process::new(&mut registry),
            registry,
        }
    }

    /// All of it, as OpenMetrics text.
    pub fn open_metrics(&self) -> Result<String, std::fmt::Error> {
        text::open_metrics(&self.registry)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Registers `metric` and returns it. `name` is the whole name, with its unit; a counter gets its `_total` when it
/// is written out.
fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    let units = [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)];
    let unit = units.into_iter().find_map(|(end, unit)| Some((name.strip_suffix(end)?, unit)));
    match unit {
        Some((stem, unit)) => registry.register_with_unit(stem, help, unit, metric.clone()),
        None => registry.register(name, help, metric.clone()),
    }
    metric
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many series each counter begins with. A counter of names of the configuration begins with none, and is
    /// not written out before it has one.
    const COUNTERS: [(&str, usize); 19] = [
        ("kore_gateway_connections_ended_total", 22),
        ("kore_gateway_cache_requests_total", 15),
        ("kore_gateway_cache_evictions_total", 1),
        ("kore_gateway_cache_bodies_made_total", 3),
        ("kore_gateway_cache_settled_refreshes_total", 6),
        ("kore_gateway_upstream_attempts_total", 12),
        ("kore_gateway_upstream_retries_total", 3),
        ("kore_gateway_upstream_withheld_total", 12),
        ("kore_gateway_access_refused_total", 6),
        ("kore_gateway_subjects_rate_limited_total", 1),
        ("kore_gateway_addresses_rate_limited_total", 1),
        ("kore_gateway_ops_unauthenticated_total", 1),
        ("kore_gateway_config_reloads_total", 2),
        ("kore_gateway_certificate_reloads_total", 2),
        ("kore_gateway_audit_records_total", 2),
        ("kore_gateway_access_lines_dropped_total", 1),
        ("kore_gateway_log_lines_dropped_total", 1),
        ("kore_gateway_trace_spans_total", 2),
        ("kore_gateway_panics_total", 1),
    ];

    /// A rate needs two samples: what is counted begins at zero and not with its first event.
    #[test]
    fn every_counter_whose_labels_are_a_closed_set_begins_at_zero() {
        let text = prometheus_text(&Metrics::new().open_metrics().expect("text"));
        let counters = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"));
        let found: Vec<(&str, usize)> = counters
            .map(|name| {
                let is_sample =
                    |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
                let samples = text.lines().filter(is_sample);
                (name, samples.inspect(|sample| assert!(sample.ends_with(" 0"), "{sample}")).count())
            })
            .collect();
        assert_eq!(found, COUNTERS);
    }

    #[test]
    fn a_unit_is_the_end_of_its_metrics_name() {
        let text = Metrics::new().open_metrics().expect("text");
        assert!(text.contains("# UNIT kore_gateway_upstream_quota_wait_seconds seconds\n"), "{text}");
        assert!(text.contains("# UNIT kore_gateway_cache_bytes bytes\n"), "{text}");
        assert!(!text.contains("_seconds_seconds"), "{text}");
    }
}
