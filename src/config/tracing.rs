//! What is told to a collector of traces (`[tracing]`).

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use super::certificates::Certificates;
use super::section::Section;
use super::value::Ratio;

/// Where OTLP over HTTP takes spans, behind a collector's URL.
const SPANS: &str = "/v1/traces";
/// A gigabyte of them.
const LONGEST_QUEUE: usize = 1_000_000;

#[derive(Clone, PartialEq, Debug)]
pub struct Tracing {
    /// Where spans go; nowhere: there are none.
    pub endpoint: Option<Url>,
    /// Of all requests, those that are recorded.
    pub ratio: f64,
    /// What a caller says is recorded, is recorded, and nothing else of its.
    pub follow_callers: bool,
    /// Spans that wait.
    pub queue: usize,
    /// Of one batch.
    pub timeout: Duration,
    /// PEM certificates to trust in place of the machine's.
    pub ca: Option<Arc<[u8]>>,
}

impl Tracing {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let endpoint: String = section.required("endpoint");
        let endpoint = match endpoint.as_str() {
            "off" => None,
            text => collector(text).map_err(|problem| section.report("endpoint", problem)).ok(),
        };
        let tracing = Self {
            endpoint,
            ratio: section.required::<Ratio>("ratio").0,
            follow_callers: section.required("follow_callers"),
            queue: section.count("queue"),
            timeout: section.positive("timeout"),
            ca: section.optional::<Certificates>("ca_file").map(|certificates| certificates.0.into()),
        };
        if tracing.queue > LONGEST_QUEUE {
            section.report("queue", format!("is more than {LONGEST_QUEUE}, which a gigabyte would not hold"));
        }
        section.close();
        tracing
    }
}

/// Where a collector takes spans. Plain http is allowed to anywhere: what is told is no secret.
fn collector(text: &str) -> Result<Url, String> {
    let expected = r#"it is "off" or a collector's URL, for example "http://127.0.0.1:4318""#;
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}; {expected}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or a password; they go into OTEL_EXPORTER_OTLP_HEADERS".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("has a query or a fragment; {expected}"));
    }
    match url.scheme() {
        "http" | "https" => Url::parse(&format!("{}{SPANS}", url.as_str().trim_end_matches('/')))
            .map_err(|error| format!("is no URL: {error}; {expected}")),
        other => Err(format!("has the scheme {other:?}; {expected}")),
    }
}
