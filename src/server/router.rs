//! Every route there is, of both listeners. What is around them all is in [`super::middleware`].

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use http::{Request, Uri};
use hyper::body::Incoming;
use tower::util::MapRequest;

use super::route::{self, RouteService};
use super::{admin, docs, ops};
use crate::app::App;
use crate::routes::{self, ROUTES};

/// The routes of the main listener.
pub type Main = MapRequest<Router, fn(Request<Incoming>) -> Request<Incoming>>;

/// The main listener: the upstream's routes under their own paths, the contract, and nothing else.
pub fn main() -> Main {
    let mut routes = Router::new()
        .route_service("/openapi.json", docs::document.with_state(()))
        .route_service("/docs", docs::page.with_state(()))
        .fallback_service(route::nothing.with_state(()));
    for route in &ROUTES {
        for path in route.paths {
            routes = routes.route_service(path, RouteService(route));
        }
    }
    MapRequest::new(routes, folded)
}

/// The ops listener: who watches, and who holds the ops token.
pub fn ops(app: &Arc<App>) -> Router {
    let admin = Router::new()
        .route("/admin/config", get(admin::config))
        .route("/admin/reload", post(admin::reload))
        .route("/admin/purge", post(admin::purge))
        .route("/admin/explain", post(admin::explain))
        .layer(from_fn_with_state(admin::Door::new(app.clone()), admin::guard));
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ops::ready))
        .route("/version", get(ops::version))
        .route("/metrics", get(ops::metrics))
        .merge(admin)
        .fallback(ops::nothing)
        .with_state(app.clone())
}

/// A literal last segment matches in any letter case, and axum's table knows one.
fn folded<B>(mut request: Request<B>) -> Request<B> {
    if let Some(target) = request.uri().path_and_query().and_then(routes::folded) {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(target);
        // A target in place of another one: it stays valid.
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}
