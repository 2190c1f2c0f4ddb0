//! The answer to one caller: from what was served and how it was asked for.

mod accept_encoding;
mod conditions;
pub mod etag;

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::cache::{Coding, Entry, ForwardReason, Served, Source};
use crate::clock::Moment;
use crate::error::calls::CallsMade;
use crate::fetch::answer::{ContentType, Large};
use crate::http::field::Field;
use crate::lifecycle::phase::Phase;
use crate::observe::metrics::CacheOutcome;

pub use conditions::Conditions;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// A response, and what the access log and the metrics say about it.
pub struct Reply {
    pub response: Response,
    pub client: Arc<str>,
    pub outcome: CacheOutcome,
    /// What the request has set off.
    pub calls: Option<CallsMade>,
}

/// What an answer's source is called in the metrics.
pub fn outcome(served: &Served) -> CacheOutcome {
    match served {
        Served::Entry(_, Source::Hit { .. } | Source::Held { because: None }) => CacheOutcome::Hit,
        Served::Entry(_, Source::Stale { .. } | Source::Held { because: Some(_) }) => CacheOutcome::Stale,
        Served::Entry(_, Source::Upstream { collapsed: true, .. })
        | Served::Large(_, Source::Upstream { collapsed: true, .. }) => CacheOutcome::Collapsed,
        Served::Entry(_, Source::Upstream { .. }) | Served::Large(..) => CacheOutcome::Miss,
    }
}

/// Seconds, where the upstream answers 503 and does not say.
const WAIT_AFTER_503: u32 = 5;
/// Digits of a number of 64 bits.
const LONGEST_NUMBER: usize = 20;
/// Fields of a response, those that the stages put in included.
const MOST_FIELDS: usize = 15;

/// What a caller is shown of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// Nothing: he has it, in this coding. The tag is the one he has, so that he knows which of his
    /// copies is meant (RFC 9111 §4.3.4).
    NotModified(Coding),
    /// The body, in this coding if that makes it smaller.
    Whole(Coding),
}

/// What a request that asked under `conditions` is shown of `entry`.
pub fn shown(entry: &Entry, conditions: &Conditions) -> Shown {
    if entry.answer.status != StatusCode::OK {
        // Not worth a variant: an error is short and seldom asked for twice.
        return Shown::Whole(Coding::Identity);
    }
    conditions.held(&entry.tag).map_or(Shown::Whole(conditions.coding), Shown::NotModified)
}

/// The response that shows it. `body` is what [`Shown::Whole`] came to; a 304 needs none. Its fields are
/// written into `headers`, whose own are dropped: a request's own table is at hand and in the processor's
/// cache, and hyper reads the next request of the connection into the one that an answer was sent from.
pub fn response(
    entry: &Entry,
    source: Source,
    shown: Shown,
    body: Option<(Coding, Bytes)>,
    conditions: &Conditions,
    now: Moment,
    mut headers: HeaderMap,
) -> Response {
    let answer = &entry.answer;
    let status = answer.status;
    headers.clear();
    headers.reserve(MOST_FIELDS);
    let (status, body) = match (shown, body) {
        (Shown::Whole(_), Some((coding, body))) => {
            if status == StatusCode::OK {
                headers.insert(header::ETAG, etag::header(&entry.tag, coding));
            }
            if coding != Coding::Identity {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
            }
            headers.insert(header::CONTENT_TYPE, content_type(answer.content_type.as_ref()));
            // hyper tells the length of a body that it sees.
            if conditions.is_head {
                headers.insert(header::CONTENT_LENGTH, number(body.len() as u64));
            }
            // Every 503 says when it is worth asking again, the upstream's own too.
            if status == StatusCode::SERVICE_UNAVAILABLE {
                let wait = answer.retry_after.map_or(WAIT_AFTER_503, NonZeroU32::get);
                headers.insert(header::RETRY_AFTER, wait.into());
            }
            (status, if conditions.is_head { Body::empty() } else { Body::from(body) })
        }
        (Shown::NotModified(coding) | Shown::Whole(coding), _) => {
            headers.insert(header::ETAG, etag::header(&entry.tag, coding));
            (StatusCode::NOT_MODIFIED, Body::empty())
        }
    };
    headers.insert(CACHE_STATUS, cache_status(source, answer.status));
    headers.insert(header::CACHE_CONTROL, cache_control(entry.phase));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if !matches!(source, Source::Upstream { stored: Err(_), .. }) {
        headers.insert(header::AGE, number(entry.age(now)));
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The response that passes a large answer through, as it comes. It has no length and no tag:
/// nobody has seen its end.
pub fn large(large: Large, source: Source, conditions: &Conditions) -> Response {
    let body = if conditions.is_head { Body::empty() } else { Body::from_stream(large.body.into_stream()) };
    let mut response = Response::new(body);
    *response.status_mut() = large.status;
    let headers = response.headers_mut();
    headers.insert(CACHE_STATUS, cache_status(source, large.status));
    headers.insert(header::CACHE_CONTROL, cache_control(Phase::Unknown));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(header::CONTENT_TYPE, content_type(large.content_type.as_ref()));
    response
}

/// What is not said to be JSON is bytes: a browser shows them to nobody as a page.
fn content_type(json: Option<&ContentType>) -> HeaderValue {
    json.map_or(HeaderValue::from_static("application/octet-stream"), ContentType::value)
}

/// A browser may keep what is over if it asks each time; what goes on it may not keep.
fn cache_control(phase: Phase) -> HeaderValue {
    match phase {
        Phase::Closed { .. } => HeaderValue::from_static("private, no-cache"),
        Phase::Live | Phase::Unknown => HeaderValue::from_static("private, no-store"),
    }
}

fn number(number: u64) -> HeaderValue {
    let mut text = Field::<LONGEST_NUMBER>::new();
    text.number(number);
    text.value()
}

/// RFC 9211.
fn cache_status(source: Source, status: StatusCode) -> HeaderValue {
    let text = match source {
        // The one that is written most.
        Source::Hit { left } => {
            const HIT: &str = "kore-gateway; hit; ttl=";
            let mut text = Field::<{ HIT.len() + LONGEST_NUMBER }>::new();
            text.push(HIT);
            text.number(left.as_secs());
            return text.value();
        }
        Source::Stale { past, because } => {
            format!("kore-gateway; hit; ttl=-{}; detail={}", past.as_secs(), because.as_str())
        }
        Source::Held { because: None } => "kore-gateway; hit".to_owned(),
        Source::Held { because: Some(because) } => format!("kore-gateway; hit; detail={}", because.as_str()),
        Source::Upstream { stored, collapsed, because } => {
            let forwarded = match because {
                ForwardReason::Miss => "uri-miss",
                ForwardReason::Stale => "stale",
                ForwardReason::Request => "request",
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
