//! The answer to one caller: from what was served and how it was asked for.

mod accept_encoding;
mod conditions;
mod etag;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};

use crate::answer::Large;
use crate::cache::{Because, Cache, Coding, Entry, Forwarded, Reason, Served, Source};
use crate::clock::Moment;
use crate::metrics::Outcome;
use crate::phase::Phase;
use crate::routes::Key;

pub use conditions::Conditions;
use etag::ETags;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// A response, and what the access log and the metrics say about it.
pub struct Reply {
    pub response: Response,
    pub client: Arc<str>,
    pub outcome: Outcome,
}

/// What an answer's source is called in the metrics.
pub fn outcome(served: &Served) -> Outcome {
    match served {
        Served::Entry(_, Source::Hit { .. }) => Outcome::Hit,
        Served::Entry(_, Source::Stale { .. }) => Outcome::Stale,
        Served::Entry(_, Source::Upstream { collapsed: true, .. }) => Outcome::Collapsed,
        Served::Entry(_, Source::Upstream { .. }) | Served::Large(_) => Outcome::Miss,
    }
}

/// The response to a request that asked under `conditions`.
pub async fn response(
    cache: &Cache,
    key: &Key,
    (entry, source): (&Arc<Entry>, Source),
    conditions: &Conditions,
    now: Moment,
) -> Response {
    let status = entry.answer.status;
    let mut response = match conditions.held(&ETags::of(entry.tag)) {
        Some(held) if status == StatusCode::OK => not_modified(entry, held),
        _ => whole(cache, key, entry, conditions).await,
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_STATUS, cache_status(source, status));
    headers.insert(header::CACHE_CONTROL, cache_control(entry.phase));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if !matches!(source, Source::Upstream { stored: Err(_), .. }) {
        headers.insert(header::AGE, entry.age(now).into());
    }
    response
}

/// Seconds, where the upstream answers 503 and does not say.
const WAIT_AFTER_503: &str = "5";

/// The body is not touched. The tag is the one the caller has, so that he knows which of his copies
/// is meant (RFC 9111 §4.3.4).
fn not_modified(entry: &Entry, held: Coding) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(header::ETAG, ETags::of(entry.tag).header(held));
    response
}

async fn whole(cache: &Cache, key: &Key, entry: &Arc<Entry>, conditions: &Conditions) -> Response {
    let answer = &entry.answer;
    let is_ok = answer.status == StatusCode::OK;
    // Only what is worth a variant: an error is short and seldom asked for twice.
    let wanted = if is_ok { conditions.coding } else { Coding::Identity };
    let (coding, body) = cache.body(key, entry, wanted).await;
    let length = body.len();
    let mut response = Response::new(if conditions.is_head { Body::empty() } else { Body::from(body) });
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    if is_ok {
        headers.insert(header::ETAG, ETags::of(entry.tag).header(coding));
    }
    if coding != Coding::Identity {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    }
    if let Some(content_type) = &answer.content_type {
        headers.insert(header::CONTENT_TYPE, content_type.clone());
    }
    headers.insert(header::CONTENT_LENGTH, length.into());
    // Every 503 says when it is worth asking again, the upstream's own too.
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        let wait = answer.retry_after.clone().unwrap_or(HeaderValue::from_static(WAIT_AFTER_503));
        headers.insert(header::RETRY_AFTER, wait);
    }
    response
}

/// The response that passes a large answer through, as it comes. It has no length and no tag:
/// nobody has seen its end.
pub fn large(large: Large, conditions: &Conditions) -> Response {
    let body = if conditions.is_head { Body::empty() } else { Body::from_stream(large.body.into_stream()) };
    let mut response = Response::new(body);
    *response.status_mut() = large.status;
    let headers = response.headers_mut();
    let source =
        Source::Upstream { stored: Err(Reason::TooLarge), collapsed: false, because: Forwarded::Miss };
    headers.insert(CACHE_STATUS, cache_status(source, large.status));
    headers.insert(header::CACHE_CONTROL, cache_control(Phase::Unknown));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Some(content_type) = large.content_type {
        headers.insert(header::CONTENT_TYPE, content_type);
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
fn cache_status(source: Source, status: StatusCode) -> HeaderValue {
    let text = match source {
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
