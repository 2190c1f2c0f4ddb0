//! The answer to one caller: from what was served and how it was asked for.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use crate::cache::{Because, Forwarded, Served, Source};
use crate::clock::UnixMillis;
use crate::metrics::Outcome;
use crate::phase::Phase;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// A response, and what the access log and the metrics say about it.
pub struct Reply {
    pub response: Response,
    pub client: Arc<str>,
    pub outcome: Outcome,
}

/// What of a request shapes its answer beyond what was asked.
#[derive(Clone, Debug)]
pub struct Conditions {
    is_head: bool,
    if_none_match: Vec<HeaderValue>,
}

impl Conditions {
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        Self {
            is_head: method == Method::HEAD,
            if_none_match: headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect(),
        }
    }

    /// Whether the caller has what `etag` names: weak comparison (RFC 9110 §13.1.2, §8.8.3.2).
    fn has(&self, etag: &HeaderValue) -> bool {
        self.if_none_match.iter().filter_map(|value| value.to_str().ok()).any(|list| {
            list.trim() == "*" || list.split(',').any(|tag| opaque(tag.trim()) == etag.as_bytes())
        })
    }
}

/// An entity tag without its mark of weakness.
fn opaque(tag: &str) -> &[u8] {
    tag.strip_prefix("W/").unwrap_or(tag).as_bytes()
}

/// What a source is called in the metrics.
pub fn outcome(source: &Source) -> Outcome {
    match source {
        Source::Hit { .. } => Outcome::Hit,
        Source::Stale { .. } => Outcome::Stale,
        Source::Upstream { collapsed: true, .. } => Outcome::Collapsed,
        Source::Upstream { .. } => Outcome::Miss,
    }
}

/// The response to a request that asked under `conditions`.
pub fn response(served: &Served, conditions: &Conditions, now: UnixMillis) -> Response {
    let entry = &served.entry;
    let answer = &entry.answer;
    let is_stored = !matches!(served.source, Source::Upstream { stored: Err(_), .. });
    let not_modified = answer.status == StatusCode::OK && conditions.has(&entry.etag);

    let body =
        if not_modified || conditions.is_head { Body::empty() } else { Body::from(answer.body.clone()) };
    let mut response = Response::new(body);
    *response.status_mut() = if not_modified { StatusCode::NOT_MODIFIED } else { answer.status };
    let headers = response.headers_mut();
    headers.insert(CACHE_STATUS, cache_status(&served.source, answer.status));
    headers.insert(header::CACHE_CONTROL, cache_control(entry.phase));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_stored {
        headers.insert(header::AGE, entry.age(now).into());
    }
    if answer.status == StatusCode::OK {
        headers.insert(header::ETAG, entry.etag.clone());
    }
    if !not_modified {
        if let Some(content_type) = &answer.content_type {
            headers.insert(header::CONTENT_TYPE, content_type.clone());
        }
        headers.insert(header::CONTENT_LENGTH, answer.body.len().into());
    }
    response
}

/// A browser may keep what is over if it asks each time; what goes on it may not keep.
fn cache_control(phase: Phase) -> HeaderValue {
    match phase {
        Phase::Over { .. } => HeaderValue::from_static("private, no-cache"),
        Phase::Live | Phase::Unknown => HeaderValue::from_static("private, no-store"),
    }
}

/// RFC 9211.
fn cache_status(source: &Source, status: StatusCode) -> HeaderValue {
    let text = match *source {
        Source::Hit { left } => format!("kore-gateway; hit; ttl={}", left.as_secs()),
        Source::Stale { past, because } => {
            let detail = match because {
                Because::Revalidating => "stale-while-revalidate",
                Because::Error => "stale-if-error",
            };
            format!("kore-gateway; hit; ttl=-{}; detail={detail}", past.as_secs())
        }
        Source::Upstream { stored, collapsed, because } => {
            let forwarded = match because {
                Forwarded::Miss => "uri-miss",
                Forwarded::Stale => "stale",
                Forwarded::Request => "request",
            };
            let mut text = format!("kore-gateway; fwd={forwarded}; fwd-status={}", status.as_u16());
            match stored {
                Ok(()) => text.push_str("; stored"),
                Err(_) => text.push_str("; stored=?0"),
            }
            if collapsed {
                text.push_str("; collapsed");
            }
            if let Err(reason) = stored {
                text.push_str("; detail=");
                text.push_str(reason.as_str());
            }
            text
        }
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("kore-gateway"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(sent: &[&'static str], etag: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_static(value));
        }
        Conditions::of(&Method::GET, &headers).has(&HeaderValue::from_static(etag))
    }

    #[test]
    fn if_none_match_is_compared_weakly_and_may_be_a_list() {
        assert!(has(&[r#""a""#], r#""a""#));
        assert!(has(&[r#"W/"a""#], r#""a""#));
        assert!(has(&[r#""b", W/"a""#], r#""a""#));
        assert!(has(&[r#""b""#, r#""a""#], r#""a""#));
        assert!(has(&["*"], r#""a""#));
        assert!(!has(&[r#""b""#], r#""a""#));
        assert!(!has(&["a"], r#""a""#));
        assert!(!has(&[], r#""a""#));
    }
}
