//! A new process takes over from an old one, and not one request fails.
//!
//! The listening socket belongs to whoever started both (as with systemd's socket activation), so
//! nobody ever finds it closed. The callers here are strict: they never send anything twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::caller::http2;
use crate::process::Process;

const RESTARTS: usize = 20;

/// What the callers have seen.
#[derive(Default)]
struct Sightings {
    answered: AtomicUsize,
    connections: AtomicUsize,
    enough: AtomicBool,
}

fn request(address: SocketAddr) -> Request<Empty<Bytes>> {
    Request::get(format!("http://{address}/nowhere"))
        .header(header::HOST, address.to_string())
        .body(Empty::new())
        .unwrap()
}

/// Asks over HTTP/1, one request after the other on one connection, until it is told that one was
/// the last.
async fn ask_over_http1(address: SocketAddr, seen: Arc<Sightings>) {
    while !seen.enough.load(Ordering::Relaxed) {
        let stream = TcpStream::connect(address).await.expect("nobody refuses a connection");
        seen.connections.fetch_add(1, Ordering::Relaxed);
        let (mut sender, running) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let running = tokio::spawn(running);
        while !seen.enough.load(Ordering::Relaxed) {
            let mut request = request(address);
            *request.uri_mut() = "/nowhere".parse().unwrap();
            let answer = sender.send_request(request).await.expect("an answer over HTTP/1");
            assert_eq!(answer.status(), 404);
            let is_last = answer.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
            answer.into_body().collect().await.expect("a whole answer");
            seen.answered.fetch_add(1, Ordering::Relaxed);
            if is_last {
                break;
            }
        }
        drop(sender);
        let _ = running.await;
    }
}

/// Asks over HTTP/2 until it is told to go away. A stream beyond the last one that GOAWAY names was
/// not looked at, and may be sent again (RFC 9113 §6.8).
async fn ask_over_http2(address: SocketAddr, seen: Arc<Sightings>) {
    while !seen.enough.load(Ordering::Relaxed) {
        let stream = TcpStream::connect(address).await.expect("nobody refuses a connection");
        seen.connections.fetch_add(1, Ordering::Relaxed);
        let (mut sender, running) = http2(stream).await.unwrap();
        while !seen.enough.load(Ordering::Relaxed) {
            match sender.send_request(request(address)).await {
                Ok(answer) => {
                    assert_eq!(answer.status(), 404);
                    answer.into_body().collect().await.expect("a whole answer");
                    seen.answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    assert!(was_not_looked_at(&error), "{error:?}");
                    break;
                }
            }
        }
        drop(sender);
        let _ = running.await;
    }
}

fn was_not_looked_at(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    error.is_canceled() || error.is_closed() || cause.contains("not a result of an error")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_restarts_under_load_and_not_one_request_fails() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();

    let seen = Arc::new(Sightings::default());
    let restarts = {
        let seen = seen.clone();
        tokio::task::spawn_blocking(move || {
            let mut running = Process::take_over(&socket, "1");
            for workers in ["2", "1"].into_iter().cycle().take(RESTARTS) {
                let next = Process::take_over(&socket, workers);
                // The old one has answered some, so that it has connections to let go of.
                let before = seen.answered.load(Ordering::Relaxed);
                while seen.answered.load(Ordering::Relaxed) < before + 50 {
                    std::thread::yield_now();
                }
                running.drain();
                running = next;
            }
            seen.enough.store(true, Ordering::Relaxed);
            running.drain();
        })
    };
    let callers: Vec<_> = (0..6)
        .map(|n| match n % 2 {
            0 => tokio::spawn(ask_over_http1(address, seen.clone())),
            _ => tokio::spawn(ask_over_http2(address, seen.clone())),
        })
        .collect();
    let done = async {
        for caller in callers {
            caller.await.expect("not one request failed");
        }
        restarts.await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(110), done).await.expect("twenty restarts");
    assert!(seen.connections.load(Ordering::Relaxed) > RESTARTS);
}

/// Without anybody who hands sockets over: both processes listen, and then only the new one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_may_share_the_port_of_the_old_one() {
    let (old, new) = tokio::task::spawn_blocking(|| {
        let old = Process::start(&[("SHARE_PORT", "true")]);
        let address = old.address.to_string();
        let new = Process::start(&[("SHARE_PORT", "true"), ("LISTEN", &address)]);
        (old, new)
    })
    .await
    .unwrap();
    let address = old.address;
    assert_eq!(new.address, address);
    tokio::task::spawn_blocking(|| old.drain()).await.unwrap();
    let stream = TcpStream::connect(address).await.expect("the new one listens");
    let (mut sender, running) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(running);
    let mut request = request(address);
    *request.uri_mut() = "/nowhere".parse().unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 404);
}

/// Fewer descriptors than callers: those who wait get in when others leave, and nothing spins or ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_callers_wait_until_others_leave() {
    let running = Process::start_with_descriptors("-n 40");
    let address = running.address;
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    // Looked at from another thread: this one's callers go on.
    let running = tokio::task::spawn_blocking(move || {
        let line = || running.log.recv_timeout(Duration::from_secs(10)).expect("it says so");
        let warning = line();
        assert!(warning.contains("may open 40 files (nofile)"), "{warning}");
        let line = line();
        assert!(line.contains("cannot accept"), "{line}");
        running
    });
    let _running = running.await.unwrap();
    let mut last = held.pop().unwrap();
    last.write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    drop(held);
    let mut answer = [0; 12];
    let served = tokio::time::timeout(Duration::from_secs(10), last.read_exact(&mut answer)).await;
    served.expect("who waited is served").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
}

/// A soft limit is what a shell happens to hand out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_up_to_the_hard_limit_are_taken() {
    let running = Process::start_with_descriptors("-Sn 40");
    let mut held = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        held.push(stream);
    }
    for stream in &mut held {
        let mut answer = [0; 12];
        let served = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut answer)).await;
        served.expect("all are served beside one another").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 404");
    }
}
