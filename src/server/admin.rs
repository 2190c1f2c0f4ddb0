//! `/admin/*` on the ops listener: for who holds the ops token, and not there without one.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::metrics::counter::Counter;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::json;

use super::explain;
use super::ops::problem;
use crate::access::identify::bearer;
use crate::access::rate_limit::Limiter;
use crate::app::App;
use crate::cache::Purge;
use crate::config::{Rate, effective};
use crate::error::whole_seconds;
use crate::json::Object;
use crate::routes::ROUTES;

/// Wrong tokens that are answered as such, whoever sends them. The right one is never held up.
const GUESSES: Rate = Rate { amount: 60, window: Duration::from_secs(60) };

/// What `/admin/*` knows of those who ask.
pub struct Door {
    app: Arc<App>,
    guesses: Limiter,
}

impl Door {
    pub fn new(app: Arc<App>) -> Arc<Self> {
        Arc::new(Self { app, guesses: Limiter::new("ops", GUESSES, Counter::default()) })
    }
}

/// 404 where no token is configured, 401 for another one. Compared in constant time.
pub async fn guard(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let snapshot = door.app.snapshot();
    let Some(token) = &snapshot.config.ops.token else { return StatusCode::NOT_FOUND.into_response() };
    let mut fields = request.headers().get_all(AUTHORIZATION).iter();
    let presented = fields.next().and_then(|field| bearer(field.as_bytes())).unwrap_or_default();
    if fields.next().is_some() {
        return invalid(
            "Which credential is meant cannot be told",
            "`Authorization` is there twice; send it once",
        );
    }
    if verify_slices_are_equal(presented, token.expose_secret().as_bytes()).is_ok() {
        return next.run(request).await;
    }
    door.app.metrics.access.ops_unauthenticated.inc();
    match door.guesses.check(door.app.clock.uptime()) {
        Ok(_) => {
            let challenge = [(WWW_AUTHENTICATE, r#"Bearer realm="kore-gateway ops""#)];
            (StatusCode::UNAUTHORIZED, challenge).into_response()
        }
        Err(limit_status) => {
            let detail = "too many requests without the ops token";
            let refused = problem(StatusCode::TOO_MANY_REQUESTS, "too-many-guesses", "Wait", detail);
            ([(RETRY_AFTER, whole_seconds(limit_status.reset))], refused).into_response()
        }
    }
}

/// What is in effect, as TOML, secrets masked.
pub async fn config(State(app): State<Arc<App>>) -> Response {
    match effective(app.snapshot().written.clone()) {
        Ok(text) => ([(CONTENT_TYPE, "application/toml")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Takes up the configuration as it is written now, or says everything that is wrong with it.
pub async fn reload(State(app): State<Arc<App>>) -> Response {
    match app.reload().await {
        Ok(()) => Json(json!({ "reloaded": true })).into_response(),
        Err(faults) => {
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
    }
}

/// What to forget: exactly one of these.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Forget {
    ConversationId(String),
    SessionId(String),
    BotId(String),
    AccountId(String),
    All(bool),
}

impl Forget {
    fn purge(&self) -> Option<Purge> {
        match self {
            Self::ConversationId(id) => Some(Purge::conversation(id)),
            Self::SessionId(id) => Some(Purge::session(id)),
            Self::BotId(id) => Some(Purge::bot(id)),
            Self::AccountId(id) => Some(Purge::account(id)),
            Self::All(true) => Some(Purge::All),
            Self::All(false) => None,
        }
    }
}

/// Forgets what is stored about one conversation, session, bot or account, or all of it. The answer
/// says what was removed. The body is JSON whatever its media type says: it comes by hand.
pub async fn purge(State(app): State<Arc<App>>, body: Bytes) -> Response {
    let Some(purge) = serde_json::from_slice(&body).ok().and_then(|forget: Forget| forget.purge()) else {
        let detail = "the body is a JSON object with exactly one of `conversation_id`, `session_id`, `bot_id`, \
                      `account_id` (a string) and `all` (true)";
        return invalid("Nothing was purged", detail);
    };
    let removed = app.cache.purge(purge);
    tracing::info!(entries = removed.entries(), bytes = removed.bytes, "purged");
    let by_route: serde_json::Map<_, _> =
        ROUTES.iter().map(|route| (route.name.as_str().to_owned(), removed.of(route.name).into())).collect();
    let removed = json!({ "entries": removed.entries(), "bytes": removed.bytes, "by_route": by_route });
    Json(json!({ "removed": removed })).into_response()
}

/// What would happen to a request, and why. Its body too comes by hand.
pub async fn explain(State(app): State<Arc<App>>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(Object(supposed)) => Json(explain::explain(&app, &supposed).await).into_response(),
        Err(error) => {
            let detail = format!(
                "the body is a JSON object with `client` or `token`, `method`, `path`, and if need be `query` and `body`: {error}"
            );
            invalid("Nothing was explained", &detail)
        }
    }
}

fn invalid(title: &str, detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "invalid-request", title, detail)
}
