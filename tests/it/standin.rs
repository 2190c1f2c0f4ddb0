//! The stand-in is the other party of every other test: what it does and refuses is fixed here.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use kore_gateway::standin::{
    Account, App, Clock, Conversation, DemoIds, EXAMPLE_ACCOUNT, EXAMPLE_CLIENT_ID, EXAMPLE_STREAM, Fault,
    NumResults, OTHER_ACCOUNT, OTHER_CLIENT_ID, OTHER_STREAM, Offset, Options, OverLimit, Pool, QuotaRefusal,
    Range, Scope, Standin, example_secret, other_secret,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// 2025-10-09T08:53:20Z, a Thursday.
const NOW: i64 = 1_760_000_000_000;
const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;

struct World {
    standin: Standin,
    http: reqwest::Client,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    retry_after: Option<String>,
    body: Value,
}

impl World {
    async fn new(options: Options) -> World {
        World {
            standin: Standin::start(options).await.expect("a free port"),
            http: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .expect("a client"),
        }
    }

    async fn with(conversations: Vec<Conversation>) -> World {
        World::new(Options { conversations, ..options() }).await
    }

    fn now(&self) -> i64 {
        self.standin.clock().now_ms()
    }

    fn token(&self) -> String {
        let now = self.now() / 1_000;
        sign(&json!({"appId": EXAMPLE_CLIENT_ID, "iat": now, "exp": now + 3_600}), example_secret())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer");
        let retry_after = response.headers().get("retry-after").cloned();
        Answer {
            status: response.status().as_u16(),
            retry_after: retry_after.map(|value| value.to_str().unwrap().to_owned()),
            body: serde_json::from_slice(&response.bytes().await.expect("a body")).unwrap_or_default(),
        }
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(self.standin.url() + path)
    }

    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.http
            .post(self.standin.url() + path)
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    async fn conversation(&self, id: &str) -> Answer {
        let request = self.get(&conversation_path(EXAMPLE_STREAM, id));
        self.send(signed(request, &self.token())).await
    }

    async fn details(&self, query: &str, body: &Value) -> Answer {
        let request = self.post(&(details_path() + query), body);
        self.send(signed(request, &self.token())).await
    }

