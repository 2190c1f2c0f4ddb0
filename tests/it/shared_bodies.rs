//! What is made of an answer, a client's view or a coding, is made once for all who wait for it, and they hold no
//! thread; what is held beside the store, of responses and of answers being read, has a bound in bytes.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use kore_standin::{EXAMPLE_ACCOUNT, EXAMPLE_CLIENT_ID, Fault, Gate, Standin, example_secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::world::{Got, REPORTING, World, client, conversation_path, got, until};

const MASKED: &str = "kg_masked";
const PROFILE: &str = "[redaction.no-phones]\nmask = [\"/phoneNumber\"]\nshow = [\"/padding\"]\nkinds = [\"email\", \"phone\"]\n";
const MIB: usize = 1 << 20;

/// An answer of about so many bytes, with something to mask at both of its ends.
fn body(id: &str, status: &str, bytes: usize) -> String {
    let text = "The agent called back about the order. ".repeat(bytes / 39);
    format!(
        r#"{{"_id":"{id}","status":"{status}","endTime":"2026-02-01T00:00:00Z","phoneNumber":"+15550599716","summary":"{text}","notes":[{{"note":"mail a@b.example"}}]}}"#
    )
}

fn shown(body: &str) -> String {
    body.replace("+15550599716", "***").replace("a@b.example", "***")
}

async fn world(config: &str) -> World {
    World::with(|setup| {
        setup.without_quota = true;
        setup.config = format!("{config}\n{PROFILE}");
        setup.clients = client("masked", MASKED).toml() + "redact = [\"no-phones\"]\n";
    })
    .await
}

async fn made(world: &World, form: &str) -> f64 {
    world.metric(&format!("kore_gateway_cache_bodies_made_total{{form=\"{form}\"}}")).await
}

#[tokio::test]
async fn all_who_wait_for_a_view_get_the_same_one_also_of_what_is_not_stored() {
    let world = world("").await;
    let live = body("c-1", "ACTIVE", MIB);
    world.standin.serve_body("/conversations/c-1", 200, "application/json", live.clone());
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let path = conversation_path("c-1");
    let asking = join_all((0..40).map(|_| got(world.request(Method::GET, &path, MASKED))));
    let letting_go = async {
        until("all are under way", || world.app.metrics.http.active_requests.get() == 40).await;
        gate.open();
    };
    let (all, ()) = futures_util::join!(asking, letting_go);
    assert!(all.iter().all(|got| got.body == shown(&live)));
    assert_eq!((world.standin.count(), world.app.cache.size().0), (1, 0));
    assert_eq!(made(&world, "view").await, 1.0);
}

