//! Heads of HTTP/2 through the connection code of the listeners: what the service sees is what was sent, and nothing
//! that the guard would refuse over HTTP/1. Where all that is sent is good, all of it arrives.
//!
//! An input is lines. A request begins with a line of options, then come its fields as `name=value`, its content as
//! `*octets`, one line a DATA frame, and after `-` its trailers; an empty line ends it. Bytes 1 and 2 stand for CR and LF.

#![no_main]

#[path = "http2/sent.rs"]
mod sent;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use kore_gateway::server::guard::{self, HeadLimits};
use kore_gateway::server::serve_http2;
use libfuzzer_sys::fuzz_target;
use sent::{SETTINGS, Sent, frame, head_of, is_good, is_pseudo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMITS: HeadLimits = HeadLimits { max_head: 2048, max_target: 256, max_fields: 16, max_body: 1024 };
const MOST_STREAMS: u32 = 8;
/// The framing of one request may take more than its text.
const WIRE: usize = 64 * 1024;

/// A request as a service sees it.
struct Seen {
    head: http::request::Parts,
    content: Bytes,
    trailers: HeaderMap,
}

impl Seen {
    /// A request, if the guard lets it pass as it would before the routes, and its content comes whole.
    async fn of(request: Request<Incoming>) -> Option<Self> {
        let (head, mut body) = request.into_parts();
        assert_eq!(head.version, Version::HTTP_2);
        let is_open = guard::is_open(&head.method, head.version, &body);
        let has_content = is_open && guard::has_content(&mut body, Duration::from_millis(10)).await;
        guard::check(&head, has_content, &LIMITS).ok()?;
        let body = body.collect().await.ok()?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Some(Self { head, content: body.to_bytes(), trailers })
    }

    fn is(&self, sent: &Sent<'_>) -> bool {
        let (uri, shown) = (&self.head.uri, sent.shown());
        let sent_as =
            |name: &str| shown.iter().find(|field| field.0 == name.as_bytes()).map(|field| &field.1[..]);
        // h2 cuts off fragments before anybody can look, and what is left of one alone is `/`.
        let path = sent_as(":path").and_then(|path| path.split(|byte| *byte == b'#').next());
        let path = path.map(|path| if path.is_empty() { b"/" } else { path });
        sent_as(":method") == Some(self.head.method.as_str().as_bytes())
            && path == uri.path_and_query().map(|path| path.as_str().as_bytes())
            && sent_as(":authority") == uri.authority().map(|authority| authority.as_str().as_bytes())
            && are(&self.head.headers, shown.iter().filter(|field| !is_pseudo(field)))
            && (is_empty_get(self) || self.content == sent.content.concat())
            && (is_empty_get(self) || are(&self.trailers, sent.shown_trailers()))
    }

    fn assert_good(&self) {
        let Self { head, content, .. } = self;
        let host = head.uri.authority().map(|authority| authority.as_str().as_bytes());
        let target = head.uri.path_and_query().expect("the guard wants one").as_str().as_bytes();
        let fields = head.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        let fields: Vec<_> = fields.collect();
        let is_chunked = !content.is_empty() && !head.headers.contains_key("content-length");
        let over_http1 = head_of((head.method.as_str().as_bytes(), target, host), &fields, is_chunked);
        let over_http1 = over_http1.expect("one line a field, one host");
        assert!(is_good(&over_http1), "{:?}", String::from_utf8_lossy(&over_http1));
    }
}

/// Nobody looks further into the content of one that must have none.
fn is_empty_get(seen: &Seen) -> bool {
    (seen.head.method == Method::GET || seen.head.method == Method::HEAD) && seen.content.is_empty()
}

/// Whether these are the fields that were sent: as many, each name's values in their order, cookies as one list.
fn are<'a>(seen: &HeaderMap, sent: impl Iterator<Item = &'a (Vec<u8>, Vec<u8>)> + Clone) -> bool {
    let cookies: Vec<_> = seen.get_all("cookie").iter().map(http::HeaderValue::as_bytes).collect();
    let sent_cookies = sent.clone().filter(|field| field.0 == b"cookie").map(|field| &field.1[..]);
    seen.len() == sent.clone().count()
        && cookies.join(&b"; "[..]) == sent_cookies.collect::<Vec<_>>().join(&b"; "[..])
        && seen.keys().all(|name| {
            let values =
                sent.clone().filter(|field| field.0 == name.as_str().as_bytes()).map(|field| &field.1[..]);
            seen.get_all(name).iter().map(http::HeaderValue::as_bytes).eq(values)
        })
}

/// What a service sees of a connection whose bytes come in such pieces.
async fn served(wire: &[u8], piece: usize) -> Vec<Seen> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let noted = all.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let noted = noted.clone();
        async move {
            if let Some(seen) = Seen::of(request).await {
                noted.lock().expect("nobody panics with it").push(seen);
            }
            Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
        }
    });
    let (caller, server) = tokio::io::duplex(WIRE);
    let (mut answers, mut caller) = tokio::io::split(caller);
    let calling = async {
        for piece in wire.chunks(piece) {
            if caller.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        // The clock stands still: it is later once nobody has anything left to do.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = caller.shutdown().await;
    };
    let reading = async {
        let _ = answers.read_to_end(&mut Vec::new()).await;
    };
    // Ended by its peer or by itself, in whatever way.
    let serving =
        tokio::time::timeout(Duration::from_secs(5), serve_http2(server, MOST_STREAMS, LIMITS, service));
    let (ended, (), ()) = tokio::join!(serving, calling, reading);
    assert!(ended.is_ok(), "a connection that its peer has closed ends");
    std::mem::take(&mut *all.lock().expect("nobody panics with it"))
}

fuzz_target!(|bytes: &[u8]| {
    let sent = Sent::all(bytes);
    if sent.len() > MOST_STREAMS as usize || bytes.len() > 4096 {
        return;
    }
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(SETTINGS, 0, 0, &[], &mut wire);
    for (request, stream) in sent.iter().zip((1..).step_by(2)) {
        request.frames(stream, &mut wire);
    }
    assert!(wire.len() < WIRE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    for piece in [wire.len(), wire.len() / 8] {
        let seen = runtime.block_on(served(&wire, piece));
        let mut left = sent.iter();
        for seen in &seen {
            seen.assert_good();
            assert!(left.any(|sent| seen.is(sent)), "{:?} was never sent, or not in this order", seen.head);
        }
        if sent.iter().all(Sent::is_good) {
            assert_eq!(seen.len(), sent.len(), "all of it is good");
        }
    }
});
