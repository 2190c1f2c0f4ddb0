//! No secret and nothing of anybody's person is in a log, a metric, an error, the audit, the
//! configuration as shown, or what the gateway's own types print.

use std::fmt::Debug;
use std::io::Write;
use std::sync::{Arc, Mutex};

use http::Method;
use jsonwebtoken::Algorithm;
use kore_standin::{Fault, example_secret, other_secret};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::issuer::{Issuer, Signer};
use crate::world::{
    Got, MINUTE, NEIGHBOUR, ONE_BOT, OPS_TOKEN, REPORTING, World, admin, change_config, client,
    conversation_path, got, reload, transcript_path, window_path, with_ops_token,
};

/// Everything that is logged, by every crate, at the finest level.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

const BODY: &str = r#"{"_id":"c-1","status":"CLOSED","endTime":"2026-02-01T00:00:00Z","userInfo":
  {"firstName":"canary-name","email":"canary@mail.example","ipAddress":"203.0.113.77","phone":"+15550100199",
   "card":"4111111111111111","token":"canary-in-body"},"note":"canary-note"}"#;

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

#[tokio::test]
async fn nothing_secret_or_personal_is_written_down_anywhere() {
    let captured = Captured::default();
    let subscriber =
        tracing_subscriber::fmt().with_writer(captured.clone()).with_max_level(tracing::Level::TRACE);
    // Whoever was first has the log; then this test has nothing to look at and must not pass.
    subscriber.with_ansi(false).try_init().expect("no other log in this process");

    let signer = Signer::new("ed", Algorithm::EdDSA);
    let issuer = Issuer::publishing(&[&signer]).await;
    let mut audit = std::path::PathBuf::new();
    let mut access = std::path::PathBuf::new();
    let world = World::with(|setup| {
        with_ops_token(setup);
        audit = setup.secrets.path().join("audit.jsonl");
        access = setup.secrets.path().join("access.jsonl");
        setup.config.push_str(&format!(
            "log.access = true\nlog.access_to = \"{}\"\naudit.to = \"{}\"\n",
            access.display(),
            audit.display()
        ));
        setup.config.push_str("[redaction.r]\nremove = [\"/userInfo/ipAddress\"]\nkinds = [\"card\"]\n");
        setup.clients = client("desk", "kg_canary-desk").rate_limit("1000/min").toml() + &issuer.rule("");
        setup.clients.push_str(&client("slow", "kg_canary-slow").rate_limit("1/h").toml());
        setup.clients.push_str("redact = [\"r\"]\n");
    })
    .await;
    world.standin.serve_body("/conversations/c-1", 200, "application/json", BODY);
    let token = signer.token(&issuer.claims("asha"));
    let forged = format!("{}x", signer.token(&json!({ "iss": issuer.url(), "email": "canary-claim" })));

    // Each way a request can go, with a canary wherever something can be put.
    let path = conversation_path("c-1");
    let mut answers: Vec<Got> = Vec::new();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let url = |path: &str| format!("http://{}{path}", world.address);
    let with = |request: reqwest::RequestBuilder| {
        request
            .header("cookie", "session=canary-cookie")
            .header("x-request-id", "canary request id with spaces")
            .header("user-agent", "canary-agent")
            .header("referer", "https://desk.example.com/?q=canary-referer")
    };
    let seen = |path: &str, key: &str| with(world.request(Method::GET, path, key));
    for request in [
        seen(&path, "kg_canary-slow"),
        seen(&path, "kg_canary-slow"),
        seen(&path, "kg_canary-unknown"),
        seen(&path, NEIGHBOUR),
        seen(&format!("{path}?api_key=canary-in-url"), REPORTING),
        with(http.get(url(&path)).header("auth", "canary-first").header("x-api-key", "canary-second")),
        with(http.get(url(&path)).bearer_auth(&token)),
        with(http.get(url(&path)).bearer_auth(&forged)),
        with(http.get(url(&path)).basic_auth("canary-user", Some("canary-password"))),
        with(world.post_request(&window_path(), r#"{"startDate":5,"x":"canary-in-request"}"#, REPORTING)),
        with(world.post_request(&transcript_path(), r#"{"callId":"1","lang":"canary-lang"}"#, REPORTING)),
        with(world.post_request(&transcript_path(), "{\"callId\":\"canary-broken", REPORTING)),
        with(http.get(url("/canary-path?x=canary-query")).header("x-api-key", REPORTING)),
    ] {
        answers.push(got(request).await);
    }
    let shown_bodies = [answers.remove(0), answers.remove(5)];
    assert!(shown_bodies.iter().all(|answer| answer.status == 200), "{shown_bodies:?}");
    for fault in [Fault::Unauthorized401, Fault::Reset, Fault::Html200, Fault::Status(500), Fault::CutBody] {
        world.standin.fault_next(2, fault);
        answers.push(got(seen(&conversation_path("c-2"), REPORTING)).await);
    }
    // A secret written where its place should be is refused, and not repeated.
    change_config(&world, |written| {
        written.replacen("client_secret = ", "client_secret = \"canary-written\" #", 1)
    });
    answers.push(reload(&world).await);
    answers.push(got(admin(&world, Method::GET, "/admin/config", OPS_TOKEN)).await);
    answers.push(got(admin(&world, Method::GET, "/admin/config", "canary-ops-guess")).await);
    answers.push(world.ops("/metrics").await);
    answers.push(world.ops("/readyz?verbose").await);
    let snapshot = world.app.snapshot();
    let printed: [&dyn Debug; 3] = [&snapshot.config, &snapshot.config.clients, &snapshot.config.accounts];

    let log = text(&captured.0.lock().unwrap());
    assert!(snapshot.access_log.flush(MINUTE));
    let access = std::fs::read_to_string(access).unwrap();
    let audit = std::fs::read_to_string(audit).unwrap();
    let debug = format!("{printed:?}");
    let told: String = answers.iter().map(|got| format!("{:?} {}\n", got.headers, text(&got.body))).collect();
    // Each place is one that something is written to.
    assert!(log.contains("reloaded"), "{log}");
    assert!(access.contains(r#""client":"slow""#), "{access}");
    assert!(audit.lines().count() >= 2 && audit.contains("asha"), "{audit}");
    assert!(told.contains("quota-exceeded") && told.contains("kore_gateway_build_info"), "{told}");

    let canaries = [
        REPORTING,
        NEIGHBOUR,
        ONE_BOT,
        OPS_TOKEN,
        example_secret(),
        other_secret(),
        "kg_canary-desk",
        "kg_canary-slow",
        "kg_canary-unknown",
        "canary-in-url",
        "canary-first",
        "canary-second",
        token.as_str(),
        forged.as_str(),
        "canary-claim",
        "canary-user",
        "canary-password",
        "Y2FuYXJ5LXVzZXI6",
        "canary-cookie",
        "canary-agent",
        "canary-referer",
        "canary-in-request",
        "canary-lang",
        "canary-broken",
        "canary-path",
        "canary-query",
        "canary request",
        "canary-written",
        "canary-ops-guess",
        "canary-name",
        "canary@mail.example",
        "203.0.113.77",
        "+15550100199",
        "4111111111111111",
        "canary-in-body",
        "canary-note",
        "eyJ",
    ];
    println!("{} canaries, {} bytes of log", canaries.len(), log.len());
    // What the caller itself sent wrong may come back to the caller alone.
    let echoed = ["canary-broken", "canary-lang"];
    for canary in canaries {
        for (place, written) in
            [("log", &log), ("access log", &access), ("audit", &audit), ("Debug", &debug), ("answers", &told)]
        {
            if let Some(at) = written.find(canary)
                && !(place == "answers" && echoed.contains(&canary))
            {
                let around =
                    written.get(at.saturating_sub(200)..(at + 100).min(written.len())).unwrap_or_default();
                panic!("{canary} is in {place}: …{around}…");
            }
        }
    }
    assert!(canaries.len() >= 20);
}
