//! What the servers under test stand in front of: closed conversations may be kept for an hour by
//! who goes by `Cache-Control`, open ones not at all. `GET /calls` says how often it was asked;
//! `POST /delay?MS` makes it slow.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::{Arguments, conversation, is_open, listen, window};

struct Origin {
    window: Bytes,
    calls: AtomicU64,
    delay_ms: AtomicU64,
}

pub async fn serve(arguments: &Arguments) {
    let listener = listen(arguments, 8099).await;
    let origin = Origin { window: window(100).into(), calls: AtomicU64::new(0), delay_ms: AtomicU64::new(0) };
    let origin = Arc::new(origin);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let origin = origin.clone();
        let service = service_fn(move |request| answer(origin.clone(), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    origin: Arc<Origin>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    match path {
        "/calls" => return Ok(Response::new(origin.calls.load(Relaxed).to_string().into_bytes().into())),
        "/delay" => {
            let delay = head.uri.query().and_then(|text| text.parse().ok()).unwrap_or(0);
            origin.delay_ms.store(delay, Relaxed);
            return Ok(Response::default());
        }
        _ => {}
    }
    origin.calls.fetch_add(1, Relaxed);
    let _ = body.collect().await;
    let delay = origin.delay_ms.load(Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let (body, keep) = if head.method == Method::GET {
        let id = path.rsplit('/').next().unwrap_or_default();
        (conversation(id).into(), !is_open(id))
    } else {
        (origin.window.clone(), true)
    };
    let control = if keep { "public, max-age=3600" } else { "no-store" };
    let response = Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CACHE_CONTROL, control);
    Ok(response.body(Full::new(body)).expect("a response"))
}
