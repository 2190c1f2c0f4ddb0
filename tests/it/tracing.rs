//! What a collector is told of requests, which trace they belong to, and that nobody waits for it.
//!
//! Off by default. Which requests are recorded is the gateway's own decision: no caller can force it.

use std::time::Duration;

use http::Method;
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault, Gate, example_secret};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};

use crate::collector::{Collector, Mood, attributes};
use crate::process::Process;
use crate::tls::{Front, Trust};
use crate::world::{
    DAY, Got, MINUTE, REPORTING, SECOND, Setup, World, before, conversation_path, got, transcript_path,
    until, with_ops_token,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const ROUTE: &str = "/agentassist/api/v1/public/{streamId}/conversations/{conversationId}";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

async fn world_with(config: &str, change: impl FnOnce(&mut Setup)) -> World {
    World::with(|setup| {
        setup.standin.conversations = vec![Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY))];
        setup.config = config.to_owned();
        change(setup);
    })
    .await
}

fn path() -> String {
    conversation_path(&Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).conversation_id)
}

/// As a caller that traces.
async fn ask(world: &World, flags: &str) -> Got {
    got(world.request(Method::GET, &path(), REPORTING).header("traceparent", traceparent(flags))).await
}

/// How long spans gather, on the world's clock, before they are sent. Nobody else sleeps for so long in these tests.
const BATCH_DELAY: Duration = SECOND;

/// Has spans that gather sent.
fn send_what_has_gathered(world: &World) {
    if world.clock.asleep_for(BATCH_DELAY) > 0 {
        world.advance(BATCH_DELAY);
    }
}

/// The collector's spans, once there are so many of them.
async fn spans(world: &World, collector: &Collector, count: usize) -> Vec<Span> {
    until("the spans come", || {
        send_what_has_gathered(world);
        collector.spans().len() >= count
    })
    .await;
    let spans = collector.spans();
    assert_eq!(spans.len(), count, "{spans:#?}");
    spans
}

/// All spans that the collector is ever sent: none gather any more.
async fn all_spans(world: &World, collector: &Collector) -> Vec<Span> {
    world.app.snapshot().tracer.as_ref().unwrap().finish().await;
    collector.spans()
}

