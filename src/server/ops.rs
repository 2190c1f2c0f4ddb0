//! The ops listener: health, version, metrics, and `admin`. On a port of its own, with a budget of its own.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{RawQuery, Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, VARY};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::guard;
use crate::app::App;
use crate::error::{Error, Kind};
use crate::http::accept;
use crate::http::problem;
use crate::http::request_id::{REQUEST_ID, RequestId};
use crate::observe::metrics::{COMMIT, VERSION, prometheus_text};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// 421 for what is asked by an unknown name. A page in an operator's browser can have its own name lead here,
/// and read the answers (DNS rebinding). That takes a name: whoever asks by an address has come to that address.
pub async fn known_host(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let field = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let asked = request.uri().authority().map(Authority::as_str).or(field);
    let Some(asked) = asked.and_then(|host| host.parse::<Authority>().ok()) else {
        return next.run(request).await;
    };
    if is_known(asked.host(), &app.snapshot().config.ops.hosts) {
        return next.run(request).await;
    }
    let detail = "the ops listener is asked by an IP address, as localhost, or by a name of `ops.hosts`";
    problem(
        StatusCode::MISDIRECTED_REQUEST,
        "misdirected-request",
        "This is not the host that was asked",
        detail,
    )
}

fn is_known(host: &str, names: &[String]) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_loopback =
        ["localhost", "localhost.localdomain"].iter().any(|known| name.eq_ignore_ascii_case(known));
    address.parse::<IpAddr>().is_ok()
        || is_loopback
        || names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// A problem of the ops listener's own, with one fault.
pub(super) fn problem(status: StatusCode, kind: &str, title: &str, detail: &str) -> Response {
    let problem = json!({
        "type": format!("/problems/{kind}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "errors": [{ "detail": detail, "msg": detail, "pointer": "" }],
    });
    (status, [(CONTENT_TYPE, "application/problem+json")], problem.to_string()).into_response()
}

/// Refuses what can be read in two ways.
pub async fn guarded(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let snapshot = app.snapshot();
    let server = &snapshot.config.server;
    let (head, mut body) = request.into_parts();
    let has_content = guard::is_open(&head.method, head.version, &body)
        && guard::has_content(&mut body, server.body_timeout).await;
    match guard::check(&head, has_content, &guard::HeadLimits::of(server)) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(refusal) => refused(&app, &head.headers, refusal.into_error(head.version)),
    }
}

/// What leads to nothing.
pub async fn nothing(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    refused(&app, &headers, Error::new(Kind::NotFound, "there is nothing here"))
}

fn refused(app: &App, headers: &HeaderMap, error: Error) -> Response {
    let id = RequestId::of(headers, &app.request_ids);
    let mut response = problem::response(&error, id.as_str());
    response.headers_mut().insert(REQUEST_ID, id.header());
    response
}

/// 200 when requests are welcome, 503 when not. Costs the upstream nothing.
pub async fn ready(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let (status, draining) = if app.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else {
        (StatusCode::OK, "ok")
    };
    let is_verbose = query.is_some_and(|query| query == "verbose" || query.starts_with("verbose="));
    let text = if is_verbose {
        let accounts = app.snapshot().config.accounts.len();
        format!("configuration: ok ({accounts} accounts)\nlistener: {draining}\n")
    } else {
        format!("{draining}\n")
    };
    (status, text)
}

pub async fn version() -> impl IntoResponse {
    let body = json!({ "name": "kore-gateway", "version": VERSION, "commit": COMMIT });
    ([(CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

/// OpenMetrics for who asks for it, the older Prometheus text for everybody else.
pub async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    app.observe();
    // Who takes neither gets the older text all the same: a scrape that fails helps nobody.
    let wants_open_metrics = accept::media(&headers, &[PROMETHEUS, OPEN_METRICS]) == Some(1);
    let fields = |media_type: &'static str| [(CONTENT_TYPE, media_type), (VARY, "Accept")];
    match app.metrics.open_metrics() {
        Ok(text) if wants_open_metrics => (fields(OPEN_METRICS), text).into_response(),
        Ok(text) => (fields(PROMETHEUS), prometheus_text(&text)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
