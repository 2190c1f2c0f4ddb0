//! Every limit of the listener is reached here, and what HTTP says about paths and methods.

use std::time::Duration;

use http::Method;
use kore_standin::{Fault, Gate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{REPORTING, World, conversation_path, got, transcript_path, until, window_path};

#[tokio::test]
async fn another_path_is_404_and_another_method_405_with_allow() {
    let world = World::new().await;
    for path in [
        "/",
        "/agentassist/api/v1/public/st-1/conversations",
        "/api/public/bot/st-1/conversationDetails/",
        "/metrics",
    ] {
        let answer = world.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.problem()), (404, "not-found".to_owned()), "{path}");
    }
    for (method, path, allow) in [
        (Method::POST, conversation_path("c-1"), "GET, HEAD"),
        (Method::DELETE, conversation_path("c-1"), "GET, HEAD"),
        (Method::GET, window_path(), "POST, QUERY"),
        (Method::HEAD, transcript_path(), "POST, QUERY"),
        (Method::PUT, transcript_path(), "POST, QUERY"),
    ] {
        let answer = got(world.request(method.clone(), &path, REPORTING)).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn a_long_target_is_414() {
    let world = World::new().await;
    let path = format!("{}?x={}", window_path(), "a".repeat(8 * 1024));
    assert_eq!(world.get(&path).await.status, 414);
}

#[tokio::test]
async fn a_plain_request_id_is_kept_and_another_is_replaced() {
    let world = World::new().await;
    let path = conversation_path("c-1");
    let with = |id: &str| got(world.request(Method::GET, &path, REPORTING).header("x-request-id", id));
    assert_eq!(with("a.B_c-9").await.header("x-request-id"), "a.B_c-9");
    let long = "a".repeat(129);
    for replaced in ["a b", "a/b", long.as_str(), "ä"] {
        let id = with(replaced).await.header("x-request-id").to_owned();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{replaced}: {id}");
    }
    let denied = got(world.request(Method::GET, &path, "kg_unknown").header("x-request-id", "r-1")).await;
    assert_eq!(denied.json()["request_id"], "r-1");
}

/// What the gateway sends until it closes; a connection that it holds is a failure.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut sent = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut sent));
    reading.await.expect("the gateway closes").unwrap();
    sent
}

#[tokio::test]
async fn a_head_that_does_not_end_and_an_idle_connection_are_closed() {
    let times = "server.header_timeout = \"50ms\"\nserver.idle_timeout = \"50ms\"";
    let world = World::with(|setup| setup.config = times.to_owned()).await;
    for sent in ["", "G", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        assert!(until_closed(&mut stream).await.is_empty());
    }
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 404"));
    assert_eq!(ended(&world, "header-timeout").await, 3.0);
    assert_eq!(ended(&world, "idle").await, 1.0);
}

/// The connections of the main listener that the gateway ended for a reason.
async fn ended(world: &World, reason: &str) -> f64 {
    let series = format!("kore_gateway_connections_ended_total{{listener=\"main\",reason=\"{reason}\"}}");
    world.metric(&series).await
}

#[tokio::test]
async fn a_second_head_that_does_not_end_is_not_waited_for_as_long_as_an_idle_connection() {
    let times = "server.header_timeout = \"50ms\"\nserver.idle_timeout = \"1h\"";
    let world = World::with(|setup| setup.config = times.to_owned()).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    stream.write_all(b"GET / HT").await.unwrap();
    until_closed(&mut stream).await;
    assert_eq!(ended(&world, "header-timeout").await, 1.0);
}

#[tokio::test]
async fn a_caller_who_does_not_read_is_cut() {
    let world = World::with(|setup| setup.config = "server.write_timeout = \"100ms\"".to_owned()).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    // Until the kernel's buffers are full, both ways.
    let asking =
        async { while stream.write_all(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000)).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(30), asking).await.expect("the gateway hangs up");
    assert_eq!(ended(&world, "write-timeout").await, 1.0);
}

