//! The guard: however its bytes come in, a connection is read in one way; and hyper behind it sees the
//! requests and bodies that a reader sees who knows the strict grammar alone, and never has anything to
//! refuse itself.

#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kore_gateway::server::guard::HeadLimits;
use kore_gateway::server::guard::framing::{Framing, Next};
use kore_gateway::server::guard::head::{Content, Judgement, judge};
use kore_gateway::server::guard::io::Guarded;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMITS: HeadLimits = HeadLimits { max_head: 1024, max_target: 256, max_fields: 16, max_body: 64 * 1024 };

/// How a connection is read that comes in these pieces.
fn read(bytes: &[u8], piece: usize) -> (usize, Next) {
    let mut framing = Framing::new(LIMITS);
    let (mut total, mut last, mut held) = (0, Next::More, Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        held.extend_from_slice(piece);
        let (judged, next) = framing.advance(&mut held);
        assert!(judged <= held.len());
        held.drain(..judged);
        total += judged;
        last = next;
        if matches!(next, Next::Refused { .. } | Next::Broken) {
            break;
        }
    }
    (total, last)
}

/// The body of a strictly chunked message, and its length as sent; `None` if it is cut or none.
fn chunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = |from: usize| {
        let end = bytes[from..].windows(2).position(|two| two == b"\r\n")?;
        Some((&bytes[from..from + end], from + end + 2))
    };
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let (size, data) = line(at)?;
        // Behind the size there may be an extension, in any bytes but those that end it.
        let size = std::str::from_utf8(size.split(|byte| *byte == b';').next()?).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        at = data;
        if size == 0 {
            loop {
                let (trailer, next) = line(at)?;
                at = next;
                if trailer.is_empty() {
                    return Some((body, at));
                }
            }
        }
        let end = at.checked_add(size)?;
        body.extend_from_slice(bytes.get(at..end)?);
        at = end;
        (bytes.get(at..at + 2)? == b"\r\n").then_some(())?;
        at += 2;
    }
}

/// The whole requests in `bytes`, as far as they are good: targets and bodies.
fn expected(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut requests = Vec::new();
    while let Judgement::Good { length, content, .. } = judge(bytes, &LIMITS) {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut fields);
        assert!(parsed.parse(bytes).expect("hyper's parser takes it").is_complete());
        let count = |name: &str| {
            parsed.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count()
        };
        assert!(count("host") == 1 || parsed.version == Some(0) && count("host") == 0);
        assert!(count("content-length") + count("transfer-encoding") <= 1);
        let target = parsed.path.unwrap_or_default().to_owned();
        bytes = &bytes[length..];
        let (body, length) = match content {
            Content::Length(length) => {
                let Some(body) = usize::try_from(length).ok().and_then(|length| bytes.get(..length)) else {
                    return requests;
                };
                (body.to_vec(), body.len())
            }
            Content::Chunked => match chunked(bytes) {
                Some(read) => read,
                None => return requests,
            },
        };
        bytes = &bytes[length..];
        requests.push((target, body));
    }
    requests
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.len() > 4096 {
        return;
    }
    let (judged, next) = read(bytes, bytes.len());
    let is_refusal = |next| matches!(next, Next::Refused { .. });
    for piece in [1, 3, 50] {
        let (also_judged, other) = read(bytes, piece);
        assert_eq!(also_judged, judged, "in pieces of {piece}");
        // A head that drips in is judged at its end or its limit; nothing of it has been handed on by then.
        let is_later = is_refusal(next) && (is_refusal(other) || other == Next::Rest);
        assert!(other == next || is_later, "{other:?} in pieces of {piece}, {next:?} at once");
    }

    let seen = Rc::new(RefCell::new(Vec::new()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (mut caller, server) = tokio::io::duplex(64 * 1024);
        caller.write_all(bytes).await.expect("room");
        let noting = seen.clone();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let seen = noting.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await;
                if head.uri.path() == "*" {
                    assert!(head.headers.contains_key("refusal"));
                } else if let Ok(body) = body {
                    assert!(!head.headers.contains_key("upgrade"));
                    seen.borrow_mut().push((head.uri.to_string(), body.to_bytes().to_vec()));
                }
                Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
            }
        });
        let io = TokioIo::new(Guarded::new(server, LIMITS));
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
        let calling = async {
            caller.shutdown().await.expect("open");
            let mut answers = Vec::new();
            let _ = caller.read_to_end(&mut answers).await;
        };
        let (served, ()) = tokio::join!(serving, calling);
        if let Err(error) = served {
            assert!(!error.is_parse(), "hyper refused what the guard let pass: {error}");
        }
    });
    let (seen, expected) = (seen.take(), expected(bytes));
    // hyper stops where a caller asks it to; it never sees more, and nothing else.
    assert!(seen.len() <= expected.len(), "{seen:?} for {expected:?}");
    for ((target, body), (its_target, its_body)) in seen.iter().zip(&expected) {
        assert_eq!(body, its_body);
        let path = its_target.find("://").map_or(&its_target[..], |at| {
            let rest = &its_target[at + 3..];
            &rest[rest.find(['/', '?']).unwrap_or(rest.len())..]
        });
        assert!(target.ends_with(path), "{target} for {its_target}");
    }
});
