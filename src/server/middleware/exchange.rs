//! One request and its response, from the outside: the request's id, the fields that every answer has, metrics, the
//! access line and the trace. Here, and only here, an [`Error`] becomes a problem document.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Extensions, Method, Request, StatusCode, Version};
use http_body_util::Either;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::summary::Summary;
use crate::access::{cors, forwarded};
use crate::app::{App, Snapshot};
use crate::clock::Moment;
use crate::error::cause::Cause;
use crate::error::{Error, Kind};
use crate::http::body::InPieces;
use crate::http::problem;
use crate::http::request_id::{REQUEST_ID, RequestId};
use crate::observe::access_log::{AccessLine, Milliseconds};
use crate::observe::metrics::{CacheOutcome, method_name};
use crate::observe::trace::{ServerSpan, Trace};
use crate::routes::Route;
use crate::server::stages;

/// What is known of a request from its arrival on. It goes along as an extension of the request, for what is below.
pub struct Exchange {
    pub app: Arc<App>,
    /// The configuration of the moment it came.
    pub snapshot: Arc<Snapshot>,
    pub id: RequestId,
    /// Where somebody wants to know.
    pub trace: Option<Arc<Trace>>,
    pub began: Moment,
    /// Of who asks, as far as trusted proxies tell.
    pub address: IpAddr,
    version: Version,
    method: Method,
    /// The page that asks, if its answer has to say who may read it.
    origin: Option<HeaderValue>,
    /// Once the request is known to be for one.
    route: OnceLock<&'static Route>,
}

impl Exchange {
    fn begin<B>(app: &Arc<App>, peer: IpAddr, request: &Request<B>) -> Self {
        let (snapshot, headers) = (app.snapshot(), request.headers());
        let origin = cors::origin(headers).filter(|_| !cors::is_preflight(request.method(), headers));
        Self {
            id: RequestId::of(headers, &app.request_ids),
            trace: Trace::begin(snapshot.tracer.as_ref(), snapshot.access_log.is_on(), headers),
            began: app.clock.moment(),
            address: forwarded::client(peer, headers, &snapshot.config.server.proxies),
            version: request.version(),
            method: request.method().clone(),
            origin: origin.cloned(),
            route: OnceLock::new(),
            snapshot,
            app: app.clone(),
        }
    }

    /// That of a request.
    pub fn of(extensions: &Extensions) -> Result<&Arc<Self>, Error> {
        extensions.get().ok_or_else(|| Error::new(Kind::Internal, "a request outside of its exchange"))
    }

    /// The request is one for `route`.
    pub fn is_for(&self, route: &'static Route) {
        // A request is for one route, so this is set once; a second value is ignored.
        let _ = self.route.set(route);
    }

    /// The error for a request that is refused before it was identified. If it has no valid key, it counts against
    /// the limit of its address.
    pub fn refused(&self, headers: &HeaderMap, error: Error) -> Error {
        stages::count_unless_known(&self.app, &self.snapshot, headers, self.address, error)
    }

    /// The response as its caller gets it.
    fn answer<B>(&self, response: Response<B>) -> (Answer<B>, Summary) {
        let (mut head, body) = response.into_parts();
        let (mut response, summary) = match head.extensions.remove::<Error>() {
            Some(error) => {
                let summary = Summary::of(&error);
                (problem::response(&error, self.id.as_str()).map(Either::Right), summary)
            }
            None => {
                let summary = head.extensions.remove().unwrap_or_default();
                (Response::from_parts(head, Either::Left(body)), summary)
            }
        };
        let headers = response.headers_mut();
        if let Some(origin) = &self.origin {
            // By the configuration of now, like the answer itself.
            let snapshot = self.app.snapshot();
            let clients = &snapshot.config.clients;
            let client = summary.client.as_deref().and_then(|name| clients.named(name));
            let fields = cors::answer(origin, client.map(Arc::as_ref), clients);
            headers.extend(fields.into_iter().flatten());
        }
        if self.snapshot.config.clients.have_origins() {
            varies_on_origin(headers);
        }
        headers.insert(REQUEST_ID, self.id.header());
        (response.map(|body| InPieces::new(body, self.version)), summary)
    }

    /// Writes down what the request came to.
    fn note(&self, status: StatusCode, summary: &Summary) {
        let (app, route) = (&self.app, self.route.get().copied());
        let duration = app.clock.uptime().saturating_sub(self.began.uptime);
        let exemplar = self.trace.as_ref().and_then(|trace| trace.recorded_id());
        app.metrics.http.request(route, &self.method, status.as_u16(), duration, exemplar);
        if let Some(route) = route {
            app.metrics.cache.request(route, summary.outcome.unwrap_or(CacheOutcome::Bypass));
        }
        app.metrics.access.answered(status, summary.client.as_deref(), self.address);
        if self.snapshot.access_log.is_on() {
            self.log(summary, status, duration);
        }
        self.tell(Some(status), summary);
    }