async fn dropped(world: &World) -> f64 {
    world.metric(r#"kore_gateway_trace_spans_total{result="dropped"}"#).await
}

async fn until_dropped(world: &World, count: f64) {
    let are_dropped = async {
        while dropped(world).await < count {
            send_what_has_gathered(world);
        }
    };
    tokio::time::timeout(MINUTE, are_dropped).await.expect("they are dropped");
}

fn hex(id: &[u8]) -> String {
    hex::encode(id)
}

#[tokio::test]
async fn by_default_nothing_is_told_to_anybody() {
    let world = world_with("", |_| {}).await;
    assert_eq!(ask(&world, "01").await.status, 200);
    assert_eq!(world.standin.calls()[0].header("traceparent"), None);
    let scrape = String::from_utf8(world.ops("/metrics").await.body.to_vec()).unwrap();
    let spans = scrape.lines().filter(|line| line.starts_with("kore_gateway_trace_spans_total{"));
    assert!(spans.inspect(|line| assert!(line.ends_with(" 0"), "{line}")).count() == 2, "{scrape}");
}

#[tokio::test]
async fn a_request_and_its_call_are_a_span_each_below_the_callers() {
    let collector = Collector::start().await;
    let world = world_with(&collector.config(1.0), |_| {}).await;
    assert_eq!(ask(&world, "00").await.status, 200);
    let spans = spans(&world, &collector, 2).await;
    let (call, request) = (&spans[0], &spans[1]);

    assert_eq!((request.kind(), call.kind()), (SpanKind::Server, SpanKind::Client));
    assert_eq!((hex(&request.trace_id), hex(&call.trace_id)), (TRACE.to_owned(), TRACE.to_owned()));
    assert_eq!(hex(&request.parent_span_id), CALLER);
    assert_eq!(call.parent_span_id, request.span_id);
    assert!(request.start_time_unix_nano <= call.start_time_unix_nano);
    assert!(call.start_time_unix_nano <= call.end_time_unix_nano);
    assert!(call.end_time_unix_nano <= request.end_time_unix_nano);

    assert_eq!(request.name, format!("GET {ROUTE}"));
    let said = attributes(request);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", ROUTE),
        ("http.response.status_code", "200"),
        ("url.scheme", "http"),
        ("network.protocol.version", "1.1"),
        ("kore_gateway.client", "reporting"),
        ("kore_gateway.cache.outcome", "miss"),
    ] {
        assert_eq!(said.get(name).map(String::as_str), Some(value), "{name} in {said:?}");
    }
    assert_eq!(said.len(), 7, "{said:?}");

    assert_eq!(call.name, format!("GET {ROUTE}"));
    let said = attributes(call);
    let port = world.standin.address().port().to_string();
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.template", ROUTE),
        ("server.address", "127.0.0.1"),
        ("server.port", port.as_str()),
        ("kore_gateway.upstream.result", "answered"),
    ] {
        assert_eq!(said.get(name).map(String::as_str), Some(value), "{name} in {said:?}");
    }
    assert_eq!(said.len(), 6, "{said:?}");

    let sent = format!("00-{TRACE}-{}-01", hex(&call.span_id));
    assert_eq!(world.standin.calls()[0].header("traceparent"), Some(sent.as_str()));
    world.assert_no_violations();
    let resource = collector.resource();
    assert_eq!(resource.get("service.name").map(String::as_str), Some("kore-gateway"));
    assert_eq!(resource.get("service.version").map(String::as_str), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(world.metric(r#"kore_gateway_trace_spans_total{result="exported"}"#).await, 2.0);
}

#[tokio::test]
async fn a_hit_is_one_span_and_begins_a_trace_where_its_caller_has_none() {
    let collector = Collector::start().await;
    let world = world_with(&collector.config(1.0), |_| {}).await;
    world.get(&path()).await;
    world.get(&path()).await;
    let spans = spans(&world, &collector, 3).await;
    let hit = &spans[2];
    assert_eq!(attributes(hit).get("kore_gateway.cache.outcome").map(String::as_str), Some("hit"));
    assert!(hit.parent_span_id.is_empty());
    assert_ne!(hit.trace_id, spans[1].trace_id);
    assert_eq!(spans[0].trace_id, spans[1].trace_id);
}

#[tokio::test]
async fn each_attempt_is_a_span_and_failures_say_what_they_are() {
    let collector = Collector::start().await;
    let config = collector.config(1.0)
        + "upstream.retry = { budget = 100, first_wait = \"1ms\", longest_wait = \"2ms\" }\n";
    let world = world_with(&config, |_| {}).await;
    world.standin.fault_next(1, Fault::Status(503));
    assert_eq!(world.get(&path()).await.status, 200);
    let spans = spans(&world, &collector, 3).await;
    let (first, second, request) = (&spans[0], &spans[1], &spans[2]);
    assert_eq!((&first.parent_span_id, &second.parent_span_id), (&request.span_id, &request.span_id));
    let error = |span: &Span| attributes(span).get("error.type").cloned();
    assert_eq!((error(first).as_deref(), error(second), error(request)), (Some("503"), None, None));
    assert_eq!(first.status.as_ref().unwrap().code(), StatusCode::Error);
    let resent = |span: &Span| attributes(span).get("http.request.resend_count").cloned();
    assert_eq!((resent(first), resent(second).as_deref()), (None, Some("1")));
}

#[tokio::test]
async fn what_fails_by_the_gateways_own_word_says_so_and_a_refusal_is_no_failure() {
    let collector = Collector::start().await;
    let world = World::with(|setup| {
        setup.config = collector.config(1.0);
        setup.upstream = Some("http://127.0.0.1:9".to_owned());
    })
    .await;
    assert_eq!(world.get(&path()).await.status, 502);
    assert_eq!(got(world.request(Method::GET, &path(), "kg_nobody")).await.status, 401);
    assert_eq!(got(world.request("BREW".parse().unwrap(), "/pot", REPORTING)).await.status, 404);
    let spans = spans(&world, &collector, 4).await;
    let error = |span: &Span| attributes(span).get("error.type").cloned();
    assert_eq!(error(&spans[0]).as_deref(), Some("upstream-unreachable"));
    assert_eq!(error(&spans[1]).as_deref(), Some("upstream-unreachable"));
    assert_eq!((error(&spans[2]), error(&spans[3])), (None, None));
    assert_eq!(spans[3].name, "HTTP");
    assert_eq!(attributes(&spans[3]).get("http.request.method").map(String::as_str), Some("_OTHER"));
}

#[tokio::test]
async fn a_callers_flag_forces_nothing_and_its_trace_goes_on_all_the_same() {
    let collector = Collector::start().await;
    let world = world_with(&collector.config(0.0), |_| {}).await;
    for flags in ["01", "00"] {
        assert_eq!(ask(&world, flags).await.status, 200);
    }
    let sent = world.standin.calls()[0].header("traceparent").unwrap().to_owned();
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"), "{sent}");
    assert!(!sent.contains(CALLER), "{sent}");
    assert_eq!(all_spans(&world, &collector).await, []);
    assert_eq!(collector.count(), 0);
}

#[tokio::test]
async fn where_callers_are_followed_their_flag_decides() {
    for (ratio, flags, recorded) in [(0.0, "01", 2), (1.0, "00", 0)] {
        let collector = Collector::start().await;
        let config = collector.config(ratio) + "tracing.follow_callers = true\n";
        let world = world_with(&config, |_| {}).await;
        ask(&world, flags).await;
        assert_eq!(spans(&world, &collector, recorded).await.len(), recorded);
        // Without a flag it is the ratio's to say.
        world.get(&path()).await;
        let more = if ratio > 0.0 { 1 } else { 0 };
        spans(&world, &collector, recorded + more).await;
    }
}

#[tokio::test]
async fn of_many_requests_about_the_ratio_is_recorded() {
    let collector = Collector::start().await;
    let config = collector.config(0.25) + "tracing.queue = 10000\n";
    let world = world_with(&config, |_| {}).await;
    for _ in 0..1000 {
        // The same trace each time: it is not by its id that some are chosen.
        ask(&world, "01").await;
    }
    let count = all_spans(&world, &collector).await.len();
    // Seven standard deviations to each side.
    assert!((150..350).contains(&count), "{count}");
}

#[tokio::test]
async fn no_span_says_who_was_asked_about_or_by_what_key() {
    let collector = Collector::start().await;
    let world = world_with(&collector.config(1.0), |_| {}).await;
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let query = format!("{}?canary_name=canary-value", path());
    got(world.request(Method::GET, &query, REPORTING).header("tracestate", "canary=state")).await;
    got(world.request(Method::GET, "/canary-path", REPORTING).header("user-agent", "canary-agent")).await;
    world.post(&transcript_path(), r#"{"sessionId":"canary-session"}"#).await;
    world.post(&transcript_path(), r#"{"canary-member":1}"#).await;
    spans(&world, &collector, 6).await;
    let told = String::from_utf8_lossy(&collector.bodies()).into_owned();
    for secret in [
        "canary",
        REPORTING,
        EXAMPLE_ACCOUNT,
        EXAMPLE_STREAM,
        &conversation.conversation_id,
        example_secret(),
    ] {
        assert!(!told.contains(secret), "{secret}");
    }
    assert!(world.standin.calls().iter().all(|call| call.header("tracestate").is_none()));
}

#[tokio::test]
async fn a_collector_that_is_away_or_refuses_costs_nobody_anything_but_spans() {
    let collector = Collector::start().await;
    collector.is(Mood::Refuses);
    let soon = "tracing.timeout = \"200ms\"\n";
    let world = world_with(&(collector.config(1.0) + soon), |_| {}).await;
    assert_eq!(ask(&world, "00").await.status, 200);
    until_dropped(&world, 2.0).await;
    // It comes to its senses.
    collector.is(Mood::Takes);
    assert_eq!(ask(&world, "00").await.status, 200);
    spans(&world, &collector, 1).await;

    let away = world_with("tracing.endpoint = \"http://127.0.0.1:9\"\ntracing.ratio = 1.0\n", |_| {}).await;
    assert_eq!(ask(&away, "00").await.status, 200);
    until_dropped(&away, 2.0).await;
}

#[tokio::test]
async fn a_collector_behind_https_is_told_if_its_certificate_is_one_to_trust() {
    let collector = Collector::start().await;
    let front = Front::before(collector.address).await;
    for (trust, told) in [(Trust::SomebodyElse, false), (Trust::Upstream, true)] {
        let world = world_with("", |setup| {
            let ca = setup.secrets.path().join("collector.pem");
            std::fs::write(&ca, front.certificate(trust)).unwrap();
            let url = front.url();
            setup.config = format!(
                "tracing = {{ endpoint = \"{url}\", ratio = 1, timeout = \"1s\", ca_file = {ca:?} }}\n"
            );
        })
        .await;
        ask(&world, "00").await;
        if told {
            spans(&world, &collector, 2).await;
        } else {
            until_dropped(&world, 2.0).await;
        }
    }
}

/// There is no answer to tell of, but there was a request.
#[tokio::test]
async fn a_caller_who_leaves_is_told_of_too() {
    let collector = Collector::start().await;
    let world = world_with(&collector.config(1.0), |_| {}).await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    // Over HTTP/2, which has a word for it. Over HTTP/1 he may have closed his half only.
    let stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("http://{}{}", world.address, path());
    let asked = http::Request::get(uri).header("x-api-key", REPORTING).body(()).unwrap();
    let asking = sender.send_request(asked, true).unwrap();
    until("it is under way", || world.standin.count() == 1).await;
    drop(asking);
    let told = spans(&world, &collector, 1).await;
    let said = attributes(&told[0]);
    assert_eq!(said.get("error.type").map(String::as_str), Some("unanswered"), "{said:?}");
    assert_eq!(said.get("http.response.status_code"), None);
    // The call goes on for whoever asks next.
    gate.open();
    let call = &spans(&world, &collector, 2).await[1];
    assert_eq!(call.parent_span_id, told[0].span_id);
}

#[tokio::test]
async fn what_waits_for_a_collector_that_hangs_is_bounded_and_given_up_in_time() {
    let collector = Collector::start().await;
    collector.is(Mood::Hangs);
    let config = collector.config(1.0) + "tracing.queue = 4\ntracing.timeout = \"60s\"\n";
    let world = world_with(&config, |_| {}).await;
    ask(&world, "00").await;
    until("the first are sent", || {
        send_what_has_gathered(&world);
        collector.count() > 0
    })
    .await;
    assert_eq!(dropped(&world).await, 0.0);
    // It has the first ones, and four more wait.
    for n in 1..=10 {
        assert_eq!(ask(&world, "00").await.status, 200);
        assert_eq!(dropped(&world).await, f64::from((n - 4).max(0)), "{n}");
    }
    collector.is(Mood::Takes);
    spans(&world, &collector, 4).await;

    let collector = Collector::start().await;
    collector.is(Mood::Hangs);
    let config = collector.config(1.0) + "tracing.timeout = \"50ms\"\n";
    let world = world_with(&config, |_| {}).await;
    ask(&world, "00").await;
    until_dropped(&world, 2.0).await;
}

#[tokio::test]
async fn a_line_of_the_access_log_says_which_trace_it_is_of() {
    let collector = Collector::start().await;
    for (format, config, sends, is_there) in [
        ("json", collector.config(0.0), true, true),
        ("json", collector.config(0.0), false, true),
        ("text", collector.config(1.0), true, true),
        ("json", String::new(), true, true),
        ("json", String::new(), false, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.log");
        let log = format!("log = {{ access = true, format = {format:?}, access_to = {file:?} }}\n");
        let world = world_with(&(config + &log), |_| {}).await;
        if sends {
            ask(&world, "01").await
        } else {
            world.get(&path()).await
        };
        assert!(world.app.snapshot().access_log.flush(MINUTE));
        let line = std::fs::read_to_string(&file).unwrap();
        assert_eq!(line.contains("trace_id"), is_there, "{line}");
        assert_eq!(line.contains(TRACE), sends, "{line}");
        if format == "json" && is_there {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
        }
    }
}

#[tokio::test]
async fn buckets_name_a_recorded_trace_and_no_other() {
    let collector = Collector::start().await;
    for (ratio, is_there) in [(1.0, true), (0.0, false)] {
        let world = world_with(&collector.config(ratio), |_| {}).await;
        ask(&world, "01").await;
        ask(&world, "01").await;
        let url = format!("http://{}/metrics", world.ops);
        let open = got(world.http.get(url).header("accept", "application/openmetrics-text")).await;
        let open = String::from_utf8(open.body.to_vec()).unwrap();
        let named = |line: &&str| {
            line.starts_with("http_server_request_duration_seconds_bucket{")
                && line.contains(&format!(" # {{trace_id=\"{TRACE}\"}} "))
        };
        assert_eq!(open.lines().any(|line| named(&line)), is_there, "{open}");
        // Who cannot read exemplars gets none.
        let plain = String::from_utf8(world.ops("/metrics").await.body.to_vec()).unwrap();
        assert!(!plain.contains("trace_id"), "{plain}");
    }
}

/// A reload changes it, and what was gathered under the old one goes where it was to go.
#[tokio::test]
async fn tracing_comes_and_goes_by_reload() {
    let (first, second) = (Collector::start().await, Collector::start().await);
    let world = world_with("", with_ops_token).await;
    let lead_to = async |collector: Option<&Collector>| {
        crate::world::change_config(&world, |written| {
            let before = written.split("[tracing]").next().unwrap().to_owned();
            let to = collector.map_or("\"off\"".to_owned(), |to| format!("\"http://{}\"", to.address));
            format!("{before}[tracing]\nendpoint = {to}\nratio = 1\n")
        });
        assert_eq!(crate::world::reload(&world).await.status, 200);
    };
    ask(&world, "01").await;
    lead_to(Some(&first)).await;
    ask(&world, "01").await;
    lead_to(Some(&second)).await;
    ask(&world, "01").await;
    lead_to(None).await;
    ask(&world, "01").await;
    spans(&world, &first, 1).await;
    spans(&world, &second, 1).await;
}

/// What is left goes out when the process ends; and it ends, also if nobody takes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_spans_go_out_before_the_process_ends_and_do_not_hold_it() {
    for mood in [Mood::Takes, Mood::Hangs] {
        let collector = Collector::start().await;
        collector.is(mood);
        let endpoint = format!("http://{}", collector.address);
        let running = tokio::task::spawn_blocking(move || {
            Process::start_with_environment(
                "OTEL_EXPORTER_OTLP_HEADERS=x-key=collectors-key",
                &[("TRACING__ENDPOINT", &endpoint), ("TRACING__RATIO", "1.0"), ("TRACING__TIMEOUT", "2s")],
            )
        });
        let running = running.await.unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        // No connection is left that the drain would wait for: the span is a moment old when it ends.
        let request = http.get(format!("http://{}/nowhere", running.address)).header("connection", "close");
        assert_eq!(got(request).await.status, 404);
        tokio::task::spawn_blocking(|| running.drain()).await.unwrap();
        assert_eq!(collector.count(), 1, "{mood:?}");
        assert_eq!(collector.headers()[0]["x-key"], "collectors-key");
        assert_eq!(collector.spans().len(), usize::from(mood == Mood::Takes));
    }
}
