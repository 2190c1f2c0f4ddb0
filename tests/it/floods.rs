//! HTTP/2 lets a peer say much that costs it little. Whoever floods is bounded or cut, the process
//! stays as small as it was, and somebody else is served meanwhile.

use std::time::Duration;

use kore_standin::{Conversation, EXAMPLE_STREAM};
use reqwest::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::world::{DAY, REPORTING, World, before, conversation_path, until, window_path};

/// Frames' types and flags (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a flood may add to the process, in KiB.
const MOST_GROWTH: u64 = 16 * 1024;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET /nowhere`, without dynamic table (RFC 7541 §6.1, §6.2.2).
fn head() -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, 8];
    block.extend(b"/nowhere");
    block.extend([0x01, 1]);
    block.extend(b"x");
    block
}

async fn connected(gateway: &Process) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[]));
    stream.write_all(&hello).await.unwrap();
    stream
}

/// Sends pieces until the gateway hangs up or so many bytes are gone; reads what it says if `reads`.
/// Whether it hung up.
async fn flood(stream: TcpStream, bytes: usize, reads: bool, mut piece: impl FnMut() -> Vec<u8>) -> bool {
    let (mut reader, mut writer) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut scratch = vec![0; 64 * 1024];
        while reads && matches!(reader.read(&mut scratch).await, Ok(1..)) {}
        reader
    });
    let mut sent = 0;
    let writing = async {
        while sent < bytes {
            let piece = piece();
            sent += piece.len();
            if writer.write_all(&piece).await.is_err() {
                return true;
            }
        }
        false
    };
    let hung_up = tokio::time::timeout(Duration::from_secs(20), writing).await;
    reading.abort();
    hung_up.expect("a flood is taken or ended, not held")
}

/// The flood, beside a caller who is served all the while; the flood's own outcome.
async fn beside_a_victim(gateway: &Process, flood: impl Future<Output = bool> + Send + 'static) -> bool {
    let http = Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let ask = async || http.get(format!("http://{}/nowhere", gateway.address)).send().await.unwrap().status();
    assert_eq!(ask().await, 404);
    let before = gateway.peak_memory();
    let flooding = tokio::spawn(flood);
    let mut served = 0;
    while !flooding.is_finished() || served < 10 {
        assert_eq!(ask().await, 404);
        served += 1;
    }
    let growth = gateway.peak_memory().saturating_sub(before);
    assert!(growth < MOST_GROWTH, "{growth} KiB more");
    flooding.await.unwrap()
}

/// The connections of the main listener that the gateway has ended for a reason.
async fn ended(gateway: &Process, reason: &str) -> u64 {
    let http = Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let text =
        http.get(format!("http://{}/metrics", gateway.ops)).send().await.unwrap().text().await.unwrap();
    let series = format!("kore_gateway_connections_ended_total{{listener=\"main\",reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |value| value.parse().unwrap())
}

/// One connection has ended for that reason: it is counted when its socket is closed already.
async fn assert_one_ended(gateway: &Process, reason: &str) {
    let counting = async { while ended(gateway, reason).await == 0 {} };
    tokio::time::timeout(Duration::from_secs(20), counting)
        .await
        .unwrap_or_else(|_| panic!("none: {reason}"));
    assert_eq!(ended(gateway, reason).await, 1, "{reason}");
}

fn gateway() -> Process {
    Process::start(&[("WRITE_TIMEOUT", "500ms")])
}

/// A field that is named and in no table (RFC 7541 §6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0x00], text(name), text(value)].concat()
}

/// hyper ends a connection at a CONNECT with a body, in the very turn in which it has taken in those before.
#[tokio::test]
async fn requests_whose_connection_ends_before_they_are_begun_are_let_go() {
    const REQUESTS: u32 = 99;
    let world = World::new().await;
    let fields = |fields: &[(&str, &str)]| -> Vec<u8> {
        fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
    };
    // Their bodies never come.
    let waiting = fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "gw"),
        (":path", &window_path()),
        ("content-type", "application/json"),
        ("x-api-key", REPORTING),
    ]);
    let connect = fields(&[(":method", "CONNECT"), (":authority", "gw"), ("content-length", "5")]);
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    for n in 0..REQUESTS {
        sent.extend(frame(HEADERS, END_HEADERS, 2 * n + 1, &waiting));
    }
    sent.extend(frame(HEADERS, END_HEADERS, 2 * REQUESTS + 1, &connect));
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(&sent).await.unwrap();
    let mut answered = Vec::new();
    // Ended, or reset with something unread.
    let _ = stream.read_to_end(&mut answered).await;
    assert!(!answered.is_empty());
    until("nothing is left of them", || world.app.metrics.http.active_requests.get() == 0).await;
}

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset() {
    let gateway = gateway();
    let stream = connected(&gateway).await;
    let mut id = 1;
    let burst = move || {
        let mut burst = Vec::new();
        for _ in 0..100 {
            burst.extend(frame(HEADERS, END_STREAM | END_HEADERS, id, &head()));
            burst.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
            id += 2;
        }
        burst
    };
    assert!(beside_a_victim(&gateway, flood(stream, 64 << 20, true, burst)).await, "it is cut");
}

/// CVE-2024-27316: a head that never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuation() {
    let gateway = gateway();
    let mut stream = connected(&gateway).await;
    stream.write_all(&frame(HEADERS, END_STREAM, 1, &head())).await.unwrap();
    let mut field = vec![0x00, 1];
    field.extend(b"a");
    field.push(100);
    field.extend([b'b'; 100]);
    let more = move || frame(CONTINUATION, 0, 1, &field.repeat(100));
    assert!(beside_a_victim(&gateway, flood(stream, 64 << 20, true, more)).await, "it is cut");
}

/// CVE-2019-9512 and -9515, by a peer that reads its answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_and_settings() {
    for (kind, payload) in [(PING, vec![0; 8]), (SETTINGS, vec![0, 3, 0, 0, 0, 100])] {
        let gateway = gateway();
        let stream = connected(&gateway).await;
        let burst = move || frame(kind, 0, 0, &payload).repeat(1000);
        assert!(beside_a_victim(&gateway, flood(stream, 256 << 20, true, burst)).await, "it is cut");
    }
}

/// The frames that ask for nothing, with a request in between now and then: each request brings a MiB and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_ask_for_nothing_between_requests_are_counted_against_them() {
    const PRIORITY: u8 = 2;
    const UNKNOWN: u8 = 0xfa;
    for (kind, stream, payload) in [
        (PING, 0, vec![0; 8]),
        (SETTINGS, 0, vec![0, 3, 0, 0, 0, 100]),
        (PRIORITY, 1, vec![0, 0, 0, 0, 16]),
        (UNKNOWN, 0, vec![0; 1000]),
    ] {
        let gateway = gateway();
        let socket = connected(&gateway).await;
        let mut id = 1;
        let burst = move || {
            // Two MiB and more to each request.
            let mut burst = frame(kind, 0, stream, &payload).repeat((2 << 20) / (payload.len() + 9) + 1);
            burst.extend(frame(HEADERS, END_STREAM | END_HEADERS, id, &head()));
            id += 2;
            burst
        };
        assert!(beside_a_victim(&gateway, flood(socket, 64 << 20, true, burst)).await, "{kind} is cut");
        assert_one_ended(&gateway, "flood").await;
    }
}

/// The same while one request is under way that never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_no_leave_to_flood() {
    let gateway = gateway();
    let mut stream = connected(&gateway).await;
    // Its end never comes.
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &head())).await.unwrap();
    let burst = move || frame(PING, 0, 0, &[0; 8]).repeat(1000);
    assert!(beside_a_victim(&gateway, flood(stream, 64 << 20, true, burst)).await, "it is cut");
    assert_one_ended(&gateway, "flood").await;
}

/// A hundred streams whose peer lets one byte of each through at a time: most of what it takes are frames' own heads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_at_a_time_is_no_progress() {
    const STREAMS: u32 = 99;
    let gateway = Process::start(&[("WRITE_TIMEOUT", "2s")]);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE is 0 (RFC 9113 §6.5.2).
    hello.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    for n in 0..STREAMS {
        hello.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &head()));
    }
    stream.write_all(&hello).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut scratch = vec![0; 64 * 1024];
        let mut taken = 0;
        while let Ok(read @ 1..) = reader.read(&mut scratch).await {
            taken += read;
        }
        taken
    });
    let dripping = async {
        loop {
            let each: Vec<u8> =
                (0..STREAMS).flat_map(|n| frame(WINDOW_UPDATE, 0, 2 * n + 1, &1_u32.to_be_bytes())).collect();
            if writer.write_all(&each).await.is_err() {
                return;
            }
            // Twenty bytes of each answer in a write time-out, and over 16 KiB of frames' heads.
            tokio::time::sleep(Duration::from_millis(90)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), dripping).await.expect("it is cut");
    let taken = reading.await.unwrap();
    assert!(taken > 0);
    assert_one_ended(&gateway, "write-timeout").await;
}

/// A large answer through a window that is opened by a few bytes at a time: what the peer says for it is no flood.
#[tokio::test]
async fn a_large_answer_through_a_small_window_is_served_whole() {
    const BODY: usize = 8_000_000;
    /// Bytes that one WINDOW_UPDATE lets through, and how many of those are sent together.
    const EACH: u32 = 32;
    const TOGETHER: u32 = 1000;
    let large = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).padded(BODY);
    let path = conversation_path(&large.conversation_id);
    let world = World::of(vec![large]).await;
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    let asked = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "gw"),
        (":path", &path),
        ("x-api-key", REPORTING),
    ];
    let asked: Vec<u8> = asked.iter().flat_map(|(name, value)| literal(name, value)).collect();
    hello.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &asked));
    let mut stream = BufStream::new(TcpStream::connect(world.address).await.unwrap());
    stream.write_all(&hello).await.unwrap();
    let mut more = frame(WINDOW_UPDATE, 0, 1, &EACH.to_be_bytes()).repeat(TOGETHER as usize);
    more.extend(frame(WINDOW_UPDATE, 0, 0, &(EACH * TOGETHER).to_be_bytes()));
    let (mut taken, mut sent, mut is_over) = (0, 0, false);
    while !is_over {
        if taken % (EACH * TOGETHER) as usize == 0 {
            stream.write_all(&more).await.unwrap();
            stream.flush().await.unwrap();
            sent += more.len();
        }
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap_or_else(|error| panic!("after {taken} bytes: {error}"));
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == DATA {
            taken += payload.len();
            is_over = head[4] & END_STREAM != 0;
        }
    }
    assert!(taken > BODY && sent > 3 << 20, "{taken} bytes for {sent}");
}

/// Eleven addresses hold all places and say nothing: who comes then is served, and nobody waits for a time-out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_holders_make_room() {
    let gateway = Process::start(&[("MAX_CONNECTIONS", "330"), ("MAX_CONNECTIONS_PER_ADDRESS", "30")]);
    let mut held = Vec::new();
    for host in 1..=11 {
        for _ in 0..30 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 9, host], 0).into()).unwrap();
            held.push(socket.connect(gateway.address).await.unwrap());
        }
    }
    let http = crate::world::from_address([127, 0, 10, 1]);
    for _ in 0..20 {
        let asked =
            http.get(format!("http://{}/nowhere", gateway.address)).header("connection", "close").send();
        let answer = tokio::time::timeout(Duration::from_secs(10), asked).await;
        assert_eq!(answer.expect("it has a place at once").unwrap().status(), 404);
    }
    assert!(ended(&gateway, "displaced").await >= 1);
    assert_eq!(ended(&gateway, "header-timeout").await, 0);
}

/// Half closed, and answered, by the process.
#[tokio::test]
async fn half_close() {
    let gateway = gateway();
    for address in [gateway.address, gateway.ops] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
    }
}

/// The same, by a peer that does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_without_a_reader() {
    let gateway = gateway();
    let stream = connected(&gateway).await;
    let burst = move || frame(PING, 0, 0, &[0; 8]).repeat(1000);
    assert!(beside_a_victim(&gateway, flood(stream, 256 << 20, false, burst)).await, "it is cut");
}
