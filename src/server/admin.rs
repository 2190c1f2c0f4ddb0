//! `/admin/*` on the ops listener: for who holds the ops token, and not there without one.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use secrecy::ExposeSecret;
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::config::effective;

/// The admin routes, behind the ops token.
pub fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/admin/config", get(config))
        .route("/admin/reload", post(reload))
        .layer(from_fn_with_state(app.clone(), guard))
}

/// 404 where no token is configured, 401 for another one. Compared in constant time.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let snapshot = app.snapshot();
    let Some(token) = &snapshot.config.ops.token else { return StatusCode::NOT_FOUND.into_response() };
    let presented = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let presented = presented.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
    if presented.ct_eq(token.expose_secret().as_bytes()).into() {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, r#"Bearer realm="kore-gateway ops""#)]).into_response()
}

/// What is in effect, as TOML, secrets masked.
async fn config(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/toml")], effective(app.snapshot().written.clone()))
}

/// Takes up the configuration as it is written now, or says everything that is wrong with it.
async fn reload(State(app): State<Arc<App>>) -> Response {
    let reloading = tokio::task::spawn_blocking(move || app.reload()).await;
    match reloading {
        Ok(Ok(())) => Json(json!({ "reloaded": true })).into_response(),
        Ok(Err(faults)) => {
            let errors: Vec<_> = faults
                .iter()
                .map(|fault| json!({ "detail": fault.to_string(), "path": fault.path, "msg": fault.problem }))
                .collect();
            let problem = json!({
                "type": "/problems/invalid-configuration",
                "title": "The configuration was not reloaded",
                "status": StatusCode::UNPROCESSABLE_ENTITY.as_u16(),
                "detail": "the old configuration stays in effect",
                "errors": errors,
            });
            let content_type = [(CONTENT_TYPE, "application/problem+json")];
            (StatusCode::UNPROCESSABLE_ENTITY, content_type, problem.to_string()).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
