//! Which pages may read an answer: cross-origin resource sharing (the Fetch standard, §3.2).
//!
//! A credential is always in a header that the page's script sets, never in a cookie, so
//! `Access-Control-Allow-Credentials` is never sent.

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::{Client, Clients};

/// What a script may read of an answer beside what Fetch always lets it.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "ETag, Age, Cache-Status, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id",
);
/// What a script may send.
const ACCEPTED: HeaderValue = HeaderValue::from_static(
    "authorization, auth, x-api-key, content-type, if-none-match, cache-control, x-request-id, traceparent, \
     tracestate",
);
/// How long a browser may remember a preflight, in seconds. An origin that is taken out can go on
/// asking for as long, but reads nothing.
const REMEMBERED: HeaderValue = HeaderValue::from_static("600");

/// The origin of the page that asks, if it is a browser that asks for one.
pub fn origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    origins.next().filter(|_| origins.next().is_none())
}

/// Whether this is a browser asking whether it may ask.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && origin(headers).is_some()
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight from `origin` about a path that takes `methods`. It has no caller, so
/// the origins of all clients count together; the request that follows is answered for its own.
pub fn preflight(origin: &HeaderValue, methods: &'static str, clients: &Clients) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed(origin, None, clients)?);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ACCEPTED);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
    Some(headers)
}

/// What an answer to `client` says to the page at `origin`; nothing if it may not read it. Until
/// the client is known, the origins of all count: a page must be able to read its 401.
pub fn answer(
    origin: &HeaderValue,
    client: Option<&Client>,
    clients: &Clients,
) -> Option<[(HeaderName, HeaderValue); 2]> {
    let allowed = allowed(origin, client, clients)?;
    Some([(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed), (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED)])
}

/// The origin itself, byte for byte as it was configured; there are no patterns.
fn allowed(origin: &HeaderValue, client: Option<&Client>, clients: &Clients) -> Option<HeaderValue> {
    let text = origin.to_str().ok()?;
    let is_listed = match client {
        Some(client) => client.origins.iter().any(|listed| listed == text),
        None => clients.origins().any(|listed| listed == text),
    };
    is_listed.then(|| origin.clone())
}
