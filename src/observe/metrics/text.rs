//! The two text formats: OpenMetrics, and the older one of Prometheus that is made of it.

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// All metrics as OpenMetrics text.
pub(super) fn open_metrics(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut written = String::new();
    text::encode(&mut written, registry)?;
    Ok(written)
}

/// OpenMetrics text as the older Prometheus text format (0.0.4), for scrapers that ask for that:
/// there a counter's `TYPE` and `HELP` carry the `_total`, and neither units nor an end are marked.
pub fn prometheus_text(open_metrics: &str) -> String {
    let mut written = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(help) = line.strip_prefix("# HELP ") {
            // The TYPE line follows and says how the name has to be spelled.
            let kind = lines.peek().and_then(|next| next.rsplit(' ').next()).unwrap_or_default();
            let (name, words) = help.split_once(' ').unwrap_or((help, ""));
            let (suffix, _) = suffix_and_kind(kind);
            written.push_str(&format!("# HELP {name}{suffix} {words}\n"));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|kind| kind.split_once(' '))
        {
            let (suffix, kind) = suffix_and_kind(kind);
            written.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else {
            // An exemplar stands behind its sample; no label of ours holds its mark.
            written.push_str(line.split(" # {").next().unwrap_or_default());
            written.push('\n');
        }
    }
    written
}

fn suffix_and_kind(kind: &str) -> (&'static str, &str) {
    match kind {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        other => ("", other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;
    use crate::clock::UnixMillis;

    #[test]
    fn counters_and_the_build_are_named_in_both_formats() {
        let metrics = Metrics::new();
        metrics.process.config_loaded(true, UnixMillis(0));
        let open = metrics.open_metrics().expect("text");
        assert!(open.contains("# TYPE kore_gateway_config_reloads counter\n"));
        assert!(open.contains("kore_gateway_config_reloads_total{result=\"success\"} 1\n"));
        assert!(open.ends_with("# EOF\n"));
        let plain = prometheus_text(&open);
        assert!(plain.contains("# TYPE kore_gateway_config_reloads_total counter\n"));
        assert!(plain.contains("# TYPE kore_gateway_build_info gauge\n"));
        assert!(plain.contains("kore_gateway_build_info{version="));
        assert!(!plain.contains("# EOF") && !plain.contains("# UNIT"));
    }
}