    /// The rows of the last three days, in UTC.
    async fn rows(&self, more: Value) -> Vec<Value> {
        let mut body = json!({
            "startDate": "2025-10-06", "endDate": "2025-10-09", "timeZoneOffset": 0
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rows_of(&self.details("", &body).await)
    }

    async fn transcript(&self, body: Value) -> Answer {
        let request = self.post(&transcript_path(EXAMPLE_STREAM), &body);
        self.send(request.header("auth", self.token())).await
    }
}

fn options() -> Options {
    Options {
        clock: Clock::starting_at(NOW),
        accounts: vec![Account::example(), Account::other()],
        ..Options::default()
    }
}

fn sign(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).expect("a token")
}

fn signed(request: reqwest::RequestBuilder, token: &str) -> reqwest::RequestBuilder {
    request.header("auth", token).header("accountId", EXAMPLE_ACCOUNT)
}

fn conversation_path(stream: &str, id: &str) -> String {
    format!("/agentassist/api/v1/public/{stream}/conversations/{id}")
}

fn details_path() -> String {
    format!("/agentassist/api/public/analytics/account/{EXAMPLE_ACCOUNT}/v2/interactionDetails")
}

fn transcript_path(bot: &str) -> String {
    format!("/api/public/bot/{bot}/conversationDetails")
}

fn rows_of(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["data"].as_array().expect("rows").clone()
}

fn error(msg: &str, code: i64) -> Value {
    json!({"errors": [{"msg": msg, "code": code}]})
}

fn live(n: u64) -> Conversation {
    Conversation::live(EXAMPLE_STREAM, n, NOW - 10 * MINUTE)
}

// --- Who may call -------------------------------------------------------------------------

#[tokio::test]
async fn a_token_that_does_not_hold_is_refused_in_the_vendors_words() {
    let world = World::with(vec![]).await;
    let now = NOW / 1_000;
    let key = EncodingKey::from_secret(example_secret().as_bytes());
    let claims = json!({"appId": EXAMPLE_CLIENT_ID});
    let stronger = encode(&Header::new(Algorithm::HS512), &claims, &key).unwrap();
    let unsigned = "eyJhbGciOiJub25lIn0.eyJhcHBJZCI6ImNzLTUxZWE1ZGYyIn0.";
    let ours = |claims: Value| sign(&claims, example_secret());
    let credentials = "Invalid SDK credentials";
    let invalid = "Invalid JWT token";
    for (token, msg) in [
        ("nonsense".to_owned(), invalid),
        (unsigned.to_owned(), invalid),
        (stronger, credentials),
        (sign(&claims, "another secret"), credentials),
        (ours(json!({"appId": "cs-nobody"})), credentials),
        (ours(json!({"sub": EXAMPLE_CLIENT_ID})), credentials),
        (ours(json!({"appId": EXAMPLE_CLIENT_ID, "exp": now})), invalid),
        (ours(json!({"appId": EXAMPLE_CLIENT_ID, "exp": "soon"})), invalid),
        (ours(json!({"appId": EXAMPLE_CLIENT_ID, "iat": now + 120})), invalid),
    ] {
        let request = world.get(&conversation_path(EXAMPLE_STREAM, "c-1"));
        let answer = world.send(signed(request, &token)).await;
        assert_eq!((answer.status, answer.body), (401, error(msg, 4002)), "{token}");
    }
    assert_eq!(world.standin.violations().len(), 9);
}

#[tokio::test]
async fn no_token_and_a_bearer_token_are_the_same_to_it() {
    let world = World::with(vec![]).await;
    let request = || world.get(&conversation_path(EXAMPLE_STREAM, "c-1"));
    let bearer = request().header("authorization", format!("Bearer {}", world.token()));
    for request in [request(), bearer] {
        let answer = world.send(request.header("accountId", EXAMPLE_ACCOUNT)).await;
        assert_eq!(answer.body, error("Invalid SDK credentials", 4002));
    }
}

#[tokio::test]
async fn a_token_names_its_app_as_app_id_or_issuer_and_needs_no_expiry() {
    let record = live(1);
    let id = record.conversation_id.clone();
    let world = World::with(vec![record]).await;
    for claim in ["appId", "iss"] {
        let token = sign(&json!({claim: EXAMPLE_CLIENT_ID}), example_secret());
        let request = world.get(&conversation_path(EXAMPLE_STREAM, &id));
        assert_eq!(world.send(signed(request, &token)).await.status, 200);
    }
}

#[tokio::test]
async fn a_scope_opens_its_own_routes_only() {
    let app = |scope| App { scopes: vec![scope], ..App::new(EXAMPLE_CLIENT_ID, example_secret()) };
    for (scope, statuses) in [(Scope::Analytics, [404, 200, 401]), (Scope::ChatHistory, [401, 401, 200])] {
        let account = Account::new(EXAMPLE_ACCOUNT, &[EXAMPLE_STREAM], vec![app(scope)]);
        let world = World::new(Options { accounts: vec![account], ..options() }).await;
        let day = json!({"startDate": "2025-10-09", "endDate": "2025-10-09", "timeZoneOffset": 0});
        let answers = [
            world.conversation("c-1").await,
            world.details("", &day).await,
            world.transcript(json!({"sessionId": "x"})).await,
        ];
        assert_eq!(answers.each_ref().map(|answer| answer.status), statuses);
        let refused = answers.iter().find(|answer| answer.status == 401).unwrap();
        let words = "Permission denied. Scope is incorrect!";
        assert_eq!(refused.body, error(words, 4002));
    }
}

#[tokio::test]
async fn nobody_reaches_another_accounts_streams_or_a_bot_they_are_not_bound_to() {
    let mut account = Account::example();
    account.streams.push("st-second".into());
    account.apps[0].bots = Some(vec![EXAMPLE_STREAM.into()]);
    let world = World::new(Options { accounts: vec![account, Account::other()], ..options() }).await;
    for (stream, status, expected) in [
        (EXAMPLE_STREAM, 404, error("Conversation not found", 404)),
        (OTHER_STREAM, 401, error("Invalid SDK credentials", 4002)),
        ("st-second", 401, error("Invalid SDK credentials", 4002)),
        ("st-nobody", 400, error("Invalid StreamId", 400)),
    ] {
        let request = world.get(&conversation_path(stream, "c-1"));
        let answer = world.send(signed(request, &world.token())).await;
        assert_eq!((answer.status, answer.body), (status, expected), "{stream}");
    }
    let other = sign(&json!({"appId": OTHER_CLIENT_ID}), other_secret());
    let request = world.post(&transcript_path(EXAMPLE_STREAM), &json!({"callId": "1"}));
    let answer = world.send(request.header("auth", other)).await;
    assert_eq!(answer.body, error("Invalid SDK credentials", 4002));
}

#[tokio::test]
async fn the_account_header_is_the_tokens_account_and_required_by_switch() {
    let world = World::with(vec![]).await;
    let bare = || {
        let request = world.get(&conversation_path(EXAMPLE_STREAM, "c-1"));
        request.header("auth", world.token())
    };
    assert_eq!(world.send(bare()).await.status, 412);
    let foreign = bare().header("accountId", OTHER_ACCOUNT);
    assert_eq!(world.send(foreign).await.status, 401);
    world.standin.set(|switches| switches.account_id_required = false);
    assert_eq!(world.send(bare()).await.status, 404);
    let foreign = bare().header("accountId", OTHER_ACCOUNT);
    assert_eq!(world.send(foreign).await.status, 401);
    let path = details_path().replace(EXAMPLE_ACCOUNT, OTHER_ACCOUNT);
    let request = world.post(&path, &json!({}));
    assert_eq!(world.send(signed(request, &world.token())).await.status, 401);
}

#[tokio::test]
async fn with_jti_enforced_a_token_is_good_for_one_call_and_one_hour() {
    let mut account = Account::example();
    account.apps[0].enforce_jti = true;
    let world = World::new(Options { accounts: vec![account], ..options() }).await;
    let now = NOW / 1_000;
    let call = async |claims: Value| {
        let request = world.get(&conversation_path(EXAMPLE_STREAM, "c-1"));
        let token = sign(&claims, example_secret());
        world.send(signed(request, &token)).await
    };
    let claims = |jti: &str, exp: i64| json!({"appId": EXAMPLE_CLIENT_ID, "jti": jti, "exp": exp});
    assert_eq!(call(claims("a", now + 3_600)).await.status, 404);
    let replayed = call(claims("a", now + 3_599)).await;
    let words = "error verifying the jwt: possibly a replay";
    assert_eq!((replayed.status, replayed.body), (401, error(words, 401)));
    let words = "error verifying the jwt: if \"jti\" claim \"exp\" must be <= 1 hour(s)";
    assert_eq!(call(claims("b", now + 3_601)).await.body, error(words, 401));
    assert_eq!(call(json!({"appId": EXAMPLE_CLIENT_ID, "exp": now + 60})).await.status, 401);
    assert_eq!(call(claims("c", now + 60)).await.status, 404);
    assert!(world.standin.violations()[0].starts_with("token: replayed jti"));
}

// --- Paths --------------------------------------------------------------------------------

#[tokio::test]
async fn paths_are_matched_in_any_case_and_the_old_name_still_works() {
    let record = live(1);
    let id = record.conversation_id.clone();
    let world = World::with(vec![record]).await;
    let body = json!({"startDate": "2025-10-09", "endDate": "2025-10-09", "timeZoneOffset": 0});
    for name in ["interactionDetails", "INTERACTIONDETAILS", "callDetails", "calldetails"] {
        let path = details_path().replace("interactionDetails", name);
        let request = signed(world.post(&path, &body), &world.token());
        assert_eq!(rows_of(&world.send(request).await).len(), 1, "{name}");
    }
    let path = conversation_path(EXAMPLE_STREAM, &id).replace("agentassist", "AgentAssist");
    let request = signed(world.get(&path), &world.token());
    assert_eq!(world.send(request).await.status, 200);
}

#[tokio::test]
async fn other_methods_get_405_and_other_paths_404() {
    let world = World::with(vec![]).await;
    let url = world.standin.url() + &details_path();
    let answer = world.send(world.http.get(url)).await;
    assert_eq!((answer.status, answer.body), (405, error("Method Not Allowed", 405)));
    let request = world.post(&conversation_path(EXAMPLE_STREAM, "c-1"), &json!({}));
    assert_eq!(world.send(request).await.status, 405);
    assert_eq!(world.send(world.get("/api/public/bots")).await.status, 404);
}

// --- Quotas -------------------------------------------------------------------------------

#[tokio::test]
async fn both_contact_centre_routes_share_a_rolling_minute_of_the_account() {
    let world = World::with(vec![]).await;
    let body = json!({"startDate": "2025-10-09", "endDate": "2025-10-09", "timeZoneOffset": 0});
    world.conversation("c-1").await;
    world.standin.clock().advance(Duration::from_secs(20));
    for _ in 0..59 {
        assert_eq!(world.details("", &body).await.status, 200);
    }
    assert!(world.standin.violations().is_empty());
    let refused = world.conversation("c-1").await;
    let words = "You've exceeded the per-minute rate limit. \
                 Please wait for sometime before retrying.";
    assert_eq!((refused.status, refused.body), (429, error(words, 429)));
    // The first call leaves in 40 s, but the refused one took its place.
    assert_eq!(refused.retry_after.as_deref(), Some("60"));
    let expected = format!("quota: call 61 within 60 s of account {EXAMPLE_ACCOUNT}");
    assert!(world.standin.violations()[0].starts_with(&expected));
    assert_eq!(world.transcript(json!({"callId": "1"})).await.status, 200);
    world.standin.clock().advance(Duration::from_millis(59_999));
    assert_eq!(world.conversation("c-1").await.status, 429);
    world.standin.clock().advance(Duration::from_millis(1));
    assert_eq!(world.conversation("c-1").await.status, 404);
}

#[tokio::test]
async fn a_bot_has_a_minute_and_an_hour_of_its_own() {
    let mut account = Account::example();
    account.bot_calls_per_minute = 2;
    account.bot_calls_per_hour = 3;
    let world = World::new(Options { accounts: vec![account], ..options() }).await;
    let ask = async || world.transcript(json!({"callId": "1"})).await;
    let minute = Duration::from_secs(60);
    assert_eq!([ask().await.status, ask().await.status], [200, 200]);
    world.standin.clock().advance(minute);
    assert_eq!(ask().await.status, 200);
    world.standin.clock().advance(minute);
    let refused = ask().await;
    let words = "You've exceeded the hourly rate limit. Please wait for sometime before retrying.";
    assert_eq!(refused.body, error(words, 429));
    assert_eq!(refused.retry_after.as_deref(), Some("3480"));
    world.standin.clock().advance(58 * minute);
    assert_eq!(ask().await.status, 200);
    let pool = Some(Pool::Bot(EXAMPLE_STREAM.into()));
    assert!(world.standin.calls().iter().all(|call| call.pool == pool));
}

#[tokio::test]
async fn a_full_quota_is_refused_in_three_ways_or_not_at_all() {
    let mut account = Account::example();
    account.calls_per_minute = 1;
    let world = World::new(Options { accounts: vec![account], ..options() }).await;
    world.conversation("c-1").await;
    for (how, status, retry_after) in [
        (QuotaRefusal::TooManyWithRetryAfter, 429, true),
        (QuotaRefusal::TooMany, 429, false),
        (QuotaRefusal::ErrorUnder200, 200, false),
    ] {
        world.standin.set(|switches| switches.quota_refusal = how);
        let answer = world.conversation("c-1").await;
        assert_eq!((answer.status, answer.retry_after.is_some()), (status, retry_after));
        assert_eq!(answer.body["errors"][0]["code"], 429);
    }
    world.standin.set(|switches| switches.enforce_quota = false);
    world.standin.forget();
    assert_eq!(world.conversation("c-1").await.status, 404);
    assert!(world.standin.violations().is_empty());
    world.standin.set(|switches| switches.enforce_quota = true);
    world.standin.reset_quota();
    assert_eq!(world.conversation("c-1").await.status, 404);
}

// --- Interaction details ------------------------------------------------------------------

/// `count` conversations, a minute apart; the last began at [`NOW`].
fn many(count: u64) -> Vec<Conversation> {
    let start = |n: u64| NOW - i64::try_from(count - n).unwrap() * MINUTE;
    (1..=count).map(|n| Conversation::live(EXAMPLE_STREAM, n, start(n))).collect()
}

const TODAY: &str = r#"{"startDate":"2025-10-09","endDate":"2025-10-09","timeZoneOffset":0}"#;

fn today() -> Value {
    serde_json::from_str(TODAY).unwrap()
}

#[tokio::test]
async fn an_offset_skips_pages_or_documents() {
    let records = many(10);
    // Descending: the newest comes first.
    let ids: Vec<String> = records.iter().rev().map(|r| r.session_id.clone()).collect();
    let world = World::with(records).await;
    for (reading, first) in [(Offset::Pages, 6), (Offset::Documents, 2)] {
        world.standin.set(|switches| switches.offset = reading);
        let rows = rows_of(&world.details("?limit=3&offset=2", &today()).await);
        assert_eq!(rows[0]["sessionId"], ids[first], "{reading:?}");
        assert_eq!(rows.len(), 3);
    }
    assert_eq!(world.details("?offset=11", &today()).await.status, 200);
    world.standin.set(|switches| switches.offset = Offset::Pages);
    assert_eq!(world.details("?offset=10", &today()).await.status, 200);
    assert_eq!(world.details("?offset=11", &today()).await.status, 412);
}

#[tokio::test]
async fn a_limit_above_100_is_clamped_or_refused_and_the_count_is_page_or_total() {
    let world = World::with(many(103)).await;
    let answer = world.details("?limit=500", &today()).await;
    assert_eq!((rows_of(&answer).len(), &answer.body["numResults"]), (100, &json!(100)));
    assert_eq!(world.standin.violations().len(), 1);
    world.standin.set(|switches| {
        switches.over_limit = OverLimit::Refuse;
        switches.num_results = NumResults::Total;
    });
    let refused = world.details("?limit=101", &today()).await;
    let words = "Validation errors/ Invalid arguments";
    assert_eq!((refused.status, refused.body), (412, error(words, 412)));
    let answer = world.details("", &today()).await;
    assert_eq!((rows_of(&answer).len(), &answer.body["numResults"]), (100, &json!(103)));
}

#[tokio::test]
async fn rows_are_repeated_across_pages_by_switch_and_none_is_lost() {
    let world = World::with(many(7)).await;
    for repeat in [false, true] {
        world.standin.set(|switches| switches.repeat_rows = repeat);
        let mut ids = Vec::new();
        for page in 0..4 {
            let query = format!("?limit=3&offset={page}");
            let rows = rows_of(&world.details(&query, &today()).await);
            ids.extend(rows.iter().map(|row| row["sessionId"].to_string()));
        }
        let shown = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), shown > 7), (7, repeat));
    }
}

