//! Nobody reads what the gateway writes to standard output (a stalled log driver): requests and health
//! checks are answered all the same, what is not written is counted, and the process still ends.

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::process::Process;
use crate::world::got;

/// More than anybody waits.
const LONG: Duration = Duration::from_secs(60);
/// Faults of a configuration; each is a line of some two hundred bytes, together more than a pipe and the
/// gateway's own room for lines hold.
const FAULTS: usize = 5_000;

struct Stalled {
    process: Process,
    http: reqwest::Client,
}

impl Stalled {
    /// A gateway of one thread whose log has filled its pipe and its own room.
    async fn start(keys: &'static [(&str, &str)]) -> Self {
        let start = move || Process::start_unread(keys);
        let process = tokio::task::spawn_blocking(start).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(LONG).build().unwrap();
        let stalled = Self { process, http };
        let unknown: String = (0..FAULTS).map(|n| format!("unknown-{n} = 1\n")).collect();
        let good = std::fs::read_to_string(&stalled.process.config).unwrap();
        std::fs::write(&stalled.process.config, unknown + &good).unwrap();
        stalled.process.signal("HUP");
        while stalled.metric("kore_gateway_log_lines_dropped_total").await == 0.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stalled
    }

    async fn status(&self, url: String) -> StatusCode {
        got(self.http.get(url).header("x-api-key", "kg_x")).await.status
    }

    async fn metric(&self, series: &str) -> f64 {
        let scrape = got(self.http.get(format!("http://{}/metrics", self.process.ops))).await;
        let scrape = String::from_utf8(scrape.body.to_vec()).unwrap();
        let line = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in {scrape}")).parse().unwrap()
    }
}

/// Everything that can take its time does: a head that never ends, an ops connection that is kept, a log that nobody
/// reads.
#[tokio::test]
async fn the_process_ends_when_the_time_for_its_drain_is_over() {
    const DRAIN: Duration = Duration::from_secs(3);
    let keys = &[("SERVER__DRAIN_TIMEOUT", "3s"), ("RELOAD__CHECK_FILES_EVERY", "0s")];
    let stalled = Stalled::start(keys).await;
    let mut half_a_head = TcpStream::connect(stalled.process.address).await.unwrap();
    half_a_head.write_all(b"GET / HT").await.unwrap();
    stalled.metric("kore_gateway_log_lines_dropped_total").await;
    let Stalled { process, http } = stalled;
    let began = Instant::now();
    let ended = tokio::task::spawn_blocking(move || process.drains_within(LONG)).await.unwrap();
    let took = began.elapsed();
    drop(http);
    assert!(ended && took > DRAIN * 8 / 10, "those under way have nearly all of it: {took:?}");
    assert!(took < DRAIN + Duration::from_millis(700), "{took:?}");
}

#[tokio::test]
async fn a_stalled_pipe_holds_up_no_request_no_health_check_and_no_end() {
    let keys = &[
        ("LOG__ACCESS", "true"),
        ("SERVER__WORKERS", "1"),
        ("SERVER__DRAIN_TIMEOUT", "2s"),
        ("RELOAD__CHECK_FILES_EVERY", "0s"),
    ];
    let stalled = Stalled::start(keys).await;
    let (main, ops) = (stalled.process.address, stalled.process.ops);
    let conversation = format!("http://{main}/agentassist/api/v1/public/st-1/conversations/c-1");
    for _ in 0..100 {
        // Nobody listens behind it.
        assert!(stalled.status(conversation.clone()).await.is_server_error());
        assert_eq!(stalled.status(format!("http://{ops}/livez")).await, StatusCode::OK);
    }
    let ended = tokio::task::spawn_blocking(move || stalled.process.drains_within(LONG));
    assert!(ended.await.unwrap(), "SIGTERM ends it");
}
