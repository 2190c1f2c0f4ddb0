//! Loads that wrk cannot make: so many requests at one moment; a constant rate with latencies counted
//! from when each request was due, so that a server that stalls cannot hide it; one request for each of
//! many documents.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use super::Arguments;

const ADDRESS: &str = "127.0.0.1:8080";

fn request(arguments: &Arguments, path: &str) -> String {
    let address = arguments.text("address", ADDRESS);
    let header = arguments.text("header", "x-nothing: 1");
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{header}\r\n\r\n")
}

/// One connection and the request it sends.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(arguments: &Arguments, path: &str) -> Self {
        let address = arguments.text("address", ADDRESS);
        let stream = TcpStream::connect(address).await.expect("a server");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, request: request(arguments, path).into_bytes(), buffer: vec![0; 64 * 1024] }
    }

    /// Sends it and reads the answer to its end; its status.
    async fn ask(&mut self) -> std::io::Result<u16> {
        self.stream.write_all(&self.request).await?;
        let mut filled = 0;
        let (head, length) = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if let Some(head) = self.buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
                let length =
                    text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
                break (head + 4, length.unwrap_or(0_usize));
            }
        };
        let status = std::str::from_utf8(&self.buffer[9..12]).ok().and_then(|text| text.parse().ok());
        let mut left = (head + length).saturating_sub(filled);
        while left > 0 {
            let read = self.stream.read(&mut self.buffer).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            left = left.saturating_sub(read);
        }
        Ok(status.unwrap_or(0))
    }
}

fn report(mut latencies: Vec<Duration>, failed: usize) {
    latencies.sort_unstable();
    let at = |share: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = (latencies.len() as f64 * share) as usize;
        latencies
            .get(index.min(latencies.len().saturating_sub(1)))
            .map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    };
    println!(
        r#"{{"answers":{},"failed":{failed},"p50_ms":{:.3},"p99_ms":{:.3},"max_ms":{:.3}}}"#,
        latencies.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// `count` requests for `path` at one moment, each on a connection that is open already. One clock for all: from
/// that moment on, so that what this program takes to send and to read them counts too.
pub async fn burst(arguments: &Arguments) {
    let count = usize::try_from(arguments.number("count", 500)).expect("a count");
    let path = arguments.text("path", "/").to_owned();
    let gate = Arc::new(Barrier::new(count));
    let start = Arc::new(OnceLock::new());
    let mut tasks = Vec::new();
    for _ in 0..count {
        let mut connection = Connection::open(arguments, &path).await;
        let (gate, start) = (gate.clone(), start.clone());
        tasks.push(tokio::spawn(async move {
            gate.wait().await;
            let start = *start.get_or_init(Instant::now);
            (connection.ask().await, start.elapsed())
        }));
    }
    let (mut latencies, mut failed) = (Vec::new(), 0);
    for task in tasks {
        match task.await.expect("a task") {
            (Ok(200), latency) => latencies.push(latency),
            _ => failed += 1,
        }
    }
    report(latencies, failed);
}

/// `rate` requests a second for `path` over `connections`, for `seconds`.
pub async fn rate(arguments: &Arguments) {
    let connections = arguments.number("connections", 64);
    let per_second = arguments.number("rate", 1000);
    let duration = Duration::from_secs(arguments.number("seconds", 5));
    let path = arguments.text("path", "/").to_owned();
    let every = Duration::from_secs(1).saturating_mul(u32::try_from(connections).expect("connections"))
        / u32::try_from(per_second).expect("a rate");
    let mut tasks = Vec::new();
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(arguments, &path).await);
    }
    let start = Instant::now();
    for (n, mut connection) in (0_u32..).zip(opened) {
        let count = u32::try_from(connections).expect("connections");
        tasks.push(tokio::spawn(async move {
            let mut due = start + every * n / count;
            let (mut latencies, mut failed) = (Vec::new(), 0_usize);
            while due < start + duration {
                // The timer's milliseconds are longer than what is measured.
                while Instant::now() < due {
                    tokio::task::yield_now().await;
                }
                match connection.ask().await {
                    Ok(200) => latencies.push(due.elapsed()),
                    _ => failed += 1,
                }
                due += every;
            }
            // Put together when all have ended: before, it would hold up those that have not.
            (latencies, failed)
        }));
    }
    let (mut latencies, mut failed) = (Vec::new(), 0);
    for task in tasks {
        let (of_one, failed_of_one) = task.await.expect("a task");
        latencies.extend(of_one);
        failed += failed_of_one;
    }
    report(latencies, failed);
}

/// One request for each of `count` documents: `path`, with their numbers in place of its `{}`.
pub async fn fill(arguments: &Arguments) {
    const CONNECTIONS: usize = 32;
    let count = arguments.number("count", 1000);
    let path = arguments.text("path", "/{}").to_owned();
    let mut tasks = Vec::new();
    for first in 0..CONNECTIONS as u64 {
        let mut connection = Connection::open(arguments, &path).await;
        let template = request(arguments, &path);
        tasks.push(tokio::spawn(async move {
            for n in (first..count).step_by(CONNECTIONS) {
                connection.request = template.replace("{}", &n.to_string()).into_bytes();
                let status = connection.ask().await.expect("an answer");
                assert_eq!(status, 200, "while the store was filled");
            }
        }));
    }
    for task in tasks {
        task.await.expect("all of its answers");
    }
}