#[tokio::test]
async fn one_address_has_its_own_number_of_connections() {
    let config = "server.max_connections_per_address = 2";
    let world = World::with(|setup| setup.config = config.to_owned()).await;
    let mut first = TcpStream::connect(world.address).await.unwrap();
    let mut second = TcpStream::connect(world.address).await.unwrap();
    let mut third = TcpStream::connect(world.address).await.unwrap();
    assert!(until_closed(&mut third).await.is_empty());
    assert_eq!(ended(&world, "address-limit").await, 1.0);
    for stream in [&mut first, &mut second] {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(until_closed(stream).await.starts_with(b"HTTP/1.1 404"));
    }
    let mut fourth = TcpStream::connect(world.address).await.unwrap();
    fourth.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut fourth).await.starts_with(b"HTTP/1.1 404"));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_408() {
    let world = World::with(|setup| setup.config = "server.body_timeout = \"50ms\"".to_owned()).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {REPORTING}\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{{",
        window_path()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn no_byte_of_a_body_is_awaited_from_a_caller_who_may_not_ask() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nX-Api-Key: kg_unknown\r\nContent-Length: 10\r\nConnection: close\r\n\r\n",
        window_path()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn where_places_run_out_the_longest_idle_connection_makes_room_and_none_with_a_request_does() {
    let world = World::with(|setup| setup.config = "server.max_connections = 2".to_owned()).await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let under_way = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {REPORTING}\r\nConnection: close\r\n\r\n",
        conversation_path("c-1")
    );
    let mut busy = TcpStream::connect(world.address).await.unwrap();
    busy.write_all(under_way.as_bytes()).await.unwrap();
    until("its request is under way", || world.standin.count() == 1).await;
    let ask = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut idle: Option<TcpStream> = None;
    for _ in 0..5 {
        let mut next = TcpStream::connect(world.address).await.unwrap();
        next.write_all(ask).await.unwrap();
        let mut byte = [0];
        let served = tokio::time::timeout(Duration::from_secs(10), next.read_exact(&mut byte)).await;
        served.expect("there is room for it").unwrap();
        if let Some(mut before) = idle.replace(next) {
            assert!(until_closed(&mut before).await.starts_with(b"TTP/1.1 404"));
        }
    }
    assert_eq!(ended(&world, "displaced").await, 4.0);
    gate.open();
    assert!(until_closed(&mut busy).await.starts_with(b"HTTP/1.1 404"));
}

#[tokio::test]
async fn where_all_have_requests_under_way_one_connection_more_waits() {
    let world = World::with(|setup| setup.config = "server.max_connections = 1".to_owned()).await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let under_way = tokio::spawn(got(world.request(Method::GET, &conversation_path("c-1"), REPORTING)));
    until("the request is under way", || world.standin.count() == 1).await;
    let mut second = TcpStream::connect(world.address).await.unwrap();
    second.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let waiting = tokio::spawn(async move {
        let mut byte = [0];
        second.read_exact(&mut byte).await.map(|_| byte)
    });
    // The ops listener has a budget of its own.
    for _ in 0..10 {
        assert_eq!(world.ops("/livez").await.status, 200);
    }
    assert!(!waiting.is_finished(), "a second was served beside one");
    gate.open();
    assert_eq!(under_way.await.unwrap().status, 404);
    let served = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert_eq!(served.expect("it gets the free place").unwrap().unwrap(), *b"H");
}

#[tokio::test]
async fn a_drain_lets_requests_under_way_end_and_takes_no_new_ones() {
    let mut world = World::new().await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let under_way = tokio::spawn(got(world.request(Method::GET, &conversation_path("c-1"), REPORTING)));
    until("the request is under way", || world.standin.count() == 1).await;
    assert_eq!(world.ops("/readyz").await.status, 200);
    world.stop();
    until("the gateway drains", || world.app.is_draining()).await;
    assert_eq!(world.ops("/readyz").await.status, 503);
    assert_eq!(world.ops("/livez").await.status, 200);
    gate.open();
    assert_eq!(under_way.await.unwrap().status, 404);
    (&mut world.running).await.unwrap();
    assert!(TcpStream::connect(world.address).await.is_err());
}
