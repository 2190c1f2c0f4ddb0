//! A real browser, a page on another port, and no secret in it: what CORS says on paper works in
//! Chromium, and a page of an origin that is not listed gets nothing.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::Html;
use axum::routing::{get, post};
use jsonwebtoken::Algorithm;
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, OTHER_ACCOUNT};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::issuer::{Issuer, Signer};
use crate::world::{DAY, World, before, client, conversation_path, transcript_path, window_path};

const WEEK: &str = r#"{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":0}"#;

/// The page's own server: it hands out the page and the tokens, as a login would, and takes what the
/// page saw.
struct PageServer {
    signer: Signer,
    issuer: Issuer,
    done: mpsc::Sender<Value>,
}

async fn token(State(server): State<Arc<PageServer>>, RawQuery(query): RawQuery) -> String {
    let user = query.unwrap().split_once('=').unwrap().1.to_owned();
    let mut claims = server.issuer.claims(&user);
    claims["groups"] = vec![user].into();
    server.signer.token(&claims)
}

async fn done(State(server): State<Arc<PageServer>>, body: String) {
    server.done.send(serde_json::from_str(&body).unwrap()).await.unwrap();
}

/// Chromium, headless, with a profile of its own; it ends when this is dropped.
struct Browser {
    process: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-proxy-server",
        ];
        let process = Command::new("chromium")
            .args(flags)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("chromium: {error}; scripts/test installs it"));
        Self { process, _profile: profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a page at `host` of the page server saw.
async fn seen(host: &str, port: u16, query: &str, results: &mut mpsc::Receiver<Value>) -> Value {
    let browser = Browser::open(&format!("http://{host}:{port}/page?{query}"));
    let seen = tokio::time::timeout(Duration::from_secs(60), results.recv()).await;
    drop(browser);
    seen.expect("the page was never done").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_on_another_port_does_everything_with_a_token_and_an_unlisted_one_nothing() {
    let signer = Signer::new("ed", Algorithm::EdDSA);
    let issuer = Issuer::publishing(&[&signer]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let session = conversation.session_id.clone();
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation];
        for (name, rate) in [("asha", "1000/min"), ("hasty", "1/min")] {
            let block = client(name, name).rate_limit(rate).toml();
            let key = block.lines().find(|line| line.starts_with("api_key_sha256")).unwrap();
            setup.clients.push_str(&block.replace(key, &issuer.rule(&format!(", groups = [\"{name}\"]"))));
            setup.clients.push_str(&format!("origins = [\"http://127.0.0.1:{port}\"]\n"));
        }
    })
    .await;

    let (sender, mut results) = mpsc::channel(1);
    let server = Arc::new(PageServer { signer, issuer, done: sender });
    let pages = Router::new()
        .route("/page", get(|| async { Html(include_str!("page.html")) }))
        .route("/token", get(token))
        .route("/done", post(done))
        .with_state(server);
    let pages = tokio::spawn(async move { axum::serve(listener, pages).await.unwrap() });

    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("gateway", &format!("http://{}", world.address))
        .append_pair("conversation", &path)
        .append_pair("window", &window_path())
        .append_pair("week", WEEK)
        .append_pair("transcript", &transcript_path())
        .append_pair("session", &format!(r#"{{"sessionId":"{session}"}}"#))
        .append_pair("forbidden", &window_path().replace(EXAMPLE_ACCOUNT, OTHER_ACCOUNT))
        .finish();
    let listed = seen("127.0.0.1", port, &query, &mut results).await;

    for name in ["first", "second", "window", "transcript", "one"] {
        assert_eq!(listed[name]["status"], 200, "{name}: {listed:#}");
    }
    let headers = &listed["first"]["seen"];
    for name in ["etag", "cache-status", "ratelimit", "ratelimit-policy", "x-request-id"] {
        assert!(headers[name].is_string(), "{name}: {headers:#}");
    }
    assert_eq!(listed["second"]["body"], listed["first"]["body"]);
    assert_eq!((&listed["unchanged"]["status"], &listed["unchanged"]["body"]), (&304.into(), &"".into()));
    assert!(listed["unchanged"]["seen"]["age"].is_string());
    // The second GET was the browser's own revalidation, which its script sees as a 200.
    let not_modified =
        r#"http_server_request_duration_seconds_count{route="conversation",method="GET",status="304"}"#;
    assert_eq!(world.metric(not_modified).await, 2.0);
    let preflights =
        r#"http_server_request_duration_seconds_count{route="none",method="OPTIONS",status="204"}"#;
    assert!(world.metric(preflights).await >= 3.0);

    for (name, status, kind) in [
        ("forbidden", 403, "forbidden"),
        ("unauthenticated", 401, "unauthenticated"),
        ("limited", 429, "quota-exceeded"),
    ] {
        let answer = &listed[name];
        assert_eq!(
            (&answer["status"], &answer["type"]),
            (&status.into(), &"application/problem+json".into())
        );
        let problem: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert!(problem["type"].as_str().unwrap().ends_with(kind), "{problem}");
    }
    assert_eq!(listed["limited"]["seen"]["retry-after"], "60");

    // The same page under the machine's other name is another origin.
    let calls = world.standin.count();
    let unlisted = seen("localhost", port, &query, &mut results).await;
    for (name, result) in unlisted.as_object().unwrap() {
        assert_eq!(result["blocked"], "TypeError", "{name}: {result:#}");
    }
    assert_eq!(world.standin.count(), calls, "refused before anything was sent");
    pages.abort();
}
