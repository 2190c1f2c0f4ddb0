//! HTTP/2 is spoken to whoever begins with it, and answers are the same as over HTTP/1.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault, Gate};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::caller::http2;
use crate::world::{DAY, Got, REPORTING, World, before, conversation_path, until, window_path};

async fn caller(world: &World) -> (SendRequest<Full<Bytes>>, JoinHandle<hyper::Result<()>>) {
    http2(TcpStream::connect(world.address).await.unwrap()).await.unwrap()
}

fn request(world: &World, method: Method, path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://{}{path}", world.address))
        .header("x-api-key", REPORTING)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap()
}

async fn sent(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> hyper::Result<Got> {
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Got { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
}

fn conversation() -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY))
}

#[tokio::test]
async fn answers_are_the_same_over_both_versions() {
    let world = World::of(vec![conversation()]).await;
    let (mut sender, _running) = caller(&world).await;
    let path = conversation_path(&conversation().conversation_id);
    let miss = sent(&mut sender, request(&world, Method::GET, &path, "")).await.unwrap();
    assert_eq!(miss.status, StatusCode::OK);
    let two = sent(&mut sender, request(&world, Method::GET, &path, "")).await.unwrap();
    let one = world.get(&path).await;
    assert!(two.is_hit() && one.is_hit());
    assert_eq!((two.header("etag"), &two.body), (one.header("etag"), &one.body));

    let asked = r#"{"startDate":"2026-02-24","endDate":"2026-03-01","timeZoneOffset":0}"#;
    let two = sent(&mut sender, request(&world, Method::POST, &window_path(), asked)).await.unwrap();
    assert_eq!((two.status, two.body), (StatusCode::OK, world.post(&window_path(), asked).await.body));
    let refused = sent(&mut sender, request(&world, Method::POST, &window_path(), "{")).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.problem()), (400, "invalid-request".to_owned()));
}

/// A length in it would be that of the answer it stands for (RFC 9110 §8.6), and nobody knows that one here.
#[tokio::test]
async fn a_304_says_no_length_in_any_spelling_of_its_path() {
    let world = World::of(vec![conversation()]).await;
    let (mut sender, _running) = caller(&world).await;
    let asked = r#"{"startDate":"2026-02-24","endDate":"2026-03-01","timeZoneOffset":0}"#;
    let window = window_path();
    let cases = [
        (Method::GET, conversation_path(&conversation().conversation_id), ""),
        (Method::HEAD, conversation_path(&conversation().conversation_id), ""),
        (Method::POST, window.clone(), asked),
        (Method::QUERY, window.replace("interactionDetails", "INTERACTIONDETAILS"), asked),
        (Method::GET, "/docs".to_owned(), ""),
        (Method::HEAD, "/openapi.json".to_owned(), ""),
    ];
    for (method, path, body) in cases {
        let first = sent(&mut sender, request(&world, method.clone(), &path, body)).await.unwrap();
        let mut again = request(&world, method.clone(), &path, body);
        again.headers_mut().insert("if-none-match", first.header("etag").parse().unwrap());
        let known = sent(&mut sender, again).await.unwrap();
        assert_eq!(known.status, StatusCode::NOT_MODIFIED, "{method} {path}");
        assert!(!known.headers.contains_key("content-length"), "{method} {path}: {known:?}");
    }
}

/// RFC 9113 §8.3.1: they are one thing. Nobody may take the one for the other, so there is no answer.
#[tokio::test]
async fn a_host_beside_another_authority_ends_the_stream_and_not_the_connection() {
    let world = World::of(vec![conversation()]).await;
    let (mut sender, _running) = caller(&world).await;
    let path = conversation_path(&conversation().conversation_id);
    for path in [path.as_str(), "/nowhere", "/docs"] {
        let mut two_faced = request(&world, Method::GET, path, "");
        two_faced.headers_mut().insert("host", "other.example".parse().unwrap());
        let error = sent(&mut sender, two_faced).await.expect_err("no answer");
        let reason = std::error::Error::source(&error).and_then(|error| error.downcast_ref::<h2::Error>());
        assert_eq!(reason.and_then(h2::Error::reason), Some(h2::Reason::PROTOCOL_ERROR), "{error:?}");
    }
    assert_eq!(world.standin.count(), 0);
    let series = r#"http_server_request_duration_seconds_count{route="none",method="GET",status="400"}"#;
    assert_eq!(world.metric(series).await, 3.0);
    let mut agreed = request(&world, Method::GET, &path, "");
    agreed.headers_mut().insert("host", world.address.to_string().parse().unwrap());
    assert_eq!(sent(&mut sender, agreed).await.unwrap().status, StatusCode::OK);
}

