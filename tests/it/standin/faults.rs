//! What goes wrong really goes wrong on the wire, and bytes that are no request are refused.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::Duration;

use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{DAY, NOW, TODAY, World, conversation_path, details_path, live, signed};

/// What came back on a fresh connection until it ended, and how it ended.
async fn wire(address: SocketAddr, request: &str) -> (String, io::Result<()>) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut received = Vec::new();
    let end = stream.read_to_end(&mut received).await.map(|_| ());
    (String::from_utf8_lossy(&received).into_owned(), end)
}

/// A good request for the settled conversation, and a world that knows it.
async fn faulty(fault: Fault) -> (World, String) {
    let record = Conversation::closed_at(EXAMPLE_STREAM, 1, NOW - DAY);
    let path = conversation_path(EXAMPLE_STREAM, &record.conversation_id);
    let world = World::with(vec![record]).await;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: kore\r\nauth: {}\r\naccountId: {EXAMPLE_ACCOUNT}\r\n\
         connection: close\r\n\r\n",
        world.token()
    );
    world.standin.fault(Some(fault));
    (world, request)
}

fn split(text: &str) -> (String, String) {
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

fn announced(head: &str) -> usize {
    let (_, rest) = head.split_once("content-length: ").expect("a length");
    rest.lines().next().expect("the rest of its line").parse().expect("a number")
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let (world, request) = faulty(Fault::Reset).await;
    let (text, end) = wire(world.standin.address(), &request).await;
    assert_eq!(text, "");
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(world.standin.calls()[0].status, 0);

    let (world, request) = faulty(Fault::ResetInBody).await;
    let (text, end) = wire(world.standin.address(), &request).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let (head, body) = split(&text);
    assert_eq!(announced(&head) / 2, body.len());
}

#[tokio::test]
async fn a_hang_says_nothing_more_and_keeps_the_connection() {
    for (fault, says) in [(Fault::HangBeforeHead, false), (Fault::HangInBody, true)] {
        let (world, request) = faulty(fault).await;
        let mut stream = TcpStream::connect(world.standin.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        let reading = stream.read_to_end(&mut received);
        let waited = tokio::time::timeout(Duration::from_millis(100), reading).await;
        assert!(waited.is_err(), "silence cannot be seen without waiting for it");
        assert_eq!(!received.is_empty(), says);
        if says {
            let (head, body) = split(&String::from_utf8_lossy(&received));
            assert!(body.len() < announced(&head));
        }
    }
}

#[tokio::test]
async fn a_cut_body_is_shorter_than_announced_and_a_truncated_one_is_not() {
    let (world, request) = faulty(Fault::CutBody).await;
    let (text, end) = wire(world.standin.address(), &request).await;
    let (head, body) = split(&text);
    assert!(end.is_ok() && body.len() == announced(&head) / 2);

    let (world, request) = faulty(Fault::TruncatedJson).await;
    let (text, _) = wire(world.standin.address(), &request).await;
    let (head, body) = split(&text);
    assert_eq!(body.len(), announced(&head));
    assert!(serde_json::from_str::<Value>(&body).is_err());

    let (world, request) = faulty(Fault::CloseDelimitedCut).await;
    let (text, end) = wire(world.standin.address(), &request).await;
    let (head, body) = split(&text);
    assert!(end.is_ok() && head.contains("connection: close"));
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"));
    assert!(!body.is_empty() && serde_json::from_str::<Value>(&body).is_err());
}

#[tokio::test]
async fn a_body_can_be_framed_twice() {
    let (world, request) = faulty(Fault::LengthAndChunked).await;
    let (text, _) = wire(world.standin.address(), &request).await;
    let (head, body) = split(&text);
    assert!(head.contains("transfer-encoding: chunked"));
    assert!(body.starts_with(&format!("{:x}\r\n{{", announced(&head))));
    assert!(body.ends_with("}\r\n0\r\n\r\n"));

    let (world, request) = faulty(Fault::LengthAndChunkedGzipped).await;
    let (head, body) = split(&wire(world.standin.address(), &request).await.0);
    assert!(head.contains("transfer-encoding: chunked") && head.contains("content-encoding: gzip"));
    assert!(body.starts_with(&format!("{:x}\r\n\u{1f}", announced(&head))));

    let (world, request) = faulty(Fault::LengthAndChunkedEmpty).await;
    let (head, body) = split(&wire(world.standin.address(), &request).await.0);
    assert!(head.contains("transfer-encoding: chunked") && announced(&head) > 0);
    assert_eq!(body, "0\r\n\r\n");
}

#[tokio::test]
async fn answers_can_be_empty_html_an_error_opaque_or_somebody_elses() {
    let cases: [(Fault, &str, &str); 5] = [
        (Fault::Empty200, "application/json", ""),
        (Fault::Html200, "text/html", "<!doctype html>"),
        (Fault::ErrorEnvelope200, "application/json", r#"{"errors":"#),
        (Fault::Opaque200, "application/json", r#"{"payload":"#),
        (Fault::OtherConversation200, "application/json", r#"{"participants":"#),
    ];
    for (fault, content_type, begins) in cases {
        let (world, request) = faulty(fault.clone()).await;
        let (text, _) = wire(world.standin.address(), &request).await;
        let (head, body) = split(&text);
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{fault:?}");
        assert!(head.contains(&format!("content-type: {content_type}")), "{fault:?}");
        assert!(body.starts_with(begins), "{fault:?}");
        assert_eq!(body.is_empty(), begins.is_empty(), "{fault:?}");
        let asked = &world.standin.calls()[0].path;
        if let Ok(Value::Object(body)) = serde_json::from_str(&body)
            && let Some(id) = body.get("_id")
        {
            assert!(!asked.ends_with(id.as_str().unwrap()));
        }
    }
}

#[tokio::test]
async fn somebody_elses_answer_is_of_the_asked_kind() {
    let record = live(1);
    let world = World::with(vec![record.clone()]).await;
    world.standin.fault(Some(Fault::OtherConversation200));
    let rows = world.rows(json!({})).await;
    assert_eq!(rows.len(), 1);
    assert_ne!(rows[0]["sessionId"], record.session_id);
    let answer = world.transcript(json!({"sessionId": record.session_id})).await;
    assert_ne!(answer.body["conversationInfo"]["sessionId"], record.session_id);
    assert!(!answer.body["conversationHistory"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn statuses_can_be_forced_with_and_without_a_retry_after() {
    for (fault, line, header) in [
        (Fault::Status(503), "503 service unavailable", None),
        (Fault::StatusWithRetryAfter(429, 7), "429 too many requests", Some("retry-after: 7")),
        (Fault::Unauthorized401, "401 unauthorized", None),
        (
            Fault::Redirect("http://192.0.2.1/".into()),
            "307 temporary redirect",
            Some("location: http://192.0.2.1/"),
        ),
    ] {
        let (world, request) = faulty(fault).await;
        let (text, _) = wire(world.standin.address(), &request).await;
        let (head, _) = split(&text);
        assert!(head.starts_with(&format!("http/1.1 {line}\r\n")), "{head}");
        assert_eq!(head.contains("retry-after") || head.contains("location"), header.is_some());
        assert!(header.is_none_or(|header| head.contains(header)), "{head}");
    }
}

#[tokio::test]
async fn latency_delays_the_right_answer() {
    let (world, request) = faulty(Fault::Latency(Duration::from_millis(30))).await;
    let begun = std::time::Instant::now();
    let (text, _) = wire(world.standin.address(), &request).await;
    assert!(begun.elapsed() >= Duration::from_millis(30));
    assert!(split(&text).1.ends_with('}'));
}

#[tokio::test]
async fn an_endless_body_and_a_bomb_are_larger_than_any_cap() {
    const CAP: u64 = 8 * 1024 * 1024;
    let world = World::with(vec![]).await;
    let request = || signed(world.get(&conversation_path(EXAMPLE_STREAM, "c-1")), &world.token());
    world.standin.fault(Some(Fault::EndlessBody));
    let mut response = request().send().await.unwrap();
    let mut received = 0;
    while received < CAP {
        let chunk = response.chunk().await.expect("sound so far");
        received += chunk.expect("not the end yet").len() as u64;
    }
    world.standin.fault(Some(Fault::GzipBomb));
    let bomb = request().send().await.unwrap().bytes().await.unwrap();
    assert!((bomb.len() as u64) < CAP / 6, "small on the wire");
    let mut unpacked = flate2::read::GzDecoder::new(&*bomb).take(CAP);
    assert_eq!(std::io::copy(&mut unpacked, &mut std::io::sink()).unwrap(), CAP);
}

#[tokio::test]
async fn faults_go_to_a_path_then_to_the_next_calls_then_to_all() {
    let record = live(1);
    let id = record.conversation_id.clone();
    let world = World::with(vec![record.clone()]).await;
    let ask = json!({"sessionId": record.session_id});
    world.standin.fault(Some(Fault::Status(500)));
    world.standin.fault_next(2, Fault::Status(502));
    world.standin.fault_where("/CONVERSATIONDETAILS", Fault::Status(504));
    assert_eq!(world.transcript(ask.clone()).await.status, 504);
    assert_eq!(world.conversation(&id).await.status, 502);
    assert_eq!(world.conversation(&id).await.status, 502);
    assert_eq!(world.conversation(&id).await.status, 500);
    world.standin.fault(None);
    assert_eq!(world.conversation(&id).await.status, 200);
    world.standin.clear_faults();
    assert_eq!(world.transcript(ask).await.status, 200);
}

#[tokio::test]
async fn a_connection_carries_one_request_after_the_other_in_either_framing() {
    let world = World::with(vec![live(1)]).await;
    let token = world.token();
    let path = details_path();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: kore\r\nAuth: {token}\r\naccountId: {EXAMPLE_ACCOUNT}\r\n\
         Content-Type: application/json\r\n"
    );
    let (first, rest) = TODAY.split_at(10);
    let requests = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\na\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n\
         {head}Content-Length: {}\r\nConnection: close\r\n\r\n{TODAY}",
        rest.len(),
        TODAY.len()
    );
    let (text, end) = wire(world.standin.address(), &requests).await;
    assert!(end.is_ok());
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    let bodies: Vec<_> = world.standin.calls().into_iter().map(|call| call.body).collect();
    assert_eq!(bodies, [TODAY, TODAY]);
}

#[tokio::test]
async fn bytes_that_could_be_read_in_two_ways_are_no_request() {
    let world = World::with(vec![]).await;
    for (nth, request) in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET http://kore/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx : b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: b\r\n folded\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\na",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ]
    .iter()
    .enumerate()
    {
        let (text, _) = wire(world.standin.address(), request).await;
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request:?} got {text:?}");
        assert_eq!(world.standin.violations().len(), nth + 1);
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn a_stopped_stand_in_refuses_connections() {
    let world = World::with(vec![]).await;
    let address = world.standin.address();
    world.standin.stop().await;
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}