    fn log(&self, summary: &Summary, status: StatusCode, duration: Duration) {
        let failed = summary.error.as_ref();
        self.snapshot.access_log.take(&AccessLine {
            timestamp: self.app.clock.now(),
            level: "INFO",
            target: "access",
            request_id: self.id.as_str(),
            trace_id: self.trace.as_ref().map(|trace| trace.id()),
            // As in the metrics: a method may be as long as a head.
            method: method_name(&self.method),
            route: self.route.get().map(|route| route.name.as_str()),
            status: status.as_u16(),
            duration_ms: Milliseconds(duration),
            address: Some(self.address).filter(|_| self.snapshot.config.log.address),
            client: summary.client.as_deref(),
            cache: summary.outcome.map(CacheOutcome::as_str),
            upstream: summary.calls.as_ref(),
            error: failed.map(|failed| failed.kind),
            cause: failed.and_then(|failed| failed.cause).map(Cause::as_str),
            concerns: failed.and_then(|failed| failed.concerns.as_deref()),
            detail: failed.and_then(|failed| failed.detail.as_deref()),
        });
    }

    /// Tells whoever collects traces; without a status of a request that its caller gave up.
    fn tell(&self, status: Option<StatusCode>, summary: &Summary) {
        let Some(trace) = &self.trace else { return };
        trace.end(&ServerSpan {
            method: method_name(&self.method),
            route: self.route.get().and_then(|route| route.paths.first().copied()),
            is_tls: self.snapshot.config.server.tls.is_some(),
            version: self.version,
            status: status.map(|status| status.as_u16()),
            client: summary.client.as_deref(),
            outcome: summary.outcome.map(CacheOutcome::as_str),
            error: summary.error.as_ref().map(|failed| failed.kind),
        });
    }
}

/// Where any client has origins, every answer may depend on the page that asked.
fn varies_on_origin(headers: &mut HeaderMap) {
    let vary = match headers.get(header::VARY).and_then(|vary| vary.to_str().ok()) {
        Some(vary) => HeaderValue::try_from(format!("{vary}, Origin")),
        None => Ok(HeaderValue::from_static("Origin")),
    };
    headers.insert(header::VARY, vary.unwrap_or(HeaderValue::from_static("*")));
}

/// A response with the body that was made below, or that of a problem document.
type Answer<B> = Response<InPieces<Either<B, Body>>>;

/// Puts an [`Exchange`] around each request of a connection.
#[derive(Clone)]
pub struct ExchangeLayer {
    pub app: Arc<App>,
    /// At the other end of the connection.
    pub peer: IpAddr,
}

impl<S> Layer<S> for ExchangeLayer {
    type Service = Exchanged<S>;

    fn layer(&self, inner: S) -> Exchanged<S> {
        Exchanged { inner, layer: self.clone() }
    }
}

/// A service with an [`Exchange`] around each request.
#[derive(Clone)]
pub struct Exchanged<S> {
    inner: S,
    layer: ExchangeLayer,
}

impl<S, Sent, B> Service<Request<Sent>> for Exchanged<S>
where
    S: Service<Request<Sent>, Response = Response<B>, Error = Infallible>,
{
    type Response = Answer<B>;
    type Error = Infallible;
    type Future = Exchanging<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Sent>) -> Self::Future {
        let ExchangeLayer { app, peer } = &self.layer;
        let exchange = Arc::new(Exchange::begin(app, *peer, &request));
        let under_way = UnderWay::begin(exchange.clone());
        request.extensions_mut().insert(exchange);
        Exchanging { answering: self.inner.call(request), under_way }
    }
}

pin_project! {
    /// A request that is being answered.
    pub struct Exchanging<F> {
        #[pin]
        answering: F,
        under_way: UnderWay,
    }
}

impl<F, B> Future for Exchanging<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Answer<B>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.answering.poll(context));
        Poll::Ready(Ok(this.under_way.end(response)))
    }
}

/// Counts a request as long as it has no answer, also when its caller hangs up.
struct UnderWay {
    exchange: Arc<Exchange>,
    is_answered: bool,
}

impl UnderWay {
    fn begin(exchange: Arc<Exchange>) -> Self {
        exchange.app.metrics.http.active_requests.inc();
        Self { exchange, is_answered: false }
    }

    fn end<B>(&mut self, response: Response<B>) -> Answer<B> {
        let (response, summary) = self.exchange.answer(response);
        self.exchange.note(response.status(), &summary);
        self.is_answered = true;
        response
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.is_answered {
            self.exchange.tell(None, &Summary::default());
        }
        self.exchange.app.metrics.http.active_requests.dec();
    }
}
