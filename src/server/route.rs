//! One of the routes, as a service of the router's: a request for it goes through the typed stages.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::future::{BoxFuture, Either, FutureExt, Ready, ready};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode};
use sync_wrapper::SyncWrapper;
use tower::Service;

use super::middleware::Exchange;
use super::stages::{self, ClientRequest};
use crate::access::cors;
use crate::error::{Error, Kind};
use crate::reply::Reply;
use crate::routes::{self, Found, Ids, Route};

/// Which queries a route takes (RFC 10008 §3).
const ACCEPT_QUERY: HeaderName = HeaderName::from_static("accept-query");
const QUERY_FORMAT: HeaderValue = HeaderValue::from_static(r#""application/json""#);

/// Answers requests for one route, by any method: axum's own table of methods knows no QUERY, and would write a length
/// into a 304.
#[derive(Clone, Copy)]
pub struct RouteService(pub &'static Route);

impl Service<Request<Body>> for RouteService {
    type Response = Response;
    type Error = Infallible;
    /// At once on the way of a hit.
    type Future =
        Either<Ready<Result<Response, Infallible>>, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let route = self.0;
        let (head, body) = request.into_parts();
        let call = match self.asked(head, body) {
            Ok(ForPath::ClientRequest(call)) => call,
            Ok(ForPath::Preflight(response)) => return Either::Left(ready(Ok(response))),
            Err(error) => return Either::Left(ready(Ok(error.into_response()))),
        };
        match stages::stack().call(call) {
            Either::Left(outcome) => Either::Left(ready(Ok(response(route, outcome.into_inner())))),
            Either::Right(answering) => {
                Either::Right(answering.map(|outcome| Ok(response(route, outcome))).boxed())
            }
        }
    }
}

/// What a request for a route's path is.
enum ForPath {
    ClientRequest(Box<ClientRequest>),
    /// With its answer.
    Preflight(Response),
}

impl RouteService {
    fn asked(self, head: Parts, body: Body) -> Result<ForPath, Error> {
        let route = self.0;
        let exchange = Exchange::of(&head.extensions)?.clone();
        if cors::is_preflight(&head.method, &head.headers) {
            let answer = preflight(route, &head.headers, &exchange);
            return answer.map(ForPath::Preflight).map_err(|error| exchange.refused(&head.headers, error));
        }
        let ids = if route.takes(&head.method) {
            head.uri.path_and_query().and_then(|target| route.ids(target)).ok_or_else(no_such_route)
        } else {
            Err(method_not_allowed(route.allow()))
        };
        let ids = ids.map_err(|error| exchange.refused(&head.headers, error))?;
        exchange.is_for(route);
        Ok(ForPath::ClientRequest(Box::new(ClientRequest {
            app: exchange.app.clone(),
            snapshot: exchange.snapshot.clone(),
            route,
            ids,
            request_id: exchange.id.clone(),
            trace: exchange.trace.clone(),
            upstream_calls: OnceLock::new(),
            address: exchange.address,
            now: exchange.began,
            head,
            body: SyncWrapper::new(body),
        })))
    }
}

fn response(route: &Route, outcome: Result<Reply, Error>) -> Response {
    match outcome {
        Ok(mut reply) => {
            if route.takes_query() {
                reply.response.headers_mut().insert(ACCEPT_QUERY, QUERY_FORMAT);
            }
            reply.into_response()
        }
        Err(error) if route.takes_query() => error.with_header(ACCEPT_QUERY, QUERY_FORMAT).into_response(),
        Err(error) => error.into_response(),
    }
}

/// The answer to a browser that asks whether a page of its origin may send a request.
fn preflight(route: &Route, headers: &HeaderMap, exchange: &Exchange) -> Result<Response, Error> {
    let clients = &exchange.snapshot.config.clients;
    let headers = cors::origin(headers).and_then(|origin| cors::preflight(origin, route.allow(), clients));
    let headers = headers
        .ok_or_else(|| Error::new(Kind::Forbidden, "pages of this origin may not call the gateway"))?;
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

/// The route that a method and a path lead to, or what is wrong with them.
pub fn find(method: &Method, target: &PathAndQuery) -> Result<(&'static Route, Ids), Error> {
    match routes::find(method, target) {
        Found::Route(route, ids) => Ok((route, ids)),
        Found::MethodNotAllowed(allow) => Err(method_not_allowed(allow)),
        Found::Nothing => Err(no_such_route()),
    }
}

/// A request that leads to nothing.
pub async fn nothing(Extension(exchange): Extension<Arc<Exchange>>, headers: HeaderMap) -> Error {
    exchange.refused(&headers, no_such_route())
}

/// A path of which axum's table knows none: the literal last segment of a route's matches in any letter case, and axum
/// knows one.
pub async fn in_other_letters(
    Extension(exchange): Extension<Arc<Exchange>>,
    request: Request<Body>,
) -> Response {
    match request.uri().path_and_query().and_then(routes::of_path) {
        Some(route) => match RouteService(route).call(request).await {
            Ok(response) => response,
        },
        None => exchange.refused(request.headers(), no_such_route()).into_response(),
    }
}

fn no_such_route() -> Error {
    Error::new(Kind::NotFound, "there is no such route")
}

fn method_not_allowed(allow: &'static str) -> Error {
    let error = Error::new(Kind::MethodNotAllowed, format!("this path takes {allow}"))
        .with_header(header::ALLOW, HeaderValue::from_static(allow));
    if allow.contains("QUERY") { error.with_header(ACCEPT_QUERY, QUERY_FORMAT) } else { error }
}
