//! The floor of our own stack: hyper that answers one document, and hyper in front of moka. No
//! credential, no policy, no limit, no metric.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use moka::sync::Cache;

use super::{Arguments, conversation, listen, window};

/// HTTP/1.1 on `port`, cleartext HTTP/2 on the next one.
async fn serve<F, S>(arguments: &Arguments, answer: F)
where
    F: Fn(Request<Incoming>) -> S + Clone + Send + 'static,
    S: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let port = arguments.number("port", 8090);
    let one = listen(arguments, port).await;
    let two = tokio::net::TcpListener::bind(("127.0.0.1", u16::try_from(port + 1).expect("a port")));
    let two = two.await.expect("a free port");
    loop {
        let (accepted, is_two) = tokio::select! {
            accepted = one.accept() => (accepted, false),
            accepted = two.accept() => (accepted, true),
        };
        let Ok((stream, _)) = accepted else { continue };
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answered = answer(request);
            async move { Ok::<_, Infallible>(answered.await) }
        });
        if is_two {
            let serving = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
        } else {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }
}

fn response(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ETAG, HeaderValue::from_static("\"0123456789abcdef0123456789abcdef\""));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::AGE, 7.into());
    response
}

/// One document, whatever is asked for.
pub async fn hyper(arguments: &Arguments) {
    let document = Bytes::from(conversation("c-0"));
    serve(arguments, move |_| {
        let document = document.clone();
        async move { response(document) }
    })
    .await;
}

/// Documents by path, and by path and body; made when they are first asked for.
pub async fn hyper_moka(arguments: &Arguments) {
    let documents: Cache<Bytes, Bytes> = Cache::builder()
        .max_capacity(16 << 30)
        .weigher(|_, value: &Bytes| u32::try_from(value.len()).unwrap_or(u32::MAX))
        .build();
    let rows = Arc::new(Bytes::from(window(100)));
    serve(arguments, move |request| {
        let (documents, rows) = (documents.clone(), rows.clone());
        async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path();
            let (key, made) = if head.method == http::Method::POST {
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                (Bytes::from([path.as_bytes(), &*body].concat()), Some((*rows).clone()))
            } else {
                (Bytes::copy_from_slice(path.as_bytes()), None)
            };
            let document = documents.get(&key).unwrap_or_else(|| {
                let id = path.rsplit('/').next().unwrap_or_default();
                let document = made.unwrap_or_else(|| Bytes::from(conversation(id).into_boxed_slice()));
                documents.insert(key, document.clone());
                document
            });
            response(document)
        }
    })
    .await;
}
