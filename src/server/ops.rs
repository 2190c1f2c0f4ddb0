//! The ops listener: health, version, metrics, and [`admin`]. On a port of its own, with a budget of its own.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, VARY};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::{BodyExt, Collected};
use serde_json::json;
use tower::util::MapResponseLayer;

use super::layers::no_sniffing;
use super::{admin, guard};
use crate::app::App;
use crate::error::{Error, Kind};
use crate::http::accept;
use crate::http::problem;
use crate::http::request_id::{REQUEST_ID, RequestId};
use crate::observe::metrics::{COMMIT, VERSION, prometheus_text};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The ops listener's service.
pub fn service(app: Arc<App>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .merge(admin::routes(&app))
        .fallback(nothing)
        .layer(from_fn_with_state(app.clone(), known_host))
        .layer(MapResponseLayer::new(|mut response: Response| {
            no_sniffing(response.headers_mut());
            response
        }))
        .with_state(app)
}

/// 421 for what is asked by an unknown name. A page in an operator's browser can have its own name lead here,
/// and read the answers (DNS rebinding). That takes a name: whoever asks by an address has come to that address.
async fn known_host(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let field = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    // One that is missing or malformed is the guard's to refuse.
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

/// What leads to nothing, or was refused by the guard.
async fn nothing(State(app): State<Arc<App>>, request: Request) -> Response {
    let limits = guard::Limits::of(&app.snapshot().config.server);
    let patience = app.snapshot().config.server.body_timeout;
    let (head, mut body) = request.into_parts();
    let has_content =
        guard::is_open(&head.method, head.version, &body) && guard::has_content(&mut body, patience).await;
    let error = match guard::check(&head, has_content, &limits) {
        Ok(()) => Error::new(Kind::NotFound, "there is nothing here"),
        Err(refusal) => refusal.into(),
    };
    let id = RequestId::of(&head.headers, &app.request_ids);
    let (mut head, body) = problem::response(&error, id.as_str()).into_parts();
    head.headers.insert(REQUEST_ID, id.header());
    // It is at hand, though not as axum's kind of body.
    let document = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    Response::from_parts(head, document.into())
}

/// 200 when requests are welcome, 503 when not. Costs the upstream nothing.
async fn ready(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> (StatusCode, String) {
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

async fn version() -> impl IntoResponse {
    let body = json!({ "name": "kore-gateway", "version": VERSION, "commit": COMMIT });
    ([(CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

/// OpenMetrics for who asks for it, the older Prometheus text for everybody else.
async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
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
