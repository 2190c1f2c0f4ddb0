//! What holds for every HTTP request: its id, its route, its line in the log, its place in the
//! metrics, and the one spot where an error becomes a response.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, Ready, ready};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use tower::Service as _;

use super::docs;
use super::guard;
use super::stages::{self, Call};
use crate::access::{cors, forwarded};
use crate::app::{App, Snapshot};
use crate::clock::Moment;
use crate::config::Clients;
use crate::error::cause::Cause;
use crate::error::{Error, Kind};
use crate::http::body::{Body, Response};
use crate::http::problem;
use crate::http::request_id::{REQUEST_ID, RequestId};
use crate::observe::access_log::{AccessLine, Milliseconds};
use crate::observe::metrics::{CacheOutcome, method_name};
use crate::observe::trace::{ServerSpan, Trace};
use crate::reply::Reply;
use crate::routes::{self, Found, Route};

/// Which queries a route takes (RFC 10008 §3).
const ACCEPT_QUERY: HeaderName = HeaderName::from_static("accept-query");
const QUERY_FORMAT: HeaderValue = HeaderValue::from_static(r#""application/json""#);

/// An answer: at once on the way of a hit, which then needs no box, or later.
type Answering =
    Either<Ready<Result<Response, Infallible>>, BoxFuture<'static, Result<Response, Infallible>>>;

/// The main listener's service, for one connection.
pub fn service(
    app: Arc<App>,
    peer: IpAddr,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone {
    service_fn(move |request: Request<Incoming>| {
        let id = RequestId::of(request.headers(), &app.request_ids);
        if guard::is_open(request.method(), request.version(), request.body()) {
            return Either::Right(once_ended(app.clone(), peer, id, request).boxed());
        }
        let answering = catch_unwind(AssertUnwindSafe(|| answer(&app, peer, &id, request, false)));
        answering.unwrap_or_else(|_| Either::Left(ready(Ok(failed(&id)))))
    })
}

/// A request of HTTP/2 that must have no content, and says so after its head.
async fn once_ended(
    app: Arc<App>,
    peer: IpAddr,
    id: RequestId,
    mut request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let patience = app.snapshot().config.server.body_timeout;
    let has_content = guard::has_content(request.body_mut(), patience).await;
    let answering = AssertUnwindSafe(async { answer(&app, peer, &id, request, has_content).await });
    answering.catch_unwind().await.unwrap_or_else(|_| Ok(failed(&id)))
}

/// What a panic comes to. The panic itself has been logged by the hook.
fn failed(id: &RequestId) -> Response {
    let mut response = problem::response(&Error::new(Kind::Internal, "the gateway failed"), id.as_str());
    response.headers_mut().insert(REQUEST_ID, id.header());
    no_sniffing(response.headers_mut());
    response
}

/// No answer is taken by a browser for anything but what it says that it is: bodies are the upstream's.
pub(super) fn no_sniffing(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Turns HTTP into a typed call and its outcome into HTTP.
fn answer(
    app: &Arc<App>,
    peer: IpAddr,
    id: &RequestId,
    request: Request<Incoming>,
    has_content: bool,
) -> Answering {
    let (head, body) = request.into_parts();
    let mut exchange = Exchange::begin(app.clone(), id.clone(), &head);
    let snapshot = exchange.snapshot.clone();
    let at_once = |response| Either::Left(ready(Ok(response)));
    if cors::is_preflight(&head) {
        return at_once(exchange.told(preflight(&head, &snapshot.config.clients)));
    }
    let checked = guard::check(&head, has_content, &guard::Limits::of(&snapshot.config.server));
    if let Err(refusal) = checked
        && refusal.is_malformed(head.version)
    {
        return at_once(exchange.answered(Err(refusal.into())).map(|_| Body::malformed()));
    }
    if let Some(page) = docs::answer(&head, &snapshot) {
        return at_once(exchange.told(checked.map_err(Error::from).and(page)));
    }
    let address = || forwarded::client(peer, &head.headers, &snapshot.config.server.proxies);
    let (route, ids) = match checked.map_err(Error::from).and_then(|()| found(&head)) {
        Ok(found) => found,
        Err(error) => {
            let error = stages::count_unless_known(app, &snapshot, &head, address(), error);
            return at_once(exchange.answered(Err(error)));
        }
    };
    exchange.route = Some(route);
    let address = address();
    let (app, request_id, now) = (app.clone(), id.clone(), exchange.began);
    let trace = exchange.trace.clone();
    let call = Call { app, snapshot, route, ids, request_id, trace, address, now, head, body };
    match stages::stack().call(Box::new(call)) {
        Either::Left(outcome) => at_once(exchange.answered(outcome.into_inner())),
        Either::Right(answering) => {
            let id = id.clone();
            let answered = answering.map(move |outcome| exchange.answered(outcome));
            let answered = AssertUnwindSafe(answered).catch_unwind();
            Either::Right(answered.map(move |done| Ok(done.unwrap_or_else(|_| failed(&id)))).boxed())
        }
    }
}

/// One request and its response: counted as long as it is under way, also when its caller hangs up.
struct Exchange {
    app: Arc<App>,
    snapshot: Arc<Snapshot>,
    id: RequestId,
    /// Where somebody wants to know.
    trace: Option<Arc<Trace>>,
    began: Moment,
    version: Version,
    method: Method,
    origin: Option<HeaderValue>,
    route: Option<&'static Route>,
}

impl Exchange {
    fn begin(app: Arc<App>, id: RequestId, head: &Parts) -> Self {
        let snapshot = app.snapshot();
        // Nothing between here and the end can fail: only what is whole takes it back.
        app.metrics.http.active_requests.inc();
        Self {
            trace: Trace::begin(snapshot.tracer.as_ref(), snapshot.access_log.is_on(), head),
            snapshot,
            began: app.clock.moment(),
            id,
            version: head.version,
            method: head.method.clone(),
            origin: cors::origin(&head.headers).cloned(),
            route: None,
            app,
        }
    }

    /// What the stack came to, or what kept the request from it.
    fn answered(mut self, outcome: Result<Reply, Error>) -> Response {
        let (mut response, told) = match outcome {
            Ok(Reply { response, client, outcome }) => {
                (response, Told { client: Some(client), outcome: Some(outcome), error: None })
            }
            Err(error) => {
                let told = Told::of(&error);
                (problem::response(&error, self.id.as_str()), told)
            }
        };
        if let Some(origin) = &self.origin {
            // By the configuration of now, like the answer itself.
            self.snapshot = self.app.snapshot();
            let clients = &self.snapshot.config.clients;
            let client = told.client.as_deref().and_then(|name| clients.named(name));
            let headers = cors::answer(origin, client.map(Arc::as_ref), clients);
            response.headers_mut().extend(headers.into_iter().flatten());
        }
        self.end(&mut response, &told);
        response
    }

    /// What has nothing to do with the stack.
    fn told(mut self, outcome: Result<Response, Error>) -> Response {
        let mut response = outcome.unwrap_or_else(|error| problem::response(&error, self.id.as_str()));
        self.end(&mut response, &Told::default());
        response
    }

    fn end(&mut self, response: &mut Response, told: &Told) {
        let headers = response.headers_mut();
        if self.snapshot.config.clients.have_origins() {
            varies_on_origin(headers);
        }
        if self.route.is_some_and(Route::takes_query) {
            headers.insert(ACCEPT_QUERY, QUERY_FORMAT);
        }
        headers.insert(REQUEST_ID, self.id.header());
        no_sniffing(headers);
        if self.version == Version::HTTP_2 {
            response.body_mut().in_pieces();
        }
        let duration = self.app.clock.uptime().saturating_sub(self.began.uptime);
        let status = response.status();
        let exemplar = self.trace.as_ref().and_then(|trace| trace.recorded_id());
        self.app.metrics.http.request(self.route, &self.method, status.as_u16(), duration, exemplar);
        if let Some(route) = self.route {
            self.app.metrics.cache.request(route, told.outcome.unwrap_or(CacheOutcome::Bypass));
        }
        if self.snapshot.access_log.is_on() {
            self.log(told, status, duration);
        }
        self.tell(Some(status), told);
    }
}

impl Exchange {
    fn log(&self, told: &Told, status: StatusCode, duration: Duration) {
        let failed = told.error.as_ref();
        self.snapshot.access_log.take(&AccessLine {
            timestamp: self.app.clock.now(),
            level: "INFO",
            target: "access",
            request_id: self.id.as_str(),
            trace_id: self.trace.as_ref().map(|trace| trace.id()),
            // As in the metrics: a method may be as long as a head.
            method: method_name(&self.method),
            route: self.route.map(|route| route.name.as_str()),
            status: status.as_u16(),
            duration_ms: Milliseconds(duration),
            client: told.client.as_deref(),
            cache: told.outcome.map(CacheOutcome::as_str),
            error: failed.map(|failed| failed.kind),
            cause: failed.and_then(|failed| failed.cause).map(Cause::as_str),
            concerns: failed.and_then(|failed| failed.concerns.as_deref()),
            detail: failed.and_then(|failed| failed.detail.as_deref()),
        });
    }

    /// Tells whoever collects traces, once.
    fn tell(&mut self, status: Option<StatusCode>, told: &Told) {
        let Some(trace) = self.trace.take() else { return };
        trace.end(&ServerSpan {
            method: method_name(&self.method),
            route: self.route.and_then(|route| route.paths.first().copied()),
            is_tls: self.snapshot.config.server.tls.is_some(),
            version: self.version,
            status: status.map(|status| status.as_u16()),
            client: told.client.as_deref(),
            outcome: told.outcome.map(CacheOutcome::as_str),
            error: told.error.as_ref().map(|failed| failed.kind),
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.tell(None, &Told::default());
        self.app.metrics.http.active_requests.dec();
    }
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

fn found(head: &Parts) -> Result<(&'static Route, routes::Ids), Error> {
    let Some(target) = head.uri.path_and_query() else {
        return Err(Error::new(Kind::NotFound, "there is no such route"));
    };
    route(&head.method, target)
}

/// The route that a method and a path lead to, or what is wrong with them.
pub(super) fn route(method: &Method, target: &PathAndQuery) -> Result<(&'static Route, routes::Ids), Error> {
    match routes::find(method, target) {
        Found::Route(route, ids) => Ok((route, ids)),
        Found::Nothing => Err(Error::new(Kind::NotFound, "there is no such route")),
        Found::MethodNotAllowed(allow) => {
            let error = Error::new(Kind::MethodNotAllowed, format!("this path takes {allow}"))
                .with_header(header::ALLOW, HeaderValue::from_static(allow));
            Err(if allow.contains("QUERY") { error.with_header(ACCEPT_QUERY, QUERY_FORMAT) } else { error })
        }
    }
}

/// What the access line says beside what HTTP says.
#[derive(Default)]
struct Told {
    client: Option<Arc<str>>,
    outcome: Option<CacheOutcome>,
    error: Option<Failed>,
}

struct Failed {
    kind: &'static str,
    cause: Option<Cause>,
    concerns: Option<Arc<str>>,
    detail: Option<String>,
}

impl Told {
    fn of(error: &Error) -> Self {
        Self {
            client: error.client.clone(),
            outcome: None,
            error: Some(Failed {
                kind: error.kind.as_str(),
                cause: error.reason(),
                concerns: error.concerns().cloned(),
                detail: error.cause(),
            }),
        }
    }
}
