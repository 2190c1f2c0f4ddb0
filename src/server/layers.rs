//! What holds for every HTTP request: its id, its route, its line in the log, its place in the
//! metrics, and the one spot where an error becomes a response.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use tower::Service as _;

use super::docs;
use super::guard;
use super::stages::{self, Call};
use crate::access::{cors, forwarded};
use crate::app::{App, Snapshot};
use crate::body::{Body, Response};
use crate::config::Clients;
use crate::error::{Error, Kind};
use crate::metrics::Outcome;
use crate::reply::Reply;
use crate::request_id::{REQUEST_ID, RequestId};
use crate::routes::{self, Found, Route};

/// Which queries a route takes (RFC 10008 §3).
const ACCEPT_QUERY: HeaderName = HeaderName::from_static("accept-query");
const QUERY_FORMAT: HeaderValue = HeaderValue::from_static(r#""application/json""#);

/// The main listener's service, for one connection.
pub fn service(
    app: Arc<App>,
    peer: IpAddr,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone {
    service_fn(move |request: Request<Incoming>| {
        let app = app.clone();
        async move {
            // When it is first polled and not before: what waits for a core is bounded by connections
            // and their streams, and to refuse it would cost as much as a hit.
            let active = Active::count(app);
            let app = &active.app;
            let id = RequestId::of(request.headers(), &app.request_ids);
            let answered = AssertUnwindSafe(observe(&active, peer, &id, request)).catch_unwind().await;
            // The panic itself has been logged by the hook.
            let failed = |_| Error::new(Kind::Internal, "the gateway failed").into_response(id.as_str());
            let mut response = answered.unwrap_or_else(failed);
            response.headers_mut().insert(REQUEST_ID, id.header());
            Ok(response)
        }
    })
}

/// Turns HTTP into a typed call and its outcome into HTTP.
async fn observe(
    active: &Active,
    peer: IpAddr,
    request_id: &RequestId,
    request: Request<Incoming>,
) -> Response {
    let started = Instant::now();
    let app = &active.app;
    let snapshot = app.snapshot();
    let log = snapshot.config.log.access;
    let method = request.method().clone();
    let address = forwarded::client(peer, request.headers(), &snapshot.config.server.proxies);

    let (head, body) = request.into_parts();
    let origin = cors::origin(&head.headers).cloned();
    let clients = snapshot.clone();
    let clients = &clients.config.clients;

    let (route, told, mut response) = if cors::is_preflight(&head) {
        let response =
            preflight(&head, clients).unwrap_or_else(|error| error.into_response(request_id.as_str()));
        (None, Told::default(), response)
    } else if let Some(page) = docs::answer(&head, &snapshot) {
        let page = checked(&head, &body, &snapshot).and(page);
        (None, Told::default(), page.unwrap_or_else(|error| error.into_response(request_id.as_str())))
    } else {
        let (route, outcome) = match active
            .admit(&snapshot)
            .and_then(|()| checked(&head, &body, &snapshot))
            .and_then(|()| found(&head))
        {
            Err(error) => (None, Err(error)),
            Ok((route, ids)) => {
                let (app, request_id, now) = (app.clone(), request_id.clone(), app.clock.moment());
                let call = Call { app, snapshot, route, ids, request_id, address, now, head, body };
                (Some(route), stages::stack().call(call).await.map_err(Error::from_stack))
            }
        };
        let told = Told::of(&outcome);
        let mut response = match outcome {
            Ok(reply) => reply.response,
            Err(error) => error.into_response(request_id.as_str()),
        };
        if let Some(origin) = &origin {
            let client = told.client.as_deref().and_then(|name| clients.named(name));
            let headers = cors::answer(origin, client.map(Arc::as_ref), clients);
            response.headers_mut().extend(headers.into_iter().flatten());
        }
        (route, told, response)
    };
    if clients.have_origins() {
        varies_on_origin(response.headers_mut());
    }
    if route.is_some_and(Route::takes_query) {
        response.headers_mut().insert(ACCEPT_QUERY, QUERY_FORMAT);
    }

    let duration = started.elapsed();
    let status = response.status();
    app.metrics.request(route, &method, status.as_u16(), duration);
    if log {
        told.log(request_id.as_str(), &method, route, status, duration);
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

fn checked(head: &Parts, body: &Incoming, snapshot: &Snapshot) -> Result<(), Error> {
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

/// After so long a gateway that has too much to do may have done it.
const SHED_FOR: Duration = Duration::from_secs(1);

/// Counts a request as long as it is under way, also when its caller hangs up.
struct Active {
    app: Arc<App>,
    /// How many there were already.
    before: i64,
}

impl Active {
    fn count(app: Arc<App>) -> Self {
        Self { before: app.metrics.active_requests.inc(), app }
    }

    /// Sheds what is more than the gateway takes on at a time, before anything is looked at.
    fn admit(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let most = snapshot.config.server.max_requests;
        if usize::try_from(self.before).is_ok_and(|before| before >= most) {
            let detail = format!("the gateway has {most} requests under way, and takes on no more");
            return Err(Error::new(Kind::TemporaryReducedCapacity, detail).retry_after(SHED_FOR));
        }
        Ok(())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.app.metrics.active_requests.dec();
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
        duration: Duration,
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
