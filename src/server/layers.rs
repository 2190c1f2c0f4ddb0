//! What holds for every HTTP request: its id, its route, its line in the log, its place in the
//! metrics, and the one spot where an error becomes a response.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use tower::{BoxError, Service};
use tower_http::catch_panic::CatchPanicLayer;

use super::docs;
use super::guard;
use super::stages::{self, Call};
use crate::access::{cors, forwarded};
use crate::app::{App, Snapshot};
use crate::config::Clients;
use crate::error::{Error, Kind};
use crate::metrics::Outcome;
use crate::reply::Reply;
use crate::routes::{self, Found, Route};
use crate::upstream::random_id;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Which queries a route takes (RFC 10008 §3).
const ACCEPT_QUERY: HeaderName = HeaderName::from_static("accept-query");
const QUERY_FORMAT: HeaderValue = HeaderValue::from_static(r#""application/json""#);
const LONGEST_REQUEST_ID: usize = 128;

/// The main listener's service, for one connection.
pub fn service(app: Arc<App>, peer: IpAddr) -> Router {
    let observe = Observe { stack: stages::stack(app.clone()), app, peer };
    Router::new().fallback_service(observe).layer(CatchPanicLayer::custom(|_| {
        // The panic itself has been logged where it was caught by the runtime's hook.
        let id = random_id().unwrap_or_default();
        finished(Error::new(Kind::Internal, "the gateway failed").into_response(&id), &id)
    }))
}

/// Turns HTTP into typed calls and their outcomes into HTTP.
#[derive(Clone)]
struct Observe<S> {
    app: Arc<App>,
    peer: IpAddr,
    stack: S,
}

impl<S> Service<Request<Body>> for Observe<S>
where
    S: Service<Call, Response = Reply, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The stack is always ready: it refuses rather than waits.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let app = self.app.clone();
        let stack = self.stack.clone();
        let peer = self.peer;
        async move { Ok(observe(app, stack, peer, request).await) }.boxed()
    }
}

async fn observe<S>(app: Arc<App>, mut stack: S, peer: IpAddr, request: Request<Body>) -> Response
where
    S: Service<Call, Response = Reply, Error = BoxError>,
{
    let started = Instant::now();
    let active = Active::count(&app);
    let snapshot = app.snapshot();
    let log = snapshot.config.log.access;
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    let address = forwarded::client(peer, request.headers(), &snapshot.config.server.proxies);

    let (head, body) = request.into_parts();
    let origin = cors::origin(&head.headers).cloned();
    let clients = snapshot.clone();
    let clients = &clients.config.clients;

    let (route, told, mut response) = if cors::is_preflight(&head) {
        let response = preflight(&head, clients).unwrap_or_else(|error| error.into_response(&request_id));
        (None, Told::default(), response)
    } else if let Some(page) = docs::answer(&head, &snapshot) {
        let page = checked(&head, &body, &snapshot).and(page);
        (None, Told::default(), page.unwrap_or_else(|error| error.into_response(&request_id)))
    } else {
        let (route, outcome) = match checked(&head, &body, &snapshot).and_then(|()| found(&head)) {
            Err(error) => (None, Err(error)),
            Ok((route, ids)) => {
                let call = Call {
                    snapshot,
                    route,
                    ids,
                    request_id: request_id.as_str().into(),
                    address,
                    head,
                    body,
                };
                (Some(route), stack.call(call).await.map_err(Error::from_stack))
            }
        };
        let told = Told::of(&outcome);
        let mut response = match outcome {
            Ok(reply) => reply.response,
            Err(error) => error.into_response(&request_id),
        };
        let client = told.client.as_deref().and_then(|name| clients.named(name));
        if let Some(origin) = &origin
            && let Some(headers) = cors::answer(origin, client.map(Arc::as_ref), clients)
        {
            response.headers_mut().extend(headers);
        }
        (route, told, response)
    };
    if clients.origins().next().is_some() {
        varies_on_origin(response.headers_mut());
    }
    let mut response = finished(response, &request_id);
    if route.is_some_and(Route::takes_query) {
        response.headers_mut().insert(ACCEPT_QUERY, QUERY_FORMAT);
    }

    drop(active);
    let duration = started.elapsed();
    let status = response.status();
    app.metrics.request(route, &method, status.as_u16(), duration);
    if log {
        told.log(&request_id, &method, route, status, duration);
    }
    response
}

