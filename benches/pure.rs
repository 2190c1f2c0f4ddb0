//! What the decisions of a request cost, each alone: `cargo bench --bench pure`.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use kore_gateway::access::identify::presented;
use kore_gateway::access::permit::permit;
use kore_gateway::access::redact::Projection;
use kore_gateway::clock::UnixMillis;
use kore_gateway::config::{self, Config, Layer, Sources};
use kore_gateway::lifecycle::phase::{Phase, Summary};
use kore_gateway::routes::{self, Found, Ids, Key, Route};

const CONFIG: &str = r#"
[[accounts]]
id = "65269fe0dd9c622245c1aaaa"
contact_center_url = "https://platform.kore.ai"
automation_url = "https://platform.kore.ai"
bots = ["*"]
[[accounts.credentials]]
client_id = "cs-1"
client_secret = { file = "SECRET" }
scopes = ["analytics", "chat_history"]
[redaction.all]
remove = ["/userInfo/ipAddress", "/data/*/customerinfo"]
mask = ["/phoneNumber"]
[redaction.text]
kinds = ["email", "phone", "ip", "card"]
"#;
const CONVERSATION: &str = "/agentassist/api/v1/public/st-24ccdea9-de4e-5139-923f-883c53ffaaaa/conversations/c-47a3d30-e522-4c53-9e03-f0efd16e7c73";
const WINDOW: &str = "/agentassist/api/public/analytics/account/65269fe0dd9c622245c1aaaa/v2/interactionDetails?limit=100&offset=0";
const WINDOW_BODY: &[u8] = br#"{"startDate":"2026-02-16 00:00:00","endDate":"2026-02-22 00:00:00","timeZoneOffset":-330,"channels":["voice","chat"]}"#;
const TRANSCRIPT: &str = "/api/public/bot/st-24ccdea9-de4e-5139-923f-883c53ffaaaa/conversationDetails";
const TRANSCRIPT_BODY: &[u8] = br#"{"sessionId":"c1ff4062bab6678857b03e6c","skip":0,"limit":100}"#;

/// A client with a key of its own, `bench-key-N`, for each number.
fn configuration(clients: usize) -> Config {
    let mut text = CONFIG.to_owned();
    for n in 0..clients {
        let digest =
            hex::encode(kore_gateway::access::identify::key_digest(format!("bench-key-{n}").as_bytes()));
        text.push_str(&format!(
            "[[clients]]\nname = \"c-{n}\"\napi_key_sha256 = \"{digest}\"\n\
             accounts = [\"65269fe0dd9c622245c1aaaa\"]\nbots = [\"*\"]\n\
             routes = [\"conversation\", \"interaction_details\"]\nredact = [\"all\", \"text\"]\n"
        ));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "0123456789abcdef0123456789abcdef").unwrap();
    let text = text.replace("SECRET", &file.path().display().to_string());
    let sources = Sources { layers: vec![Layer::Text(text)], environment: Vec::new() };
    config::load(&sources).unwrap_or_else(|faults| panic!("{faults:?}")).1
}

fn found(method: &Method, target: &'static str) -> (&'static Route, Ids) {
    match routes::find(method, &PathAndQuery::from_static(target)) {
        Found::Route(route, ids) => (route, ids),
        _ => panic!("{target}"),
    }
}

fn routing(c: &mut Criterion) {
    let target = PathAndQuery::from_static(CONVERSATION);
    c.bench_function("route", |b| b.iter(|| routes::find(black_box(&Method::GET), black_box(&target))));
}

/// Validation, which spells query and body in canonical form, and the key that is made of it: of a path, and
/// of two bodies.
fn validation(c: &mut Criterion) {
    let limits = configuration(1).limits;
    let account = "65269fe0dd9c622245c1aaaa";
    for (name, method, target, body) in [
        ("conversation", Method::GET, CONVERSATION, None),
        ("window", Method::POST, WINDOW, Some(WINDOW_BODY)),
        ("transcript", Method::POST, TRANSCRIPT, Some(TRANSCRIPT_BODY)),
    ] {
        let (route, ids) = found(&method, target);
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let request = routes::Request { ids: &ids, query, body, limits };
        c.bench_function(&format!("validate/{name}"), |b| {
            b.iter(|| (route.parse)(black_box(&request)).unwrap());
        });
        let canonical = (route.parse)(&request).unwrap();
        c.bench_function(&format!("key/{name}"), |b| {
            b.iter(|| Key::new(account, route, &ids, black_box(&canonical)));
        });
    }
}

