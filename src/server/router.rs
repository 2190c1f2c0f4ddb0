//! Every route there is, of both listeners. What is around them all is in [`super::middleware`].

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::route::{self, RouteService};
use super::{admin, docs, ops};
use crate::app::App;
use crate::routes::ROUTES;

/// The main listener: the upstream's routes under their own paths, the contract, and nothing else.
pub fn main() -> Router {
    let mut router = Router::new()
        .route_service("/openapi.json", docs::document.with_state(()))
        .route_service("/docs", docs::page.with_state(()))
        // Paths whose last segment differs from a route's in letter case. Not `fallback`: axum would write a
        // `Content-Length` into its answers, even into a 304.
        .route_service("/{*path}", route::in_other_letters.with_state(()))
        .fallback(route::nothing);
    for route in &ROUTES {
        for path in route.paths {
            router = router.route_service(path, RouteService(route));
        }
    }
    router
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