#[tokio::test]
async fn a_window_is_at_most_seven_days_in_either_reading() {
    let world = World::with(vec![]).await;
    let status = async |start: &str, end: &str| {
        let body = json!({"startDate": start, "endDate": end, "timeZoneOffset": -330});
        world.details("", &body).await.status
    };
    assert_eq!(status("2025-10-03", "2025-10-09").await, 200);
    assert_eq!(status("2025-10-02", "2025-10-09").await, 412);
    assert_eq!(status("2025-10-02 10:00:00", "2025-10-09 10:00:00").await, 200);
    assert_eq!(status("2025-10-02 10:00:00", "2025-10-09 10:00:01").await, 412);
    assert_eq!(status("2025-10-03 10:00:00", "2025-10-09").await, 200);
    assert_eq!(world.standin.violations().len(), 2);
    world.standin.set(|switches| switches.range = Range::EightDates);
    assert_eq!(status("2025-10-02", "2025-10-09").await, 200);
    assert_eq!(status("2025-10-01", "2025-10-09").await, 412);
}

#[tokio::test]
async fn a_body_that_breaks_the_contract_is_refused() {
    let world = World::with(vec![]).await;
    world.standin.set(|switches| switches.enforce_quota = false);
    let good = today();
    assert_eq!(world.details("", &good).await.status, 200);
    for (field, value) in [
        ("startDate", json!(null)),
        ("startDate", json!("2025-10-09T00:00:00")),
        ("startDate", json!("2025-13-09")),
        ("startDate", json!("2025-10-10")),
        ("endDate", json!("9.10.2025")),
        ("timeZoneOffset", json!(null)),
        ("timeZoneOffset", json!("0")),
        ("timeZoneOffset", json!(900)),
        ("channels", json!("Voice")),
        ("direction", json!("inbound")),
        ("selectedFields", json!([1])),
        ("isAutomation", json!("no")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        assert_eq!(world.details("", &body).await.status, 412, "{body}");
    }
    for query in ["?limit=0", "?limit=ten", "?limit=1&limit=2", "?offset=-1"] {
        assert_eq!(world.details(query, &good).await.status, 412, "{query}");
    }
}

#[tokio::test]
async fn a_date_as_the_end_includes_that_day_where_the_offset_holds() {
    // 18:29:59.999Z on the 8th is the last of that day in India, 18:30Z the first of the next.
    let midnight = NOW - NOW % DAY - 5 * 60 * MINUTE - 30 * MINUTE;
    let world = World::with(vec![
        Conversation::live(EXAMPLE_STREAM, 1, midnight - 1),
        Conversation::live(EXAMPLE_STREAM, 2, midnight),
    ])
    .await;
    for (start, end, offset, expected) in [
        ("2025-10-08", "2025-10-08", -330, vec!["2025-10-08T23:59:59"]),
        ("2025-10-09", "2025-10-09", -330, vec!["2025-10-09T00:00:00"]),
        ("2025-10-08", "2025-10-08", 300, vec!["2025-10-08T13:30:00", "2025-10-08T13:29:59"]),
        ("2025-10-08 23:59:00", "2025-10-08 23:59:59", -330, vec!["2025-10-08T23:59:59"]),
    ] {
        let body = json!({"startDate": start, "endDate": end, "timeZoneOffset": offset});
        let rows = rows_of(&world.details("", &body).await);
        let starts: Vec<&Value> = rows.iter().map(|row| &row["sessionStartTime"]).collect();
        assert_eq!(starts, expected, "{body}");
    }
}

#[tokio::test]
async fn sessions_without_an_agent_come_first_and_forwards_then_conversations_backwards() {
    let at = |n: u64, minutes: i64| Conversation::live(EXAMPLE_STREAM, n, NOW - minutes * MINUTE);
    let world =
        World::with(vec![at(1, 40), at(2, 30).without_agent(), at(3, 20), at(4, 35).without_agent()]).await;
    let rows = world.rows(json!({})).await;
    let starts: Vec<&str> =
        rows.iter().map(|row| &row["sessionStartTime"].as_str().unwrap()[11..16]).collect();
    assert_eq!(starts, ["08:18", "08:23", "08:33", "08:13"]);
    assert_eq!(rows[0].get("conversationId"), None);
    assert_eq!(rows[0]["finalStatus"], "TRANSIENT_OPEN");
}

#[tokio::test]
async fn filters_narrow_the_rows() {
    let voice = live(1).on_channel("Voice").outbound();
    let jones = live(2).on_channel("Jones ");
    let queue = voice.queue_id.clone();
    let world = World::with(vec![voice, jones, live(3).without_agent()]).await;
    for (filter, count) in [
        (json!({"channels": [], "queues": [], "bots": []}), 3),
        (json!({"channels": ["Voice"]}), 1),
        (json!({"channels": ["Voice", "Jones"]}), 2),
        (json!({"queues": [queue]}), 2),
        (json!({"queues": ["qu-none"]}), 0),
        (json!({"bots": [EXAMPLE_STREAM]}), 3),
        (json!({"bots": ["st-none"]}), 0),
        (json!({"direction": "Outbound"}), 1),
        (json!({"direction": "Both"}), 3),
    ] {
        assert_eq!(world.rows(filter.clone()).await.len(), count, "{filter}");
    }
    let other = Conversation::live(OTHER_STREAM, 9, NOW - MINUTE);
    world.standin.put(other);
    assert_eq!(world.rows(json!({})).await.len(), 3);
}

#[tokio::test]
async fn fields_appear_when_selected_and_their_spelling_drifts() {
    let world = World::with(vec![live(1), live(2)]).await;
    let rows = world.rows(json!({})).await;
    for field in ["skills", "customerinfo", "customerInfo", "userleveltags", "campaigninfo"] {
        assert_eq!(rows[0].get(field), None, "{field}");
    }
    let fields = ["skills", "customerinfo", "sessionleveltags", "campaigninfo", "snoozeinfo"];
    let rows = world.rows(json!({"selectedFields": fields})).await;
    let (tidy, odd) = (&rows[0], &rows[1]);
    assert!(tidy["customerinfo"].is_object() && odd["customerInfo"].is_object());
    assert!(tidy["reason"].is_string() && odd["Reason"].is_string());
    assert_eq!((&tidy["isVoicemail"], &odd["isVoicemail"]), (&json!("NO"), &json!(false)));
    assert_eq!(odd.get("errorDetails"), None);
    assert!(tidy["campaigninfo"].is_object() && tidy["skills"].is_array());
    assert_eq!(tidy.get("userleveltags"), None);
    assert!(tidy["destinations"][0]["respondingAgent"]["snoozeinfo"].is_array());
}

#[tokio::test]
async fn times_of_a_row_follow_the_offset_except_the_callback() {
    let start = NOW - DAY;
    let record = Conversation::live(EXAMPLE_STREAM, 1, start).on_channel("Voice");
    let world = World::with(vec![record.ends_at(start + 90_000)]).await;
    for (offset, started, ended) in [
        (-330, "2025-10-08T14:23:20", "2025-10-08T14:24:50"),
        (300, "2025-10-08T03:53:20", "2025-10-08T03:54:50"),
    ] {
        let row = &world.rows(json!({"timeZoneOffset": offset})).await[0];
        assert_eq!(row["sessionStartTime"], started);
        assert_eq!(row["sessionEndTime"], ended);
        let entry = &row["destinations"][0];
        assert_eq!(entry["EnterTime"], started);
        assert_eq!(entry["CallbackOptedTime"], "2025-10-08T08:53:20.000Z");
        assert_eq!(entry["respondingAgent"]["interactionDuration"], 85);
    }
}

// --- A life on the clock ------------------------------------------------------------------

#[tokio::test]
async fn a_conversation_lives_on_the_clock_in_all_three_routes() {
    let start = NOW + MINUTE;
    let end = start + 10 * MINUTE;
    let record = Conversation::live(EXAMPLE_STREAM, 1, start)
        .ends_at(end)
        .surveyed_at(end + 5 * MINUTE, 4)
        .deleted_at(end + 30 * MINUTE)
        .with_messages(5);
    let id = record.conversation_id.clone();
    let world = World::with(vec![record]).await;
    // after …: E1 status, has endTime, dispositions; E2 finalStatus, after-call work, survey;
    // E3 messages.
    for (at, seconds_of_update, status, ended, wrapped, row_status, survey, messages) in [
        (start, 0, "OPEN", false, false, "TRANSIENT_OPEN", false, 1),
        (start + 5_000, 5, "ACTIVE", false, false, "TRANSIENT_OPEN", false, 1),
        (start + 45_000, 5, "ACTIVE", false, false, "TRANSIENT_OPEN", false, 4),
        (end, 5, "ACTIVE", true, false, "TRANSIENT_OPEN", false, 5),
        (end + 10_000, 610, "CLOSED", true, false, "CLOSED", false, 5),
        (end + 40_000, 640, "CLOSED", true, true, "CLOSED", false, 5),
        (end + 5 * MINUTE, 640, "CLOSED", true, true, "CLOSED", true, 5),
    ] {
        world.standin.clock().set_ms(at);
        let body = world.conversation(&id).await.body;
        assert_eq!(body["status"], status, "{at}");
        assert_eq!(body.get("endTime").is_some(), ended, "{at}");
        assert_eq!(body.get("dispositions").is_some(), wrapped, "{at}");
        assert_eq!(body["queues"][0]["status"], "ACTIVE", "nested, and never to be believed");
        let updated: jiff::Timestamp = body["updatedAt"].as_str().unwrap().parse().unwrap();
        assert_eq!(updated.as_second() - start / 1_000, seconds_of_update, "{at}");
        let row = &world.rows(json!({})).await[0];
        assert_eq!(row["finalStatus"], row_status, "{at}");
        assert!(row["sessionEndTime"].is_string(), "live rows have one, too");
        assert_eq!(row.get("csatScore").is_some(), survey, "{at}");
        let agent = &row["destinations"][0]["respondingAgent"];
        assert_eq!(agent.get("afterCallWorkDuration").is_some(), wrapped, "{at}");
        let history = &world.transcript(json!({"conversationId": id})).await.body;
        let shown = history["conversationHistory"].as_array().unwrap().len();
        assert_eq!(shown, messages, "{at}");
    }
    for nowhere in [NOW, end + 30 * MINUTE] {
        world.standin.clock().set_ms(nowhere);
        let answer = world.conversation(&id).await;
        assert_eq!((answer.status, answer.body), (404, error("Conversation not found", 404)));
        assert!(world.rows(json!({})).await.is_empty());
        let answer = world.transcript(json!({"conversationId": id})).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body["conversationInfo"], json!({}));
    }
    assert_eq!(world.standin.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_closed_conversation_can_be_reopened_and_statuses_can_be_strange() {
    let closed = || Conversation::closed_at(EXAMPLE_STREAM, 1, NOW);
    let id = closed().conversation_id;
    let world = World::with(vec![closed()]).await;
    for (record, status, row_status) in [
        (closed(), json!("CLOSED"), json!("CLOSED")),
        (closed().reopened_at(NOW), json!("ACTIVE"), json!("TRANSIENT_OPEN")),
        (
            closed().with_status("PARKED").with_final_status("Transferred"),
            json!("PARKED"),
            json!("Transferred"),
        ),
        (closed().without_status().without_final_status(), json!(null), json!(null)),
    ] {
        world.standin.put(record);
        assert_eq!(world.conversation(&id).await.body["status"], status);
        let rows = world.rows(json!({})).await;
        assert_eq!((rows.len(), &rows[0]["finalStatus"]), (1, &row_status));
    }
}

#[tokio::test]
async fn a_session_without_an_agent_has_a_row_and_a_transcript_but_no_conversation() {
    let record = Conversation::closed_at(EXAMPLE_STREAM, 1, NOW).without_agent();
    let (id, session) = (record.conversation_id.clone(), record.session_id.clone());
    let world = World::with(vec![record]).await;
    assert_eq!(world.conversation(&id).await.status, 404);
    assert_eq!(world.rows(json!({})).await[0]["finalStatus"], "BotResolved");
    let info = &world.transcript(json!({"sessionId": session})).await.body["conversationInfo"];
    assert_eq!((&info["sessionId"], info.get("agentHandOffTime")), (&json!(session), None));
}

#[test]
fn the_same_arguments_make_the_same_record_and_its_session_id_carries_the_start() {
    let (one, same) = (live(1), live(1));
    assert_eq!(format!("{one:?}"), format!("{same:?}"));
    assert_ne!(one.conversation_id, live(2).conversation_id);
    let elsewhere = Conversation::live(OTHER_STREAM, 1, NOW - 10 * MINUTE);
    assert_ne!(one.conversation_id, elsewhere.conversation_id);
    assert_eq!(one.session_id.len(), 24);
    let seconds = i64::from_str_radix(&one.session_id[..8], 16).unwrap();
    assert_eq!(seconds, (NOW - 10 * MINUTE) / 1_000);
}

// --- Conversation and its parameters ------------------------------------------------------

#[tokio::test]
async fn a_conversation_is_a_bare_object_in_the_vendors_order() {
    let record = live(1).on_channel("Voice").padded(5_000);
    let id = record.conversation_id.clone();
    let world = World::with(vec![record]).await;
    let request = world.get(&conversation_path(EXAMPLE_STREAM, &id));
    let response = signed(request, &world.token()).send().await.unwrap();
    let text = response.text().await.unwrap();
    assert!(text.starts_with(r#"{"participants":["#) && text.len() > 5_000);
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["_id"], id);
    assert_eq!(body["accountId"], EXAMPLE_ACCOUNT);
    assert_eq!(body["botId"], EXAMPLE_STREAM);
    assert_ne!(body["conversationId"], id, "a voice record's is another");
}

#[tokio::test]
async fn the_listed_parameters_of_a_conversation_exclude_one_another() {
    let record = live(1);
    let id = record.conversation_id.clone();
    let world = World::with(vec![record]).await;
    for (query, status) in [
        (format!("?conversationId={id}&limit=1"), 200),
        ("?dateFrom=2025-10-01&dateTo=2025-10-02".into(), 200),
        (format!("?conversationId={id}&dateTo=2025-10-02"), 412),
        ("?conversationId=c-other".into(), 412),
    ] {
        let answer = world.conversation(&(id.clone() + &query)).await;
        assert_eq!(answer.status, status, "{query}");
    }
}

// --- Transcripts --------------------------------------------------------------------------

#[tokio::test]
async fn a_session_beats_a_call_and_a_call_beats_a_conversation() {
    let (one, two, three) = (live(1), live(2), live(3).answering_call_id("another"));
    let world = World::with(vec![one.clone(), two.clone(), three.clone()]).await;
    let both = json!({"callId": two.call_id, "conversationId": three.conversation_id});
    let mut all = both.clone();
    all["sessionId"] = json!(one.session_id);
    let alone = json!({"conversationId": three.conversation_id});
    for (body, meant) in [(all, &one), (both, &two), (alone, &three)] {
        let info = &world.transcript(body).await.body["conversationInfo"];
        assert_eq!(info["sessionId"], meant.session_id);
        assert_eq!(info["callId"], meant.answered_call_id);
    }
    let answer = world.transcript(json!({"limit": 1})).await;
    assert_eq!(answer.body, error("Validation errors/ Invalid arguments", 412));
}

#[tokio::test]
async fn messages_are_paged_by_skip_or_offset() {
    let record = Conversation::closed_at(EXAMPLE_STREAM, 1, NOW).with_messages(5);
    let session = record.session_id.clone();
    let world = World::with(vec![record]).await;
    let texts = async |more: Value| {
        let mut body = json!({"sessionId": session});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = world.transcript(body).await.body;
        let history = body["conversationHistory"].as_array().unwrap().clone();
        let text = |message: &Value| message["components"][0]["data"]["text"].to_string();
        history.iter().map(text).collect::<Vec<_>>()
    };
    let all = texts(json!({})).await;
    assert_eq!(all.len(), 5);
    assert_eq!(texts(json!({"skip": 2, "limit": 2})).await, all[2..4]);
    assert_eq!(texts(json!({"offset": 4, "limit": 2})).await, all[4..]);
    world.standin.set(|switches| switches.history_limit = 3);
    assert_eq!(texts(json!({})).await, all[..3]);
    assert_eq!(texts(json!({"limit": 4})).await, all[..3]);
    world.standin.set(|switches| switches.over_limit = OverLimit::Refuse);
    let answer = world.transcript(json!({"sessionId": session, "limit": 4})).await;
    assert_eq!(answer.status, 412);
}

#[tokio::test]
async fn a_summary_is_made_when_asked_and_never_twice_the_same() {
    let record = live(1);
    let world = World::with(vec![record.clone()]).await;
    let ask = async |required: bool| {
        let body = json!({"sessionId": record.session_id, "isSummaryRequired": required});
        world.transcript(body).await.body
    };
    assert_eq!(ask(false).await.get("summary"), None);
    let first = ask(true).await["summary"]["ConversationSummary"].clone();
    let second = ask(true).await["summary"]["ConversationSummary"].clone();
    assert!(first.is_string());
    assert_ne!(first, second);
}

// --- Faults on the wire -------------------------------------------------------------------

/// What came back on a fresh connection until it ended, and how it ended.
async fn wire(address: SocketAddr, request: &str) -> (String, io::Result<()>) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut received = Vec::new();
    let end = stream.read_to_end(&mut received).await.map(|_| ());
    (String::from_utf8_lossy(&received).into_owned(), end)
}

/// A good request for the settled conversation, and a world that knows it.
async fn faulty(fault: Fault) -> (World, String) {
    let record = Conversation::closed_at(EXAMPLE_STREAM, 1, NOW - DAY);
    let path = conversation_path(EXAMPLE_STREAM, &record.conversation_id);
    let world = World::with(vec![record]).await;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: kore\r\nauth: {}\r\naccountId: {EXAMPLE_ACCOUNT}\r\n\
         connection: close\r\n\r\n",
        world.token()
    );
    world.standin.fault(Some(fault));
    (world, request)
}

fn split(text: &str) -> (String, String) {
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

fn announced(head: &str) -> usize {
    let (_, rest) = head.split_once("content-length: ").expect("a length");
    rest.lines().next().unwrap().parse().expect("a number")
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let (world, request) = faulty(Fault::Reset).await;
    let (text, end) = wire(world.standin.address(), &request).await;
    assert_eq!(text, "");
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(world.standin.calls()[0].status, 0);

    let (world, request) = faulty(Fault::ResetInBody).await;
    let (text, end) = wire(world.standin.address(), &request).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let (head, body) = split(&text);
    assert_eq!(announced(&head) / 2, body.len());
}

#[tokio::test]
async fn a_hang_says_nothing_more_and_keeps_the_connection() {
    for (fault, says) in [(Fault::HangBeforeHead, false), (Fault::HangInBody, true)] {
        let (world, request) = faulty(fault).await;
        let mut stream = TcpStream::connect(world.standin.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        let reading = stream.read_to_end(&mut received);
        let waited = tokio::time::timeout(Duration::from_millis(100), reading).await;
        assert!(waited.is_err(), "silence cannot be seen without waiting for it");
        assert_eq!(!received.is_empty(), says);
        if says {
            let (head, body) = split(&String::from_utf8_lossy(&received));
            assert!(body.len() < announced(&head));
        }
    }
}

#[tokio::test]
async fn a_cut_body_is_shorter_than_announced_and_a_truncated_one_is_not() {
    let (world, request) = faulty(Fault::CutBody).await;
    let (text, end) = wire(world.standin.address(), &request).await;
    let (head, body) = split(&text);
    assert!(end.is_ok() && body.len() == announced(&head) / 2);

    let (world, request) = faulty(Fault::TruncatedJson).await;
    let (text, _) = wire(world.standin.address(), &request).await;
    let (head, body) = split(&text);
    assert_eq!(body.len(), announced(&head));
    assert!(serde_json::from_str::<Value>(&body).is_err());

    let (world, request) = faulty(Fault::CloseDelimitedCut).await;
    let (text, end) = wire(world.standin.address(), &request).await;
    let (head, body) = split(&text);
    assert!(end.is_ok() && head.contains("connection: close"));
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"));
    assert!(!body.is_empty() && serde_json::from_str::<Value>(&body).is_err());
}

#[tokio::test]
async fn a_body_can_be_framed_twice() {
    let (world, request) = faulty(Fault::LengthAndChunked).await;
    let (text, _) = wire(world.standin.address(), &request).await;
    let (head, body) = split(&text);
    assert!(head.contains("transfer-encoding: chunked"));
    assert!(body.starts_with(&format!("{:x}\r\n{{", announced(&head))));
    assert!(body.ends_with("}\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn answers_can_be_empty_html_an_error_opaque_or_somebody_elses() {
    let cases: [(Fault, &str, &str); 5] = [
        (Fault::Empty200, "application/json", ""),
        (Fault::Html200, "text/html", "<!doctype html>"),
        (Fault::ErrorEnvelope200, "application/json", r#"{"errors":"#),
        (Fault::Opaque200, "application/json", r#"{"payload":"#),
        (Fault::OtherConversation200, "application/json", r#"{"participants":"#),
    ];
    for (fault, content_type, begins) in cases {
        let (world, request) = faulty(fault.clone()).await;
        let (text, _) = wire(world.standin.address(), &request).await;
        let (head, body) = split(&text);
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{fault:?}");
        assert!(head.contains(&format!("content-type: {content_type}")), "{fault:?}");
        assert!(body.starts_with(begins), "{fault:?}");
        assert_eq!(body.is_empty(), begins.is_empty(), "{fault:?}");
        let asked = &world.standin.calls()[0].path;
        if let Ok(Value::Object(body)) = serde_json::from_str(&body)
            && let Some(id) = body.get("_id")
        {
            assert!(!asked.ends_with(id.as_str().unwrap()));
        }
    }
}

#[tokio::test]
async fn somebody_elses_answer_is_of_the_asked_kind() {
    let record = live(1);
    let world = World::with(vec![record.clone()]).await;
    world.standin.fault(Some(Fault::OtherConversation200));
    let rows = world.rows(json!({})).await;
    assert_eq!(rows.len(), 1);
    assert_ne!(rows[0]["sessionId"], record.session_id);
    let answer = world.transcript(json!({"sessionId": record.session_id})).await;
    assert_ne!(answer.body["conversationInfo"]["sessionId"], record.session_id);
    assert!(!answer.body["conversationHistory"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn statuses_can_be_forced_with_and_without_a_retry_after() {
    for (fault, line, header) in [
        (Fault::Status(503), "503 service unavailable", None),
        (Fault::StatusWithRetryAfter(429, 7), "429 too many requests", Some("retry-after: 7")),
        (Fault::Unauthorized401, "401 unauthorized", None),
        (
            Fault::Redirect("http://192.0.2.1/".into()),
            "307 temporary redirect",
            Some("location: http://192.0.2.1/"),
        ),
    ] {
        let (world, request) = faulty(fault).await;
        let (text, _) = wire(world.standin.address(), &request).await;
        let (head, _) = split(&text);
        assert!(head.starts_with(&format!("http/1.1 {line}\r\n")), "{head}");
        assert_eq!(head.contains("retry-after") || head.contains("location"), header.is_some());
        assert!(header.is_none_or(|header| head.contains(header)), "{head}");
    }
}

#[tokio::test]
async fn latency_delays_the_right_answer() {
    let (world, request) = faulty(Fault::Latency(Duration::from_millis(30))).await;
    let begun = std::time::Instant::now();
    let (text, _) = wire(world.standin.address(), &request).await;
    assert!(begun.elapsed() >= Duration::from_millis(30));
    assert!(split(&text).1.ends_with('}'));
}

#[tokio::test]
async fn an_endless_body_and_a_bomb_are_larger_than_any_cap() {
    const CAP: usize = 8 * 1024 * 1024;
    for fault in [Fault::EndlessBody, Fault::GzipBomb] {
        let world = World::with(vec![]).await;
        world.standin.fault(Some(fault.clone()));
        let request = world.get(&conversation_path(EXAMPLE_STREAM, "c-1"));
        let mut response = signed(request, &world.token()).send().await.unwrap();
        let mut received = 0;
        while received < CAP {
            let chunk = response.chunk().await.expect("sound so far");
            received += chunk.expect("not the end yet").len();
        }
    }
    let (world, request) = faulty(Fault::GzipBomb).await;
    let (text, _) = wire(world.standin.address(), &request.replace("close", "keep-alive")).await;
    drop(text);
    drop(world);
}

#[tokio::test]
async fn faults_go_to_a_path_then_to_the_next_calls_then_to_all() {
    let record = live(1);
    let id = record.conversation_id.clone();
    let world = World::with(vec![record.clone()]).await;
    let ask = json!({"sessionId": record.session_id});
    world.standin.fault(Some(Fault::Status(500)));
    world.standin.fault_next(2, Fault::Status(502));
    world.standin.fault_where("/CONVERSATIONDETAILS", Fault::Status(504));
    assert_eq!(world.transcript(ask.clone()).await.status, 504);
    assert_eq!(world.conversation(&id).await.status, 502);
    assert_eq!(world.conversation(&id).await.status, 502);
    assert_eq!(world.conversation(&id).await.status, 500);
    world.standin.fault(None);
    assert_eq!(world.conversation(&id).await.status, 200);
    world.standin.clear_faults();
    assert_eq!(world.transcript(ask).await.status, 200);
}

// --- HTTP itself --------------------------------------------------------------------------

#[tokio::test]
async fn a_connection_carries_one_request_after_the_other_in_either_framing() {
    let world = World::with(vec![live(1)]).await;
    let token = world.token();
    let path = details_path();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: kore\r\nAuth: {token}\r\naccountId: {EXAMPLE_ACCOUNT}\r\n\
         Content-Type: application/json\r\n"
    );
    let (first, rest) = TODAY.split_at(10);
    let requests = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\na\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n\
         {head}Content-Length: {}\r\nConnection: close\r\n\r\n{TODAY}",
        rest.len(),
        TODAY.len()
    );
    let (text, end) = wire(world.standin.address(), &requests).await;
    assert!(end.is_ok());
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    let bodies: Vec<_> = world.standin.calls().into_iter().map(|call| call.body).collect();
    assert_eq!(bodies, [TODAY, TODAY]);
}

#[tokio::test]
async fn bytes_that_could_be_read_in_two_ways_are_no_request() {
    let world = World::with(vec![]).await;
    for (nth, request) in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET http://kore/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx : b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: b\r\n folded\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\na",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ]
    .iter()
    .enumerate()
    {
        let (text, _) = wire(world.standin.address(), request).await;
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request:?} got {text:?}");
        assert_eq!(world.standin.violations().len(), nth + 1);
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn a_stopped_stand_in_refuses_connections() {
    let world = World::with(vec![]).await;
    let address = world.standin.address();
    world.standin.stop().await;
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

// --- What a test puts down and reads ------------------------------------------------------

#[tokio::test]
async fn bytes_put_down_go_out_as_they_are_to_good_calls_only() {
    let world = World::with(vec![]).await;
    let sample = "{ \"numResults\": 0,\n\"data\": [] }";
    world.standin.serve_body("/INTERACTIONdetails", 200, "application/json", sample);
    let send = async |body: &Value| {
        let request = signed(world.post(&details_path(), body), &world.token());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(send(&today()).await, (200, sample.to_owned()));
    assert_eq!(send(&json!({})).await.0, 412);
    let mut tomorrow = today();
    tomorrow["endDate"] = json!("2025-10-10");
    world.standin.serve_bytes_when("interactiondetails", "2025-10-10", 203, "text/x", "later");
    assert_eq!(send(&tomorrow).await, (203, "later".to_owned()));
    assert_eq!(send(&today()).await.0, 200);
}

#[tokio::test]
async fn the_journal_tells_everything_but_the_token() {
    let world = World::with(vec![live(1)]).await;
    world.details("?limit=5", &today()).await;
    world.conversation("c-1").await;
    world.standin.clock().advance(Duration::from_secs(1));
    world.conversation("c-1").await;
    world.send(world.get("/elsewhere")).await;
    assert_eq!(world.standin.count(), 4);
    let calls = world.standin.calls();
    let first = &calls[0];
    assert_eq!((first.at, first.status, &*first.method), (NOW, 200, "POST"));
    assert_eq!((&first.path, &*first.query), (&details_path(), "limit=5"));
    assert_eq!(first.json(), today());
    assert_eq!(first.header("accountid"), Some(EXAMPLE_ACCOUNT));
    assert_eq!(first.header("auth"), Some("<token>"));
    assert_eq!(first.pool, Some(Pool::Account(EXAMPLE_ACCOUNT.into())));
    assert_eq!(first.app_id.as_deref(), Some(EXAMPLE_CLIENT_ID));
    assert_eq!(first.token_id, calls[1].token_id);
    assert_ne!(first.token_id, calls[2].token_id, "minted a second later");
    assert_eq!((calls[3].status, calls[3].pool.is_some()), (404, false));
    let token = world.token();
    assert!(!format!("{calls:?}").contains(&token[token.len() - 10..]));
    world.standin.forget();
    assert_eq!((world.standin.count(), world.standin.violations().len()), (0, 0));
}

#[tokio::test]
async fn strict_mode_objects_to_what_leaks_through() {
    let world = World::with(vec![live(1)]).await;
    let good = || signed(world.post(&details_path(), &today()), &world.token());
    let mozilla = "Mozilla/5.0 (X11; Linux x86_64)";
    for (request, objection) in [
        (good().header("cookie", "a=b"), "header: cookie"),
        (good().header("authorization", "Basic eA=="), "header: authorization"),
        (good().header("x-api-key", "k"), "header: x-api-key"),
        (good().header("x-forwarded-for", "192.0.2.1"), "header: x-forwarded-for"),
        (good().header("forwarded", "for=192.0.2.1"), "header: forwarded"),
        (good().header("referer", "https://desk"), "header: referer"),
        (good().header("origin", "https://desk"), "header: origin"),
        (good().header("via", "1.1 edge"), "header: via"),
        (good().header("tracestate", "a=b"), "header: tracestate"),
        (good().header("user-agent", mozilla), "header: the user-agent is a browser's"),
        (good().body(TODAY.replace(',', ", ")), "body: not canonical JSON"),
        (
            signed(world.http.post(world.standin.url() + &details_path()), &world.token())
                .header("content-type", "text/plain")
                .body(today().to_string()),
            "header: content-type is not JSON",
        ),
        (signed(world.get("/agentassist"), &world.token()).body("{}"), "body: a GET has none"),
        (
            signed(
                world.post(&details_path(), &today()),
                &sign(&json!({"appId": EXAMPLE_CLIENT_ID, "exp": NOW / 1_000 + 86_401}), example_secret()),
            ),
            "token: lives for more than a day",
        ),
    ] {
        world.standin.forget();
        world.send(request).await;
        let violations = world.standin.violations();
        assert!(
            violations.iter().any(|violation| violation.starts_with(objection)),
            "{objection}: {violations:?}"
        );
        assert_eq!(world.standin.count(), 1);
    }
    world.standin.forget();
    world.send(good().header("accept", "*/*").header("traceparent", "00-1-2-01")).await;
    assert_eq!(world.standin.violations(), Vec::<String>::new());
    world.standin.set(|switches| switches.strict = false);
    world.send(good().header("cookie", "a=b")).await;
    assert_eq!(world.standin.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_rotated_secret_counts_from_the_next_call() {
    let world = World::with(vec![]).await;
    assert_eq!(world.conversation("c-1").await.status, 404);
    world.standin.set_accounts(|accounts| accounts[0].apps[0].client_secret = "rotated".into());
    assert_eq!(world.conversation("c-1").await.status, 401);
}

#[tokio::test]
async fn the_demo_has_something_for_every_route() {
    let options = Options::demo(Clock::starting_at(NOW));
    let ids = DemoIds::of(&options);
    let world = World::new(options).await;
    for (id, status) in [(&ids.settled, "CLOSED"), (&ids.just_closed, "CLOSED"), (&ids.live, "ACTIVE")] {
        assert_eq!(world.conversation(id).await.body["status"], status);
    }
    assert_eq!(world.rows(json!({})).await.len(), 6);
    let answer = world.transcript(json!({"sessionId": ids.session})).await;
    assert_eq!(answer.body["conversationHistory"].as_array().unwrap().len(), 6);
    assert_eq!((ids.account, ids.stream), (EXAMPLE_ACCOUNT.into(), EXAMPLE_STREAM.into()));
}
