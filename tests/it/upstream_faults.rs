//! Whatever the upstream does, a caller gets the promised status within the deadline, nothing wrong
//! is stored, hits go on, and two seconds after it is well again so are we. Each fault is tried cold
//! (over a new connection), warm (over one that has worked) and in the middle of a body, over http
//! and over https, for callers over HTTP/1 and over one connection of HTTP/2, in the clear and with
//! TLS, for a route that is a GET and for one that is a POST. What keeps connections from being made
//! at all is in upstream_lost.rs.

use std::time::Duration;

use futures_util::StreamExt;
use http::Method;
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault};

use crate::caller::{Begun, Caller, Version, begun, to_its_end};
use crate::process::{own_process, peak_memory};
use crate::tls::Trust;
use crate::tls_listener::{Authority, with_tls};
use crate::world::{DAY, Got, REPORTING, SECOND, World, before, conversation_path, transcript_path, until};

/// The gateway's deadline where it is to be met, and where it is not: no machine is as slow as that.
const SHORT: &str = "2s";
const LONG: &str = "60s";
/// When a test gives up on the gateway.
const HANG: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Cold,
    Warm,
    MidBody,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Http,
    Https,
}

/// What the upstream and the caller speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Speaking(Protocol, Version);

/// What the caller gets.
enum Expected {
    /// A problem of the gateway's own: status, kind, and a word of its `Proxy-Status`.
    Problem(u16, &'static str, &'static str),
    /// What the upstream said, unstored for this reason.
    Passed(u16, &'static str),
    /// An answer about somebody else. A transcript that does not say whose it is is passed on, unstored.
    Foreign,
    /// The right answer, late.
    Answer,
    /// More than is held, passed on until the time for that is up; then a connection that breaks.
    Cut,
}

use Expected::{Answer, Cut, Foreign, Passed, Problem};

struct Case {
    name: &'static str,
    /// Instead of an answer, or of its head.
    whole: Option<Fault>,
    /// After the head and a part of the body.
    mid_body: Option<Fault>,
    expected: Expected,
}

fn cases() -> Vec<Case> {
    let case = |name, whole, mid_body, expected| Case { name, whole, mid_body, expected };
    let invalid = |word| Problem(502, "upstream-invalid", word);
    let timeout = || Problem(504, "upstream-timeout", "http_response_timeout");
    let (cut, protocol) = ("http_response_incomplete", "http_protocol_error");
    vec![
        case("latency", Some(Fault::Latency(Duration::from_millis(100))), None, Answer),
        case("too much latency", Some(Fault::Latency(Duration::from_secs(3600))), None, timeout()),
        case("hang", Some(Fault::HangBeforeHead), Some(Fault::HangInBody), timeout()),
        case("reset", Some(Fault::Reset), Some(Fault::ResetInBody), invalid(cut)),
        case("cut body", None, Some(Fault::CutBody), invalid(cut)),
        case("cut body that looks whole", None, Some(Fault::CloseDelimitedCut), invalid(cut)),
        case("truncated JSON", None, Some(Fault::TruncatedJson), invalid(cut)),
        case("500", Some(Fault::Status(500)), None, Passed(500, "status")),
        case("502", Some(Fault::Status(502)), None, Passed(502, "status")),
        case("503", Some(Fault::Status(503)), None, Passed(503, "status")),
        case("504", Some(Fault::Status(504)), None, Passed(504, "status")),
        case("redirect", Some(Fault::Redirect("http://127.0.0.1:1/".to_owned())), None, invalid(protocol)),
        case("empty 200", Some(Fault::Empty200), None, invalid(cut)),
        case("HTML 200", Some(Fault::Html200), None, Passed(200, "unexpected-shape")),
        case("error under 200", Some(Fault::ErrorEnvelope200), None, Passed(200, "unexpected-shape")),
        case("somebody else's", Some(Fault::OtherConversation200), None, Foreign),
        case("two lengths", Some(Fault::LengthAndChunked), None, invalid(protocol)),
        case("two lengths in gzip", Some(Fault::LengthAndChunkedGzipped), None, invalid(protocol)),
        case("two lengths, one of them zero", Some(Fault::LengthAndChunkedEmpty), None, invalid(protocol)),
        case("endless body", None, Some(Fault::EndlessBody), Cut),
        case("gzip bomb", None, Some(Fault::GzipBomb), Cut),
    ]
}

async fn within_the_deadline(answer: impl Future<Output = Got>) -> Got {
    tokio::time::timeout(HANG, answer).await.expect("an answer within the deadline")
}

fn check(cell: &str, answer: &Got, expected: &Expected, ask: Ask) {
    match expected {
        Cut => {
            assert_eq!(answer.status, 200, "{cell}: {answer:?}");
            assert!(answer.cache_status().ends_with("stored=?0; detail=too-large"), "{cell}: {answer:?}");
        }
        Answer => assert_eq!(answer.status, 200, "{cell}: {answer:?}"),
        Foreign if ask == Ask::Transcript => {
            check(cell, answer, &Passed(200, "unproven-identity"), ask);
        }
        Foreign => check(cell, answer, &Problem(502, "upstream-invalid", "http_protocol_error"), ask),
        Passed(status, detail) => {
            assert_eq!(answer.status, *status, "{cell}: {answer:?}");
            let wanted = format!("stored=?0; detail={detail}");
            assert!(answer.cache_status().contains(&wanted), "{cell}: {}", answer.cache_status());
        }
        Problem(status, kind, word) => {
            assert_eq!((answer.status.as_u16(), &*answer.problem()), (*status, *kind), "{cell}: {answer:?}");
            let proxy_status = answer.header("proxy-status");
            assert!(proxy_status.ends_with(&format!("; error={word}")), "{cell}: {proxy_status:?}");
        }
    }
}

async fn entries(world: &World) -> f64 {
    world.metric("kore_gateway_cache_entries").await
}

/// Calls that are over, by the gateway's own count.
fn attempts(world: &World) -> usize {
    let metrics = world.app.metrics.open_metrics().unwrap();
    let series = metrics.lines().filter(|line| line.starts_with("kore_gateway_upstream_attempts_total{"));
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

/// What is asked for: each of a route of the upstream's, by GET and by POST, as both kinds go out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ask {
    Conversation,
    Transcript,
}

const ASKS: [Ask; 2] = [Ask::Conversation, Ask::Transcript];

impl Ask {
    async fn of(self, caller: &Caller, one: &Conversation) -> Begun {
        match self {
            Self::Conversation => caller.ask(Method::GET, &conversation_path(&one.conversation_id), "").await,
            Self::Transcript => {
                let body = format!(r#"{{"conversationId":"{}"}}"#, one.conversation_id);
                caller.ask(Method::POST, &transcript_path(), &body).await
            }
        }
    }
}

/// One fault, in one phase, over one protocol on either side, for one way to ask.
async fn cell(case: &Case, phase: Phase, speaking: Speaking, ask: Ask) {
    let fault = if phase == Phase::MidBody { &case.mid_body } else { &case.whole };
    let Some(fault) = fault else { return };
    let cell = format!("{}, {phase:?}, {speaking:?}, {ask:?}", case.name);
    let Speaking(protocol, version) = speaking;
    let conversations: Vec<_> =
        (0..2).map(|n| Conversation::closed_at(EXAMPLE_STREAM, n, before(DAY))).collect();
    let (hit, wanted) = (conversation_path(&conversations[0].conversation_id), conversations[1].clone());
    // Without a budget for repeats each call has a connection of its own. With one for every call, it
    // goes over the connection of the one before, and is tried three times at most.
    let budget = if phase == Phase::Cold { 0 } else { 100 };
    let authority = Authority::new();
    let deadline = if matches!(case.expected, Problem(504, ..)) { SHORT } else { LONG };
    let world = World::with(|setup| {
        setup.standin.conversations = conversations;
        setup.https = (protocol == Protocol::Https).then_some(Trust::Upstream);
        setup.config = format!(
            "cache.back_off = \"1s\"\nupstream.timeout = \"{deadline}\"\nupstream.connect_timeout = \"{deadline}\"\n\
             upstream.max_body = \"64KiB\"\nupstream.large_timeout = \"1s\"\n\
             upstream.retry = {{ budget = {budget}, first_wait = \"1ms\", longest_wait = \"2ms\" }}\n"
        );
        if version == Version::Http2OverTls {
            with_tls(setup, &authority.issue(), "");
        }
    })
    .await;
    let caller = Caller::of(&world, version, &authority).await;
    assert_eq!(caller.get(&hit).await.status, 200, "{cell}");
    let (before, calls) = (entries(&world).await, world.standin.count());

    world.standin.fault(Some(fault.clone()));
    let asked = {
        let (caller, wanted) = (caller.clone(), wanted.clone());
        tokio::spawn(async move { to_its_end(ask.of(&caller, &wanted).await).await })
    };
    for _ in 0..10 {
        assert!(caller.get(&hit).await.is_hit(), "{cell}: a hit");
    }
    let ended = async { asked.await.unwrap() };
    let (answer, is_whole) = tokio::time::timeout(HANG, ended).await.expect("an end within the deadline");
    check(&cell, &answer, &case.expected, ask);
    assert_eq!(is_whole, !matches!(case.expected, Cut), "{cell}");
    let is_stored = matches!(case.expected, Answer) && ask == Ask::Conversation;
    assert_eq!(entries(&world).await, before + f64::from(u8::from(is_stored)), "{cell}: stored");
    let most = if phase == Phase::Cold { 1 } else { 3 };
    let made = world.standin.calls().split_off(calls);
    assert!((1..=most).contains(&made.len()), "{cell}: {} calls", made.len());
    assert_eq!(made[0].reused, phase != Phase::Cold, "{cell}: its connection");

    // The call may end a moment after its caller, whose deadline is the same; healing comes after.
    until("the call is over", || attempts(&world) == world.standin.count()).await;
    // Of HTTP/2 a stream has ended, if anything: the connection goes on.
    assert!(caller.get(&hit).await.is_hit(), "{cell}: a hit");
    world.standin.clear_faults();
    world.advance(SECOND * 2);
    let healed = async { to_its_end(ask.of(&caller, &wanted).await).await.0 };
    let healed = within_the_deadline(healed).await;
    assert_eq!(healed.status, 200, "{cell}: two seconds after healing: {healed:?}");
    assert!(caller.get(&hit).await.is_hit(), "{cell}: a hit");
    world.assert_no_violations();
}

async fn matrix(protocol: Protocol, version: Version) {
    let speaking = Speaking(protocol, version);
    let (cases, mut cells) = (cases(), Vec::new());
    for case in &cases {
        for phase in [Phase::Cold, Phase::Warm, Phase::MidBody] {
            let fault = if phase == Phase::MidBody { &case.mid_body } else { &case.whole };
            cells.extend(fault.iter().flat_map(|_| ASKS.map(|ask| (case, phase, ask))));
        }
    }
    println!("{speaking:?}: {} cells", cells.len());
    // Most of the time they wait for deadlines.
    futures_util::stream::iter(cells)
        .for_each_concurrent(8, |(case, phase, ask)| cell(case, phase, speaking, ask))
        .await;
}

#[tokio::test]
async fn every_fault_over_http_gets_its_status_and_leaves_nothing_behind() {
    matrix(Protocol::Http, Version::Http1).await;
}

#[tokio::test]
async fn every_fault_over_https_gets_its_status_and_leaves_nothing_behind() {
    matrix(Protocol::Https, Version::Http1).await;
}

#[tokio::test]
async fn every_fault_over_http_costs_a_caller_over_http2_one_stream_at_most() {
    matrix(Protocol::Http, Version::Http2).await;
}

#[tokio::test]
async fn every_fault_over_https_costs_a_caller_over_http2_one_stream_at_most() {
    matrix(Protocol::Https, Version::Http2).await;
}

#[tokio::test]
async fn every_fault_over_https_costs_a_caller_over_http2_and_tls_one_stream_at_most() {
    matrix(Protocol::Https, Version::Http2OverTls).await;
}

#[tokio::test]
async fn the_connection_of_an_answer_with_two_lengths_is_not_used_again() {
    for fault in [Fault::LengthAndChunked, Fault::LengthAndChunkedGzipped, Fault::LengthAndChunkedEmpty] {
        // Without a budget for repeats no connection would be kept.
        let retry = r#"upstream.retry = { budget = 100, first_wait = "1ms", longest_wait = "2ms" }"#;
        let world = World::with(|setup| setup.config = retry.to_owned()).await;
        let ask = async |n: u32| world.get(&conversation_path(&format!("c-{n}"))).await;
        assert_eq!(ask(0).await.status, 404);
        world.standin.fault(Some(fault.clone()));
        assert_eq!(ask(1).await.problem(), "upstream-invalid", "{fault:?}");
        world.standin.clear_faults();
        assert_eq!(ask(2).await.status, 404, "{fault:?}");
        assert_eq!(ask(3).await.status, 404, "{fault:?}");
        let reused: Vec<_> = world.standin.calls().iter().map(|call| call.reused).collect();
        let [false, true, repeats @ .., false, true] = &*reused else { panic!("{fault:?}: {reused:?}") };
        assert!(repeats.iter().all(|reused| !reused), "{fault:?}: {reused:?}");
    }
}

/// In a process of the gateway's own, for it is the process's memory that is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_in_a_megabyte_costs_no_more_memory_than_the_cap_allows() {
    let world = World::new().await;
    let (gateway, url) =
        own_process(&world, &[("UPSTREAM__MAX_BODY", "8MiB"), ("UPSTREAM__LARGE_TIMEOUT", "3s")]).await;
    let ask = async |n: u32| {
        let url = format!("{url}{}", conversation_path(&format!("c-{n}")));
        let answer = world.http.get(url).header("x-api-key", REPORTING).send().await.unwrap();
        to_its_end(begun(answer.into())).await.0
    };
    assert_eq!(ask(0).await.status, 404);
    let before = peak_memory(gateway.id().unwrap());
    world.standin.fault(Some(Fault::GzipBomb));
    for n in 1..4 {
        let answer = ask(n).await;
        check("bomb", &answer, &Cut, Ask::Conversation);
    }
    let grown = peak_memory(gateway.id().unwrap()) - before;
    println!("grown by {grown} KiB, the cap is 8192 KiB, the body 1048512 KiB");
    // The parts, put together once; and what a process takes on its first errors. Far from a gigabyte.
    assert!(grown < 6 * 8 * 1024, "{grown} KiB");
}