/// RFC 9113 §8.3.1 has `*` for a server as a whole, of which there is nothing to ask, as over HTTP/1.
#[tokio::test]
async fn a_target_that_is_no_path_is_refused() {
    let world = World::new().await;
    let (mut sender, _running) = caller(&world).await;
    for method in [Method::GET, Method::OPTIONS] {
        let mut asterisk = request(&world, method, "/", "");
        let authority = world.address.to_string();
        let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query("*");
        *asterisk.uri_mut() = uri.build().unwrap();
        let refused = sent(&mut sender, asterisk).await.unwrap();
        assert_eq!((refused.status.as_u16(), refused.problem()), (400, "invalid-request".to_owned()));
    }
}

#[tokio::test]
async fn many_ask_at_once_over_one_connection() {
    let world = World::of(vec![conversation()]).await;
    let (sender, _running) = caller(&world).await;
    let path = conversation_path(&conversation().conversation_id);
    let asking: Vec<_> = (0..300)
        .map(|_| {
            let (mut sender, request) = (sender.clone(), request(&world, Method::GET, &path, ""));
            tokio::spawn(async move { sent(&mut sender, request).await.unwrap() })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(world.standin.count(), 1);
}

#[tokio::test]
async fn a_preface_in_pieces_is_one_and_what_only_begins_like_it_is_not() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    // An empty SETTINGS frame; the answer begins with one too (RFC 9113 §3.4, §6.5).
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut head = [0; 9];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head).await.unwrap();
    assert_eq!(head[3], 4, "{head:?}");

    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"PRI /x HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head).await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&head));
}

#[tokio::test]
async fn a_drain_lets_streams_under_way_end_and_takes_no_new_ones() {
    let mut world = World::new().await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let (mut sender, connection) = caller(&world).await;
    let (mut early, asked) = (sender.clone(), request(&world, Method::GET, &conversation_path("c-1"), ""));
    let under_way = tokio::spawn(async move { sent(&mut early, asked).await });
    until("the request is under way", || world.standin.count() == 1).await;
    world.stop();
    let goodbye = async { while sent(&mut sender, request(&world, Method::GET, "/", "")).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), goodbye).await.expect("the caller is told to go away");
    gate.open();
    assert_eq!(under_way.await.unwrap().unwrap().status, 404);
    connection.await.unwrap().unwrap();
    (&mut world.running).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_told_goodbye() {
    let world = World::with(|setup| setup.config = "server.idle_timeout = \"50ms\"".to_owned()).await;
    let (mut sender, connection) = caller(&world).await;
    let answer = sent(&mut sender, request(&world, Method::GET, "/", "")).await.unwrap();
    assert_eq!(answer.status, 404);
    let ended = tokio::time::timeout(Duration::from_secs(10), connection).await;
    ended.expect("the gateway ends it").unwrap().unwrap();
    let series = r#"kore_gateway_connections_ended_total{listener="main",reason="idle"}"#;
    assert_eq!(world.metric(series).await, 1.0);
}

/// RFC 9113 §6.9.2: a peer may keep its window shut, or all but. It gets nothing then, and not for ever.
#[tokio::test]
async fn a_caller_who_keeps_the_window_shut_is_cut() {
    let large = conversation().padded(200_000);
    let path = conversation_path(&large.conversation_id);
    for (window, path, status) in [(0, "/", 404), (1, &*path, 200)] {
        let world = World::with(|setup| {
            setup.standin.conversations = vec![large.clone()];
            setup.config = "server.write_timeout = \"100ms\"".to_owned();
        })
        .await;
        let stream = TcpStream::connect(world.address).await.unwrap();
        let mut http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let http = http.initial_stream_window_size(window);
        let (mut sender, connection) = http.handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request(&world, Method::GET, path, "")).await.unwrap();
        assert_eq!(answer.status(), status, "a head needs no window");
        let ended = tokio::time::timeout(Duration::from_secs(10), connection).await;
        assert!(ended.expect("the gateway ends it").unwrap().is_err());
        let series = r#"kore_gateway_connections_ended_total{listener="main",reason="write-timeout"}"#;
        assert_eq!(world.metric(series).await, 1.0);
    }
}
