//! The stand-in is the other party of every other test: what it does and refuses is fixed here.

mod callers;
mod faults;
mod interaction_details;
mod journal;
mod lives;
mod quotas;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use kore_standin::{
    Account, Clock, Conversation, EXAMPLE_ACCOUNT, EXAMPLE_CLIENT_ID, EXAMPLE_STREAM, Options, Standin,
    example_secret,
};
use serde_json::{Value, json};

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
            retry_after: retry_after.map(|value| value.to_str().expect("ASCII").to_owned()),
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
        let more = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(more);
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

/// A good question for interaction details, in canonical form.
const TODAY: &str = r#"{"startDate":"2025-10-09","endDate":"2025-10-09","timeZoneOffset":0}"#;

fn today() -> Value {
    serde_json::from_str(TODAY).expect("JSON")
}
