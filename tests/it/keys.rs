//! A client may have several keys, each with an end: one is changed for another without a gap, and
//! one that is taken out is nobody's from the reload on, for hits and for answers under way too.

use std::fs::File;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use kore_gateway::access::identify::{key_digest, presented};
use kore_gateway::access::rate_limit::Caller;
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault, Gate, OTHER_ACCOUNT, OTHER_STREAM};

use crate::world::{
    DAY, Got, HOUR, REPORTING, SECOND, World, before, change_config, client, conversation_path, got, reload,
    transcript_path, until, window_path, with_ops_token,
};

const OLD: &str = "kg_old";
const NEW: &str = "kg_new";

/// The block of a client with these keys, each a TOML table's members after its digest.
fn rotating(keys: &[(&str, &str)]) -> String {
    let keys = keys
        .iter()
        .map(|(key, more)| format!("{{ sha256 = \"{}\"{more} }}", hex::encode(key_digest(key.as_bytes()))));
    let keys = keys.collect::<Vec<_>>().join(", ");
    let block = client("rotating", OLD).toml();
    let single = block.lines().find(|line| line.starts_with("api_key_sha256")).unwrap();
    block.replace(single, &format!("api_keys = [{keys}]"))
}

async fn world(clients: String) -> (World, String) {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        with_ops_token(setup);
        setup.standin.conversations = vec![conversation];
        setup.clients = clients;
    })
    .await;
    (world, path)
}

#[tokio::test]
async fn both_keys_open_until_the_moment_the_old_one_expires() {
    // Noon and an hour.
    let (world, path) = world(rotating(&[(OLD, ", expires = 2026-03-02T14:00:00+01:00"), (NEW, "")])).await;
    let status = async |key: &str| got(world.request(Method::GET, &path, key)).await.status;
    assert_eq!((status(OLD).await, status(NEW).await), (StatusCode::OK, StatusCode::OK));
    world.advance(HOUR - SECOND);
    assert_eq!(status(OLD).await, StatusCode::OK);
    world.advance(SECOND);
    assert_eq!((status(OLD).await, status(NEW).await), (StatusCode::UNAUTHORIZED, StatusCode::OK));

    let expired = got(world.request(Method::GET, &path, OLD).header("x-request-id", "r")).await;
    let unknown = got(world.request(Method::GET, &path, "kg_unknown").header("x-request-id", "r")).await;
    assert_eq!(expired.body, unknown.body, "expired and unknown are one answer");
    assert_eq!(world.standin.count(), 1);
}

#[tokio::test]
async fn a_key_is_changed_without_a_gap_and_shares_its_clients_limit() {
    let (world, path) = world(rotating(&[(OLD, "")]).replace("1000000/min", "4/min")).await;
    let ask = async |key: &str| got(world.request(Method::GET, &path, key)).await;
    assert_eq!(ask(OLD).await.own_limits(), r#""client";r=3;t=15"#);

    let both = rotating(&[(OLD, ""), (NEW, "")]).replace("1000000/min", "4/min");
    change_config(&world, |written| {
        written.replace(&rotating(&[(OLD, "")]).replace("1000000/min", "4/min"), &both)
    });
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    assert_eq!(ask(OLD).await.own_limits(), r#""client";r=2;t=30"#, "a reload is no fresh start");
    assert_eq!(ask(NEW).await.own_limits(), r#""client";r=1;t=45"#);

    change_config(&world, |written| {
        written.replace(&both, &rotating(&[(NEW, "")]).replace("1000000/min", "4/min"))
    });
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    assert_eq!(ask(OLD).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(NEW).await.status, StatusCode::OK);
}

/// Callers hammer while the key goes. Whatever comes back after the reload was acknowledged is no
/// 2xx, also to a request that was under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_under_load_there_is_no_2xx_after_the_reload_is_acknowledged() {
    let (world, path) = world(rotating(&[(OLD, "")])).await;
    let world = Arc::new(world);
    let (acknowledged, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (before_ack, after_ack) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut callers = Vec::new();
    for _ in 0..8 {
        let (world, path) = (world.clone(), path.clone());
        let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
        let (before_ack, after_ack) = (before_ack.clone(), after_ack.clone());
        callers.push(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let is_after = acknowledged.load(Ordering::SeqCst);
                let answer = got(world.request(Method::GET, &path, OLD)).await;
                if is_after {
                    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
                    after_ack.fetch_add(1, Ordering::SeqCst);
                } else {
                    before_ack.fetch_add(usize::from(answer.status == StatusCode::OK), Ordering::SeqCst);
                }
            }
        }));
    }
    until("some hits", || before_ack.load(Ordering::SeqCst) > 100).await;
    change_config(&world, |written| written.replace(&rotating(&[(OLD, "")]), ""));
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    acknowledged.store(true, Ordering::SeqCst);
    until("some refusals", || after_ack.load(Ordering::SeqCst) > 100).await;
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(got(world.request(Method::GET, &path, REPORTING)).await.status, StatusCode::OK);
}

