//! What the log says of a process: what was read at the start, what a reload changed, and how it ended. No value of a
//! secret is in it.

use std::time::{Duration, SystemTime};

use http::Method;
use kore_gateway::access::identify::key_digest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::tls_listener::{Authority, files};

const SOON: Duration = Duration::from_secs(60);

/// The next line of the log with this message.
fn line(running: &Process, message: &str) -> Value {
    loop {
        let line = running.log.recv_timeout(SOON).unwrap_or_else(|_| panic!("no {message:?}"));
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["message"] == message {
            return line;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_says_in_one_line_what_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let in_a_year = SystemTime::now() + Duration::from_secs(365 * 86_400);
    Authority::new().issue_until(in_a_year).write(folder.path());
    let (cert, key) = files(folder.path());
    let audit = folder.path().join("audit.jsonl");
    let running = Process::start_with(&[
        ("SERVER__WORKERS", "3"),
        ("CACHE__CAPACITY", "8MiB"),
        ("SERVER__TLS__CERT", cert.to_str().unwrap()),
        ("SERVER__TLS__KEY", key.to_str().unwrap()),
        ("AUDIT__TO", audit.to_str().unwrap()),
    ]);
    let serving = &running.serving;
    for (field, value) in [
        ("message", json!("serving")),
        ("listen", json!(running.address.to_string())),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("files", json!(running.config.to_str().unwrap())),
        ("accounts", json!(1)),
        ("clients", json!(1)),
        ("issuers", json!(0)),
        ("cache_capacity", json!("8MiB")),
        ("quota", json!("account 60/min, bot 60/min and 1800/h")),
        ("workers", json!(3)),
        ("audit", json!(audit.to_str().unwrap())),
    ] {
        assert_eq!(serving[field], value, "{field} of {serving}");
    }
    assert!(serving["commit"].is_string(), "{serving}");
    let expires: jiff::Timestamp =
        serving["tls"].as_str().and_then(|tls| tls.strip_prefix("until ")).unwrap().parse().unwrap();
    assert_eq!(expires.as_second(), jiff::Timestamp::try_from(in_a_year).unwrap().as_second());
    // One format of time for all lines.
    let timestamp = serving["timestamp"].as_str().unwrap();
    assert_eq!((timestamp.len(), &timestamp[19..20], &timestamp[23..]), (24, ".", "Z"), "{serving}");
    let text = serving.to_string();
    for secret in ["secret", &hex::encode(key_digest(b"kg_x"))[..8], "kg_x"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_says_what_has_changed_and_no_value() {
    let running = Process::start_with(&[]);
    assert_eq!((&running.serving["tls"], &running.serving["audit"]), (&json!("off"), &json!("off")));
    let written = std::fs::read_to_string(&running.config).unwrap();
    let digest = hex::encode(key_digest(b"kg_second"));
    let second = format!(
        "[[clients]]\nname = \"second\"\napi_key_sha256 = \"{digest}\"\naccounts = [\"a1\"]\nbots = [\"*\"]\nroutes = [\"conversation\"]\n"
    );
    std::fs::write(&running.config, format!("cache.conversation.live_ttl = \"77ms\"\n{written}{second}"))
        .unwrap();
    running.signal("HUP");
    let reloaded = line(&running, "the configuration was reloaded");
    assert_eq!(reloaded["changed"], "cache, clients", "{reloaded}");
    assert_eq!((&reloaded["clients_before"], &reloaded["clients"]), (&json!(1), &json!(2)), "{reloaded}");
    assert_eq!((&reloaded["accounts_before"], &reloaded["accounts"]), (&json!(1), &json!(1)), "{reloaded}");
    for value in [&digest[..8], "77ms", "second"] {
        assert!(!reloaded.to_string().contains(value), "{value} in {reloaded}");
    }
    running.signal("HUP");
    assert_eq!(line(&running, "the configuration was reloaded")["changed"], "nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drain_says_what_is_under_way_and_the_end_says_what_was_cut() {
    let running = Process::start_with(&[
        ("SERVER__DRAIN_TIMEOUT", "3s"),
        ("CLIENTS__0__ROUTES__0", "interaction_details"),
    ]);
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    // Its body never comes.
    let mut stuck = TcpStream::connect(running.address).await.unwrap();
    let path = "/agentassist/api/public/analytics/account/a1/v2/interactionDetails";
    let head = format!(
        "{} {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: kg_x\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n{{",
        Method::POST
    );
    stuck.write_all(head.as_bytes()).await.unwrap();
    let scrape = async || {
        let url = format!("http://{}/metrics", running.ops);
        reqwest::get(url).await.unwrap().text().await.unwrap()
    };
    let under_way = async {
        while !scrape().await.contains("\nhttp_server_active_requests 1\n") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, under_way).await.expect("it waits for its body");
    assert!(scrape().await.contains("\nkore_gateway_connections{listener=\"main\"} 2\n"));
    running.signal("TERM");
    let draining = line(&running, "draining");
    assert_eq!((&draining["requests"], &draining["connections"]), (&json!(1), &json!(2)), "{draining}");
    let stopped = line(&running, "stopped");
    assert_eq!(stopped["connections_cut"], 1, "{stopped}");
    assert!((2_000..20_000).contains(&stopped["took_ms"].as_u64().unwrap()), "{stopped}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_descriptors_below_what_is_configured_is_warned_of() {
    let running = Process::start_with_descriptors("-n 200");
    let warning = line(&running, "too few file descriptors");
    assert_eq!(warning["level"], "WARN");
    let problem = warning["problem"].as_str().unwrap();
    assert!(problem.contains("200 files") && problem.contains("server.max_connections = 10000"), "{problem}");
}