#[tokio::test]
async fn an_answer_that_takes_too_much_work_to_look_into_is_a_502_to_whom_something_is_kept_from() {
    let world = world("limits.redaction_work = 1000000").await;
    for (id, text, status) in [("c-1", "a".repeat(10_000), 200), ("c-2", "1 ".repeat(100_000), 502)] {
        let body = format!(r#"{{"_id":"{id}","status":"CLOSED","summary":"{text}"}}"#);
        world.standin.serve_body(&format!("/conversations/{id}"), 200, "application/json", body);
        let path = conversation_path(id);
        let masked = got(world.request(Method::GET, &path, MASKED)).await;
        assert_eq!(masked.status, status, "{id}");
        if status == 502 {
            assert_eq!(masked.problem(), "upstream-invalid");
        }
        assert_eq!(world.get(&path).await.status, 200, "{id}");
    }
}

/// More than the sockets on the way can hold.
const LARGE: usize = 24 * MIB;

/// Asks, reads the head, and then nothing.
async fn idler(address: std::net::SocketAddr, path: &str, key: &str) -> TcpStream {
    let mut idler = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\n\r\n");
    idler.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    idler.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    idler
}

fn assert_is_full(got: &Got) {
    assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((got.problem().as_str(), got.header("retry-after")), ("temporary-reduced-capacity", "5"));
}

#[tokio::test]
async fn responses_hold_no_more_bytes_than_they_may_and_a_body_that_many_read_counts_once() {
    let world = world("server.max_bytes_in_flight = \"40MiB\"\nserver.write_timeout = \"5m\"").await;
    for id in ["c-1", "c-2"] {
        let body = body(id, "CLOSED", LARGE);
        world.standin.serve_body(&format!("/conversations/{id}"), 200, "application/json", body);
    }
    let [one, other] = ["c-1", "c-2"].map(conversation_path);
    let idlers = join_all((0..10).map(|_| idler(world.address, &one, REPORTING))).await;
    let held = world.metric("kore_gateway_bytes_in_flight{of=\"responses\"}").await;
    assert!(held > 24e6 && held < 27e6, "{held}: as much as one body");
    assert_eq!(world.get(&one).await.status, StatusCode::OK, "what is held already costs nothing more");
    assert_is_full(&world.get(&other).await);
    assert_is_full(&got(world.request(Method::GET, &one, MASKED)).await);
    drop(idlers);
    until("all is let go", || world.app.responses.bytes() == 0).await;
    let hit = world.get(&other).await;
    assert_eq!((hit.status, hit.is_hit()), (StatusCode::OK, true), "the answer that was refused was stored");
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn answers_being_read_take_no_more_bytes_than_they_may() {
    let world = world("[upstream]\nmax_bytes_in_flight = \"1MiB\"\ntimeout = \"2s\"").await;
    let serve = |id: &str, bytes: usize| {
        let body = body(id, "CLOSED", bytes);
        world.standin.serve_body(&format!("/conversations/{id}"), 200, "application/json", body);
    };
    serve("c-1", 3 * MIB);
    serve("c-2", MIB / 2);
    serve("c-3", MIB);
    serve("c-4", 4 * MIB);
    let [alone, small, large, beyond] = ["c-1", "c-2", "c-3", "c-4"].map(conversation_path);
    let reading = async || world.metric("kore_gateway_bytes_in_flight{of=\"fills\"}").await;
    let asking = async |path: &str, least: f64| {
        let first = world.get(path);
        let second = async {
            while reading().await < least {
                tokio::task::yield_now().await;
            }
            world.standin.fault(None);
            let calls = world.standin.count();
            (world.get(&large).await, world.standin.count() - calls)
        };
        futures_util::join!(first, second)
    };
    // What is alone is read, however large it is; while it is more than may be, no other call is begun.
    world.standin.fault_next(1, Fault::HangInBody);
    let (hung, (refused, calls)) = asking(&alone, 1.0e6 * 1.1).await;
    assert_eq!(hung.status, StatusCode::GATEWAY_TIMEOUT);
    assert_is_full(&refused);
    assert_eq!(calls, 0);
    // A call that is begun while there is room is given up when there is none.
    world.standin.fault_next(1, Fault::HangInBody);
    let (hung, (refused, calls)) = asking(&small, 2.0e5).await;
    assert_eq!(hung.status, StatusCode::GATEWAY_TIMEOUT);
    assert_is_full(&refused);
    assert_eq!(calls, 1);
    assert_eq!(reading().await, 0.0);
    assert_eq!(world.get(&beyond).await.status, StatusCode::OK);
    assert_eq!(world.metric("kore_gateway_breaker_state").await, 0.0);
}

/// A gateway as a process of its own in front of a stand-in, with a client that has a profile.
async fn process(more: &[(&str, &str)]) -> (Process, Standin) {
    let standin = Standin::start(kore_standin::Options::default()).await.unwrap();
    let (folder, url) = (tempfile::tempdir().unwrap(), standin.url());
    let secret = folder.path().join("secret");
    std::fs::write(&secret, example_secret()).unwrap();
    let secret = format!("{{ file = \"{}\" }}", secret.display());
    let accounts = format!("[\"{EXAMPLE_ACCOUNT}\"]");
    let mut keys = vec![
        ("ACCOUNTS__0__ID", EXAMPLE_ACCOUNT),
        ("ACCOUNTS__0__CONTACT_CENTER_URL", &url),
        ("ACCOUNTS__0__AUTOMATION_URL", &url),
        ("ACCOUNTS__0__CREDENTIALS__0__CLIENT_ID", EXAMPLE_CLIENT_ID),
        ("ACCOUNTS__0__CREDENTIALS__0__CLIENT_SECRET", &secret),
        ("CLIENTS__0__ACCOUNTS", &accounts),
        ("CLIENTS__0__RATE_LIMIT", "100000/min"),
        ("REDACTION__NO_PHONES__MASK", "[\"/phoneNumber\"]"),
        ("REDACTION__NO_PHONES__KINDS", "[\"email\", \"phone\"]"),
    ];
    keys.extend(more);
    (Process::start_with(&keys), standin)
}

async fn metric(process: &Process, series: &str) -> f64 {
    let text = reqwest::get(format!("http://{}/metrics", process.ops)).await.unwrap().text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// A stored record of 20 MiB, its view, and what it takes to make one.
#[tokio::test]
async fn forty_redacted_readers_of_one_large_answer_cost_one_view() {
    const CAPACITY: u64 = 64 << 10;
    let (process, standin) = process(&[
        ("CACHE__CAPACITY", "64MiB"),
        ("CLIENTS__0__REDACT", "[\"no_phones\"]"),
        ("SERVER__WRITE_TIMEOUT", "5m"),
    ])
    .await;
    let body = body("c-1", "CLOSED", 20 * MIB);
    standin.serve_body("/conversations/c-1", 200, "application/json", body.clone());
    let path = conversation_path("c-1");
    // All have got their heads, and none has got more than sockets hold.
    let readers = join_all((0..40).map(|_| idler(process.address, &path, "kg_x"))).await;
    let (peak, expected) = (process.peak_memory(), shown(&body));
    println!("at most {} MiB resident, with 64 MiB of cache and 40 readers of 20 MiB", peak >> 10);
    for mut reader in readers {
        let mut answer = Vec::new();
        while !answer.ends_with(b"***\"}]}") {
            assert!(reader.read_buf(&mut answer).await.unwrap() > 0, "it is cut");
        }
        assert!(answer.ends_with(expected.as_bytes()));
    }
    assert_eq!(metric(&process, "kore_gateway_cache_bodies_made_total{form=\"view\"}").await, 1.0);
    let body = u64::try_from(body.len()).unwrap() >> 10;
    assert!(peak <= CAPACITY * 12 / 10 + 3 * body, "{peak} KiB");
}

#[tokio::test]
async fn five_hundred_callers_wait_for_one_compression_and_hold_no_thread() {
    let (process, standin) = process(&[]).await;
    let body = body("c-1", "CLOSED", 30 * MIB);
    standin.serve_body("/conversations/c-1", 200, "application/json", body.clone());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}{}", process.address, conversation_path("c-1"));
    let ask = || http.get(&url).header("x-api-key", "kg_x").header("accept-encoding", "br");
    let most_threads = async {
        let mut most = 0;
        loop {
            most = process.threads().max(most);
            if metric(&process, "kore_gateway_cache_requests_total{route=\"conversation\",outcome=\"miss\"}")
                .await
                > 0.0
            {
                break most;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (all, threads) = futures_util::join!(join_all((0..500).map(|_| got(ask()))), most_threads);
    for got in &all {
        assert_eq!((got.status, got.header("content-encoding")), (StatusCode::OK, "br"));
        assert_eq!(got.body, all[0].body);
    }
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut brotli::Decompressor::new(&all[0].body[..], 4096), &mut plain).unwrap();
    assert!(plain == body.as_bytes());
    let made = metric(&process, "kore_gateway_cache_bodies_made_total{form=\"br\"}").await;
    println!("{made} compressions for {} callers, {threads} threads, {} calls", all.len(), standin.count());
    assert_eq!((made, standin.count()), (1.0, 1));
    assert!(threads < 100, "{threads} threads");
}

/// What an end user may type, of a size that an unoptimised build looks into for long.
fn hostile(bytes: usize) -> String {
    format!(r#"{{"_id":"c-1","status":"CLOSED","summary":"{}"}}"#, "%40".repeat(bytes / 3))
}

#[tokio::test]
async fn a_process_that_looks_into_a_hostile_text_answers_others_and_ends_in_time() {
    let (process, standin) = process(&[
        ("SERVER__WORKERS", "1"),
        ("SERVER__DRAIN_TIMEOUT", "1s"),
        ("LIMITS__REDACTION_WORK", "1000000000000"),
        ("CLIENTS__0__REDACT", "[\"no_phones\"]"),
    ])
    .await;
    standin.serve_body("/conversations/c-1", 200, "application/json", hostile(30 * MIB));
    let (url, http) =
        (format!("http://{}", process.address), reqwest::Client::builder().no_proxy().build().unwrap());
    let ask =
        |id: &str| http.get(format!("{url}{}", conversation_path(id))).header("x-api-key", "kg_x").send();
    let hostile = tokio::spawn(ask("c-1"));
    let begun = "kore_gateway_cache_bodies_made_total{form=\"view\"}";
    while metric(&process, begun).await < 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // With one thread that serves.
    assert_eq!(ask("c-2").await.unwrap().status(), StatusCode::NOT_FOUND);
    let was_under_way = !hostile.is_finished();
    let ended = tokio::task::spawn_blocking(|| process.drains_within(Duration::from_secs(30))).await.unwrap();
    assert!(ended && was_under_way, "ended: {ended}, while it was looked into: {was_under_way}");
}
