//! One client cannot take all of what is bounded: of bytes that are read, of bytes that are sent, and of the work on
//! bodies. Each has a share, and others find room beside it.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::world::{Got, REPORTING, SECOND, World, change_config, client, conversation_path, got, until};

const OTHER: &str = "kg_other";
const MASKED: &str = "kg_masked";
const MIB: usize = 1 << 20;
/// More than the sockets on the way can hold.
const LARGE: usize = 24 * MIB;

/// Clients of the same account and bots, one of which is masked.
async fn world(config: &str) -> World {
    let of = |name: &str, key: &str| client(name, key).toml();
    World::with(|setup| {
        setup.without_quota = true;
        setup.config = format!("{config}\n[redaction.no-names]\nmask = [\"/name\"]\nkinds = [\"email\"]\n");
        let masked = |name, key| of(name, key) + "redact = [\"no-names\"]\n";
        setup.clients = of("other", OTHER) + &masked("masked", MASKED);
    })
    .await
}

/// Conversations of about so many bytes that are over.
fn serve(world: &World, ids: &[&str], bytes: usize) {
    for id in ids {
        let body = format!(
            r#"{{"_id":"{id}","status":"CLOSED","endTime":"2026-02-01T00:00:00Z","name":"x","notes":"{}"}}"#,
            "about the order. ".repeat(bytes / 17)
        );
        world.standin.serve_body(&format!("/conversations/{id}"), 200, "application/json", body);
    }
}

/// Asks, reads the status, and then nothing.
async fn idler(address: SocketAddr, id: &str, key: &str) -> (TcpStream, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut idler = socket.connect(address).await.unwrap();
    let path = conversation_path(id);
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\n\r\n");
    idler.write_all(head.as_bytes()).await.unwrap();
    let mut line = [0; 12];
    idler.read_exact(&mut line).await.unwrap();
    let status = std::str::from_utf8(&line[9..]).unwrap().parse().unwrap();
    (idler, status)
}

async fn in_flight(world: &World, of: &str) -> f64 {
    world.metric(&format!("kore_gateway_bytes_in_flight{{of=\"{of}\"}}")).await
}

fn assert_is_full(got: &Got, told: &str) {
    assert_eq!((got.status, got.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "5"));
    let detail = got.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(told), "{detail}");
}

#[tokio::test]
async fn slow_readers_of_one_client_leave_others_room_for_answers_to_be_read() {
    let ids = ["c-1", "c-2", "c-3", "c-4", "c-5", "c-6", "c-7", "c-8"];
    let world =
        world("[upstream]\nmax_body = \"12MiB\"\nmax_bytes_in_flight = \"48MiB\"\ntimeout = \"5m\"").await;
    serve(&world, &ids, LARGE);
    let mut idlers = Vec::new();
    for id in ids {
        idlers.push(idler(world.address, id, REPORTING).await);
    }
    let served = idlers.iter().filter(|(_, status)| *status == 200).count();
    assert!((1..8).contains(&served), "{served} of its 8 are served");
    // As large an answer as theirs, read to its end.
    let got = got(world.request(Method::GET, &conversation_path("c-8"), OTHER)).await;
    assert!(got.status == StatusCode::OK && got.body.len() > LARGE - 100, "{}", got.status);
    drop(idlers);
    while in_flight(&world, "fills").await > 0.0 {}
}

#[tokio::test]
async fn what_has_been_sent_of_a_large_answer_counts_no_more() {
    let world = world("[upstream]\nmax_body = \"12MiB\"\ntimeout = \"5m\"").await;
    serve(&world, &["c-1"], LARGE);
    let (mut reader, _) = idler(world.address, "c-1", REPORTING).await;
    assert!(in_flight(&world, "fills").await > 1e6);
    let mut read = vec![0; 16 * MIB];
    reader.read_exact(&mut read).await.unwrap();
    let held = in_flight(&world, "fills").await;
    assert!(held < 6e6, "{held}: what is on its way");
    drop(reader);
    while in_flight(&world, "fills").await > 0.0 {}
}

#[tokio::test]
async fn slow_readers_of_one_client_leave_others_room_for_answers_to_be_sent() {
    let world = world("server.max_bytes_in_flight = \"64MiB\"\nserver.write_timeout = \"5m\"").await;
    serve(&world, &["c-1", "c-2", "c-3"], LARGE);
    let (one, status) = idler(world.address, "c-1", REPORTING).await;
    assert_eq!(status, 200);
    let (two, status) = idler(world.address, "c-2", REPORTING).await;
    let others = got(world.request(Method::GET, &conversation_path("c-3"), OTHER)).await;
    assert_eq!((status, others.status), (503, StatusCode::OK));
    assert_is_full(&world.get(&conversation_path("c-2")).await, "this client");
    // A body that two clients are sent is one in all, and counts for each: when one has it, it is still the other's.
    let (three, status) = idler(world.address, "c-1", OTHER).await;
    assert_eq!(status, 200);
    let held = in_flight(&world, "responses").await;
    assert!(held > 24e6 && held < 27e6, "{held}: as much as one body");
    drop((one, two));
    let asking = async || world.get(&conversation_path("c-2")).await.status;
    while asking().await != StatusCode::OK {}
    let others = got(world.request(Method::GET, &conversation_path("c-2"), OTHER)).await;
    assert_is_full(&others, "this client");
    drop(three);
    until("all is let go", || world.app.responses.bytes() == 0).await;
}

async fn views(world: &World) -> f64 {
    world.metric("kore_gateway_cache_bodies_made_total{form=\"view\"}").await
}

#[tokio::test]
async fn who_waits_for_a_body_to_be_made_ready_is_told_when_it_takes_too_long() {
    let world = world("limits.redaction_work = 1000000000000").await;
    let body = format!(r#"{{"_id":"c-1","status":"CLOSED","summary":"{}"}}"#, "%40".repeat(10 * MIB));
    world.standin.serve_body("/conversations/c-1", 200, "application/json", body);
    let path = conversation_path("c-1");
    assert_eq!(world.get(&path).await.status, StatusCode::OK);
    // Far less than the search takes, on the machine's clock too.
    change_config(&world, |written| format!("upstream.timeout = \"100ms\"\n{written}"));
    world.app.reload().await.unwrap();
    let asking = tokio::spawn(got(world.request(Method::GET, &path, MASKED)));
    while views(&world).await < 1.0 {}
    world.advance(SECOND);
    let got = tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap().unwrap();
    assert_eq!((got.status, got.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "5"));
}