/// What an answer says, and how long it may be kept.
fn freshness(c: &mut Criterion) {
    let config = configuration(1);
    let rule = *config.cache.rule(found(&Method::GET, CONVERSATION).0);
    let over = Phase::Closed { since: UnixMillis(1_000_000) };
    let now = UnixMillis(9_000_000);
    c.bench_function("freshness", |b| {
        b.iter(|| rule.lifetime(black_box(over), Summary::NotAsked, black_box(now)));
    });
}

fn policy(c: &mut Criterion) {
    let (route, ids) = found(&Method::GET, CONVERSATION);
    for clients in [1, 1000] {
        let config = configuration(clients);
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer bench-key-0"));
        c.bench_function(&format!("policy/{clients}"), |b| {
            b.iter(|| {
                let presented = presented(black_box(&headers), "").unwrap();
                let (_, client) = presented.as_key(&config.clients, UnixMillis(0)).unwrap();
                permit(&client, route, &ids, &config).unwrap()
            });
        });
    }
}

/// A transcript as people write them, of about a megabyte: sentences, some with what is looked for.
fn transcript() -> Vec<u8> {
    const TEXTS: [&str; 8] = [
        "Hi, I ordered two pairs of shoes last Tuesday and only one has come. Can you look into it?",
        "Of course. Could you tell me the order number, please? It begins with K and has 8 digits.",
        "It is K-20481133. You can call me back at +1 (555) 059-9716, or write to asha.rao@mail.example.com.",
        "Thank you, Asha. I see that the second parcel left our warehouse on 2026-02-16 at 12:30.",
        "My card ends in 4242, the bill says 4111 1111 1111 1111, and the amount was 119.90 EUR.",
        "مرحبا، أريد تغيير عنوان التسليم من فضلك",
        "Entschuldigung, können Sie mir das bitte noch einmal schicken? Größe 43, in Grün.",
        "Is there anything else that I can do for you today? You will get an e-mail within 24 hours.",
    ];
    let mut text = String::from(r#"{"conversationInfo":{"sessionId":"5f9c"},"conversationHistory":["#);
    for n in 0.. {
        text.push_str(&format!(
            r#"{{"_id":"ms-{n:08}-85ab-5ea5","type":"incoming","createdOn":"2026-02-16T12:{:02}:10.337Z","components":[{{"_id":"mc-{n:08}","cT":"text","data":{{"text":"{}"}}}}],"lang":"en"}}"#,
            n % 60,
            TEXTS[n % TEXTS.len()]
        ));
        if text.len() > 1 << 20 {
            break;
        }
        text.push(',');
    }
    text.push_str("]}");
    text.into_bytes()
}

/// A message of so many bytes that somebody typed to keep the gateway busy.
fn hostile(piece: &str) -> Vec<u8> {
    let text = piece.repeat((1 << 20) / piece.len());
    format!(r#"{{"conversationHistory":[{{"components":[{{"data":{{"text":"{text}"}}}}]}}]}}"#).into_bytes()
}

/// By the kilobyte, with pointers and with kinds.
fn redaction(c: &mut Criterion) {
    let config = configuration(1);
    let client = config.clients.iter().next().unwrap();
    let body = include_bytes!("../tests/samples/conversation_details.response.json");
    let mut group = c.benchmark_group("redact");
    group.throughput(Throughput::Bytes(body.len() as u64)).measurement_time(Duration::from_secs(3));
    for redaction in &client.redact {
        let projection = Projection::new(std::iter::once(redaction.as_ref()), None).unwrap();
        group.bench_function(&*redaction.name, |b| {
            b.iter(|| projection.apply(black_box(body), true).unwrap());
        });
    }
    group.finish();

    let together = Projection::new(client.redact.iter().map(AsRef::as_ref), None).unwrap();
    let mut group = c.benchmark_group("redaction");
    group.measurement_time(Duration::from_secs(3)).sample_size(20);
    let bodies = [
        ("ordinary", transcript()),
        ("percent", hostile("%40")),
        ("at", hostile("@")),
        ("digits", hostile("1 ")),
        ("addresses", hostile("1.")),
        ("phones", hostile("+1 555 059 9716 ")),
        ("escaped", hostile("\\u0040")),
    ];
    for (name, body) in bodies {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| b.iter(|| together.apply(black_box(&body), true).unwrap()));
    }
    group.finish();
}

criterion_group!(benches, routing, validation, freshness, policy, redaction);
criterion_main!(benches);
