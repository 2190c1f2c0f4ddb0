//! Every layer of HTTP around the routers, in order: what is right for any request, whatever it asks. What needs
//! values of the domain is in [`super::stages`].

mod exchange;
mod guard;
mod summary;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::Request;
use http::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http_body::Body as HttpBody;
use tower::{BoxError, Service, ServiceBuilder};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::set_header::SetResponseHeaderLayer;

pub use self::exchange::Exchange;
use self::exchange::ExchangeLayer;
use self::guard::GuardLayer;
use super::ops;
use crate::access::identify;
use crate::app::App;
use crate::error::{Error, Kind};

/// No answer is taken by a browser for anything but what it says that it is: bodies are the upstream's.
const NO_SNIFFING: HeaderValue = HeaderValue::from_static("nosniff");

/// The main listener's layers around its routes, for one connection, whose other end is `peer`.
pub fn main<S, B>(
    app: Arc<App>,
    peer: IpAddr,
    routes: S,
) -> impl Service<
    Request<B>,
    Response = Response<impl HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static>,
    Error = Infallible,
    Future: Send,
> + Clone
where
    S: Service<Request<B>, Response = Response, Error = Infallible, Future: Send> + Clone,
{
    ServiceBuilder::new()
        // A request that is printed does not show its credential.
        .layer(SetSensitiveRequestHeadersLayer::new(identify::HEADERS.clone()))
        // On every answer, errors too.
        .layer(SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, NO_SNIFFING))
        // The request's id, CORS, its place in metrics, log and trace; an error becomes a problem document. Above all
        // that can refuse or fail, so that nothing is left out.
        .layer(ExchangeLayer { app, peer })
        // A panic ends the request that it happens in, and is counted and logged like any other error.
        .layer(CatchPanicLayer::custom(|_| panicked()))
        // Nobody below sees a request that can be read in two ways.
        .layer(GuardLayer)
        .service(routes)
}

/// The ops listener's layers around its routes. From the last to the first, as axum's routers take them.
pub fn ops(app: &Arc<App>, routes: Router) -> Router {
    routes
        // Only for those who know who they are talking to.
        .layer(from_fn_with_state(app.clone(), ops::known_host))
        // The guard, as on the main listener.
        .layer(from_fn_with_state(app.clone(), ops::guarded))
        .layer(SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, NO_SNIFFING))
}

/// What a panic comes to. The panic itself has been logged by the hook.
fn panicked() -> Response<Body> {
    Error::new(Kind::Internal, "the gateway failed").into_response()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::clock::{Clock, UnixMillis};
    use crate::config::{Layer, Sources};

    /// The smallest configuration, with an access line. Nothing listens, and nobody is asked.
    fn app(log: &std::path::Path, secret: &std::path::Path) -> Arc<App> {
        let config = format!(
            r#"
log = {{ access = true, access_to = {log:?} }}
[[accounts]]
id = "a-1"
contact_center_url = "http://127.0.0.1:9"
automation_url = "http://127.0.0.1:9"
bots = ["*"]
[[accounts.credentials]]
client_id = "cs-1"
client_secret = {{ file = {secret:?} }}
scopes = ["analytics", "chat_history"]
[[clients]]
name = "one"
api_key_sha256 = "{}"
accounts = ["a-1"]
bots = ["*"]
routes = ["conversation"]
"#,
            "1".repeat(64)
        );
        let sources = Sources { layers: vec![Layer::Text(config)], environment: Vec::new() };
        App::new(sources, Clock::manual(UnixMillis(0))).expect("a configuration")
    }

    /// From outside nobody can provoke one: so these routes stand in for a defect.
    #[tokio::test]
    async fn a_panic_is_an_answer_that_is_counted_and_logged_like_any_other() {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let secret = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(secret.path(), "0123456789abcdef0123456789abcdef").expect("written");
        let app = app(log.path(), secret.path());
        let at_once =
            tower::service_fn(|_: Request<Body>| -> std::future::Ready<Result<Response, Infallible>> {
                std::panic::resume_unwind(Box::new("a test's own"))
            });
        let later = tower::service_fn(async |_: Request<Body>| -> Result<Response, Infallible> {
            tokio::task::yield_now().await;
            std::panic::resume_unwind(Box::new("a test's own"))
        });
        let routes = Router::new().route_service("/at-once", at_once).route_service("/later", later);
        let peer = IpAddr::from([127, 0, 0, 1]);
        for path in ["/at-once", "/later"] {
            let request = Request::get(path).header("x-request-id", "r-1").header("host", "gw");
            let request = request.body(Body::empty()).expect("a request");
            let Ok(response) = main(app.clone(), peer, routes.clone()).oneshot(request).await;
            let (head, body) = response.into_parts();
            assert_eq!(
                (head.status.as_u16(), &head.headers["x-request-id"]),
                (500, &"r-1".parse().expect("a value"))
            );
            assert_eq!(head.headers["x-content-type-options"], "nosniff");
            let Ok(body) = body.collect().await else { panic!("{path}: a body") };
            let problem: Value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
            assert_eq!(
                (&problem["type"], &problem["request_id"]),
                (&"/problems/internal".into(), &"r-1".into())
            );
        }
        let metrics = app.metrics.open_metrics().expect("text");
        let series =
            r#"http_server_request_duration_seconds_count{route="none",method="GET",status="500"} 2"#;
        assert!(metrics.contains(series), "{metrics}");
        assert_eq!(app.metrics.http.active_requests.get(), 0);
        assert!(app.snapshot().access_log.flush(std::time::Duration::from_secs(30)));
        let lines = std::fs::read_to_string(log.path()).expect("text");
        assert_eq!(lines.matches(r#""status":500"#).count(), 2, "{lines}");
        assert_eq!(lines.matches(r#""error":"internal""#).count(), 2, "{lines}");
    }
}