/// A miss that takes its time must not carry the old policy over the reload.
#[tokio::test]
async fn an_answer_under_way_is_not_handed_to_a_key_that_has_gone() {
    let (world, _) = world(rotating(&[(OLD, "")])).await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let path = conversation_path("c-2");
    let (conversation, key) =
        (world.request(Method::GET, &path, OLD), world.request(Method::GET, &path, REPORTING));
    let under_way = tokio::spawn(got(conversation));
    let lasting = tokio::spawn(got(key));
    until("the call", || world.standin.count() == 1).await;
    change_config(&world, |written| written.replace(&rotating(&[(OLD, "")]), ""));
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    gate.open();
    assert_eq!(under_way.await.unwrap().status, StatusCode::UNAUTHORIZED);
    assert_eq!(lasting.await.unwrap().status, StatusCode::NOT_FOUND, "the upstream's own answer");
}

/// The last thing that takes time is the audit: here it writes into a pipe that is full. Its line says
/// that the body was about to be handed out, and then the key goes.
#[tokio::test]
async fn an_answer_that_waits_for_the_audit_is_not_handed_to_a_key_that_has_gone() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let secrets = tempfile::tempdir().unwrap();
    let (pipe, mut full) = full_pipe(&secrets);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation];
        setup.config = format!("audit = {{ to = \"{}\", timeout = \"60s\" }}\n", pipe.display());
        with_ops_token(setup);
        setup.clients = rotating(&[(OLD, "")]);
    })
    .await;
    let under_way = tokio::spawn(got(world.request(Method::GET, &path, OLD)));
    // Stored before the answer is shown; on this one thread it has come to the audit some turns later.
    while world.metric("kore_gateway_cache_entries").await < 1.0 {}
    for _ in 0..20 {
        world.metric("kore_gateway_cache_entries").await;
    }
    change_config(&world, |written| written.replace(&rotating(&[(OLD, "")]), ""));
    assert_eq!(reload(&world).await.status, StatusCode::OK);

    let mut written = String::new();
    let mut some = [0; 65536];
    while !written.contains("\"client\":\"rotating\"") {
        if let Ok(read) = full.read(&mut some) {
            written.push_str(std::str::from_utf8(&some[..read]).unwrap());
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(under_way.await.unwrap().status, StatusCode::UNAUTHORIZED);
}

/// A pipe that takes no more, and its other end, which does not wait.
fn full_pipe(folder: &tempfile::TempDir) -> (PathBuf, File) {
    const O_NONBLOCK: i32 = 0o4000;
    let path = folder.path().join("audit");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut options = File::options();
    let mut end = options.read(true).write(true).custom_flags(O_NONBLOCK).open(&path).unwrap();
    while end.write(&[b' '; 4096]).is_ok() {}
    while end.write(b" ").is_ok() {}
    (path, end)
}

/// The key stays, but what it opens does not.
#[tokio::test]
async fn an_answer_under_way_is_handed_out_under_the_policy_of_then() {
    let (world, _) = world(rotating(&[(OLD, "")])).await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let under_way = tokio::spawn(got(world.request(Method::GET, &conversation_path("c-2"), OLD)));
    until("the call", || world.standin.count() == 1).await;
    let without = rotating(&[(OLD, "")]).replace("\"conversation\", ", "");
    change_config(&world, |written| written.replace(&rotating(&[(OLD, "")]), &without));
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    gate.open();
    assert_eq!(under_way.await.unwrap().status, StatusCode::FORBIDDEN);
}

/// The credential ends by itself while its answer is under way.
#[tokio::test]
async fn an_answer_under_way_is_not_handed_to_a_key_that_has_expired() {
    let (world, _) = world(rotating(&[(OLD, ", expires = 2026-03-02T13:00:00Z"), (NEW, "")])).await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let path = conversation_path("c-2");
    let under_way = tokio::spawn(got(world.request(Method::GET, &path, OLD)));
    let lasting = tokio::spawn(got(world.request(Method::GET, &path, NEW)));
    until("both are in", || world.app.metrics.http.active_requests.get() == 2).await;
    until("the call", || world.standin.count() == 1).await;
    world.advance(HOUR);
    gate.open();
    assert_eq!(under_way.await.unwrap().status, StatusCode::UNAUTHORIZED);
    assert_eq!(lasting.await.unwrap().status, StatusCode::NOT_FOUND, "the upstream's own answer");
}

/// The bot has come to be another account's, and the first account is not the client's any more: what
/// was asked for as the first is not his.
#[tokio::test]
async fn an_answer_under_way_is_not_handed_out_as_another_accounts() {
    let both = client("both", OLD).rate_limit("1000/min").toml().replace(
        &format!("accounts = [\"{EXAMPLE_ACCOUNT}\"]"),
        &format!("accounts = [\"{EXAMPLE_ACCOUNT}\", \"{OTHER_ACCOUNT}\"]"),
    );
    let (world, path) = world(both).await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let under_way = tokio::spawn(got(world.request(Method::GET, &path, OLD)));
    until("the call", || world.standin.count() == 1).await;
    change_config(&world, |written| {
        let moved = format!("bots = [\"{OTHER_STREAM}\", \"{EXAMPLE_STREAM}\"]");
        written.replace(&format!("accounts = [\"{EXAMPLE_ACCOUNT}\", "), "accounts = [").replacen(
            &format!("bots = [\"{OTHER_STREAM}\"]"),
            &moved,
            1,
        )
    });
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    gate.open();
    assert_eq!(under_way.await.unwrap().status, StatusCode::FORBIDDEN);
}

/// A million keys that nobody has, each from an address of its own: what is kept of them is bounded, and
/// whoever has a key gets his answer in between as before. The test asks for a process of its own: others of this one
/// take memory too.
#[tokio::test]
async fn a_million_random_keys_and_addresses_leave_memory_bounded_and_an_honest_caller_unaffected() {
    const ALONE: &str = "KEYS_TEST_HAS_ITS_OWN_PROCESS";
    if std::env::var_os(ALONE).is_none() {
        let mut own = tokio::process::Command::new(std::env::current_exe().unwrap());
        own.args(["--exact", "--nocapture"]).arg(
            "keys::a_million_random_keys_and_addresses_leave_memory_bounded_and_an_honest_caller_unaffected",
        );
        assert!(own.env(ALONE, "1").status().await.unwrap().success());
        return;
    }
    let (world, path) = world(rotating(&[(OLD, "")])).await;
    let snapshot = world.app.snapshot();
    let rate = snapshot.config.callers.unauthenticated;
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let mut random = key_digest(b"a seed");
    let mut full = 0;
    for n in 0..1_000_000 {
        random = key_digest(&random);
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", HeaderValue::from_str(&hex::encode(random)).unwrap());
        let clients = &snapshot.config.clients;
        let guess = presented(&headers, "").unwrap().as_key(clients, world.clock.now());
        assert!(guess.is_err());
        let address = match n % 2 {
            0 => IpAddr::from(*random.first_chunk::<4>().unwrap()),
            _ => IpAddr::from(*random.first_chunk::<16>().unwrap()),
        };
        let _ = world.app.unauthenticated.check(Caller::at(address), rate, world.app.clock.uptime());
        // From here on the table is full, and what is loaded on first use is loaded.
        if n == 200_000 {
            full = resident();
        }
        if n % 100_000 == 0 {
            assert_eq!(got(world.request(Method::GET, &path, OLD)).await.status, StatusCode::OK);
        }
    }
    let more = resident().saturating_sub(full);
    println!("800000 more keys and addresses: {more} bytes more");
    assert!(more < 32 << 20, "{more}");
    assert!(world.app.unauthenticated.callers() <= snapshot.config.callers.tracked);
    assert_eq!(got(world.request(Method::GET, &path, OLD)).await.status, StatusCode::OK);
    assert_eq!(world.standin.count(), 1);
}

/// Whatever it is called: a key in the URL or in the body would end up in the logs of others.
#[tokio::test]
async fn a_clients_key_anywhere_but_in_its_header_is_refused_without_being_repeated() {
    let (world, path) =
        world(rotating(&[(OLD, ", expires = 2026-03-02T11:00:00Z"), ("kg rotating/new~1", "")])).await;
    let details = |member: &str| format!(r#"{{"sessionId":"s-1",{member}}}"#);
    let queries = [
        ("key=kg_reporting", "key"),
        ("apikey[]=kg_reporting", "apikey[]"),
        ("access-token=%6bg_reporting", "access-token"),
        ("x=+kg_reporting%20", "x"),
        ("x=Bearer%20kg_reporting", "x"),
        ("x=kg+rotating/new~1", "x"),
        ("a=1&kg_reporting", "…"),
        ("limit=kg_reporting", "limit"),
        ("dateFrom=kg_reporting", "dateFrom"),
        ("conversationId=kg_reporting", "conversationId"),
        // Another client's, and one that has expired.
        ("x=kg_neighbour", "x"),
    ];
    for (query, parameter) in queries {
        refused(&world.get(&format!("{path}?{query}")).await, parameter, query);
    }
    let bodies = [
        (r#""key":"kg_reporting""#, "/key"),
        (r#""a/b":{"c":[1,{"d":"\u006bg_reporting"}]}"#, "/a~1b/c/1/d"),
        (r#""a":{"kg_reporting":1}"#, "/a/…"),
        (r#""callId":"kg_reporting""#, "/callId"),
        (r#""lang":"kg_neighbour","isSummaryRequired":true"#, "/lang"),
        (r#""skip":"kg_reporting""#, "/skip"),
        (r#""x":"Bearer kg_reporting","limit":0"#, "/x"),
    ];
    for (member, pointer) in bodies {
        refused(&world.post(&transcript_path(), details(member)).await, pointer, member);
        let query = world.post_request(&transcript_path(), details(member), REPORTING).build().unwrap();
        let query = world.http.request(Method::QUERY, query.url().clone()).headers(query.headers().clone());
        refused(&got(query.body(details(member))).await, pointer, member);
    }
    assert_eq!(world.standin.count(), 0);
    // Likes of it are passed on, and a stored answer is not held against keys again.
    for _ in 0..2 {
        assert_eq!(world.get(&format!("{path}?key=kg_reporting2&x=kg_")).await.status, StatusCode::OK);
    }
    assert_eq!(world.standin.count(), 1);
}

fn refused(answer: &Got, place: &str, sent: &str) {
    assert_eq!(
        (answer.status, answer.problem()),
        (StatusCode::BAD_REQUEST, "invalid-request".to_owned()),
        "{sent}"
    );
    assert_eq!(answer.fault_places(), [place], "{sent}: {:?}", answer.json());
    let told = String::from_utf8_lossy(&answer.body);
    for secret in ["kg_reporting", "kg_neighbour", "rotating/new"] {
        assert!(!told.contains(secret), "{told}");
    }
}

/// Also where the rest of the request is stored, and what holds the key is no part of the question.
#[tokio::test]
async fn a_clients_key_is_refused_on_a_hit_too_where_the_question_leaves_it_out() {
    let odd = ["kg+odd", "00000050", "123456789012345678901234567890"];
    let (world, path) = world(rotating(&odd.map(|key| (key, "")))).await;
    let session = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).session_id;
    let week = r#"{"startDate":"2026-02-27","endDate":"2026-03-02","timeZoneOffset":0}"#;
    let details = |more: &str| format!(r#"{{"sessionId":"{session}"{more}}}"#);
    assert_eq!(world.post(&window_path(), week).await.status, StatusCode::OK);
    for body in [details(""), details(r#","x":1.2345678901234567890123456789e29"#)] {
        assert_eq!(world.post(&transcript_path(), &body).await.status, StatusCode::OK);
        assert!(world.post(&transcript_path(), &body).await.is_hit(), "{body}");
    }
    for query in ["x=kg%20odd", "limit=50"] {
        assert_eq!(world.get(&format!("{path}?{query}")).await.status, StatusCode::OK);
        assert!(world.get(&format!("{path}?{query}")).await.is_hit(), "{query}");
    }
    let calls = world.standin.count();
    for (member, pointer) in [
        (r#","callId":"kg_reporting""#, "/callId"),
        (r#","callId":"c","lang":"kg_neighbour""#, "/lang"),
        (r#","isSummaryRequired":false,"lang":"Bearer kg_reporting""#, "/lang"),
        // A number is asked for in another spelling than it is sent in.
        (r#","x":123456789012345678901234567890"#, ""),
    ] {
        refused(&world.post(&transcript_path(), details(member)).await, pointer, member);
    }
    for (query, parameter) in [("x=kg+odd", "x"), ("limit=00000050", "limit")] {
        refused(&world.get(&format!("{path}?{query}")).await, parameter, query);
    }
    assert!(world.post(&transcript_path(), details(r#","callId":"c""#)).await.is_hit());
    assert_eq!(world.standin.count(), calls);
}

#[tokio::test]
async fn a_clients_key_of_any_length_is_found_and_one_of_digits_as_a_number_too() {
    let long = "k".repeat(700);
    let keys = ["kg", "1234567", &long, "12345678901234567890123"];
    let (world, path) = world(rotating(&keys.map(|key| (key, "")))).await;
    for query in ["x=kg".to_owned(), "x=1234567".to_owned(), format!("x={long}")] {
        refused(&world.get(&format!("{path}?{query}")).await, "x", &query);
    }
    let number = r#"{"sessionId":"s-1","x":[12345678901234567890123]}"#;
    for (body, pointer) in [
        (r#"{"sessionId":"s-1","x":"kg"}"#.to_owned(), "/x"),
        (r#"{"sessionId":"s-1","x":1234567}"#.to_owned(), "/x"),
        (format!(r#"{{"sessionId":"s-1","x":"{long}"}}"#), "/x"),
        (number.to_owned(), ""),
    ] {
        refused(&world.post(&transcript_path(), &body).await, pointer, &body);
    }
    assert_eq!(world.standin.count(), 0);
}