/// The answer to a browser that asks whether a page of its origin may send a request.
fn preflight(head: &Parts, clients: &Clients) -> Result<Response, Error> {
    let found = head.uri.path_and_query().map(|target| routes::find(&head.method, target));
    let Some(Found::MethodNotAllowed(methods)) = found else {
        return Err(Error::new(Kind::NotFound, "there is no such route"));
    };
    let headers = cors::origin(&head.headers).and_then(|origin| cors::preflight(origin, methods, clients));
    let Some(headers) = headers else {
        return Err(Error::new(Kind::Forbidden, "pages of this origin may not call the gateway"));
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Where any client has origins, every answer may depend on the page that asked.
fn varies_on_origin(headers: &mut HeaderMap) {
    let vary = match headers.get(header::VARY).and_then(|vary| vary.to_str().ok()) {
        Some(vary) => HeaderValue::try_from(format!("{vary}, Origin")),
        None => Ok(HeaderValue::from_static("Origin")),
    };
    headers.insert(header::VARY, vary.unwrap_or(HeaderValue::from_static("*")));
}

fn checked(head: &Parts, body: &Body, snapshot: &Snapshot) -> Result<(), Error> {
    Ok(guard::check(head, body, &guard::Limits::of(&snapshot.config.server))?)
}

fn found(head: &Parts) -> Result<(&'static Route, routes::Ids), Error> {
    let Some(target) = head.uri.path_and_query() else {
        return Err(Error::new(Kind::NotFound, "there is no such route"));
    };
    match routes::find(&head.method, target) {
        Found::Route(route, ids) => Ok((route, ids)),
        Found::Nothing => Err(Error::new(Kind::NotFound, "there is no such route")),
        Found::MethodNotAllowed(allow) => {
            let error = Error::new(Kind::MethodNotAllowed, format!("this path takes {allow}"))
                .with_header(header::ALLOW, HeaderValue::from_static(allow));
            Err(if allow.contains("QUERY") { error.with_header(ACCEPT_QUERY, QUERY_FORMAT) } else { error })
        }
    }
}

/// Counts a request as long as it is under way, also when its caller hangs up.
struct Active(Arc<App>);

impl Active {
    fn count(app: &Arc<App>) -> Self {
        app.metrics.active_requests.inc();
        Self(app.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.metrics.active_requests.dec();
    }
}

/// What the access line says beside what HTTP says.
#[derive(Default)]
struct Told {
    client: Option<Arc<str>>,
    outcome: Option<Outcome>,
    error: Option<(&'static str, Option<String>)>,
}

impl Told {
    fn of(outcome: &Result<Reply, Error>) -> Self {
        match outcome {
            Ok(reply) => {
                Self { client: Some(reply.client.clone()), outcome: Some(reply.outcome), error: None }
            }
            Err(error) => Self {
                client: error.client.clone(),
                outcome: None,
                error: Some((error.kind.as_str(), error.cause())),
            },
        }
    }

    /// One line for each request: no path, no query string, no body, no credential.
    fn log(
        &self,
        request_id: &str,
        method: &Method,
        route: Option<&Route>,
        status: StatusCode,
        duration: std::time::Duration,
    ) {
        let (error, cause) = match &self.error {
            Some((kind, cause)) => (Some(*kind), cause.as_deref()),
            None => (None, None),
        };
        tracing::info!(
            target: "access",
            request_id,
            method = method.as_str(),
            route = route.map(|route| route.name.as_str()),
            status = status.as_u16(),
            duration_ms = duration.as_secs_f64() * 1000.0,
            client = self.client.as_deref(),
            cache = self.outcome.map(Outcome::as_str),
            error,
            cause,
        );
    }
}

/// The caller's id if it is a plain one, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let is_plain = |id: &&str| {
        (1..=LONGEST_REQUEST_ID).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let theirs = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_plain);
    theirs.map(str::to_owned).or_else(|| random_id().ok()).unwrap_or_default()
}

/// With the id it can be found by in the log.
pub(super) fn finished(mut response: Response, request_id: &str) -> Response {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
