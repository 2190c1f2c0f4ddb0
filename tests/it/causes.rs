//! The access line names what exactly kept a request from its answer; its caller is told nothing of the gateway's
//! credentials, pools and upstreams.

use std::path::PathBuf;

use http::Method;
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_CLIENT_ID, EXAMPLE_STREAM, Fault, OTHER_STREAM};
use serde_json::{Value, json};

use crate::world::{
    DAY, Got, MINUTE, ONE_BOT, OPS_TOKEN, REPORTING, Setup, World, admin, before, client, conversation_path,
    got, transcript_path, with_ops_token,
};

fn logged(setup: &mut Setup) -> PathBuf {
    let file = setup.secrets.path().join("access.jsonl");
    setup.config.push_str(&format!("log = {{ access = true, access_to = {file:?} }}\n"));
    file
}

async fn world(change: impl FnOnce(&mut Setup)) -> (World, PathBuf) {
    let mut log = PathBuf::new();
    let world = World::with(|setup| {
        log = logged(setup);
        change(setup);
    })
    .await;
    (world, log)
}

/// The access line of an answer.
fn line(world: &World, log: &PathBuf, answer: &Got) -> Value {
    world.app.snapshot().access_log.flush(MINUTE);
    let text = std::fs::read_to_string(log).unwrap();
    let id = answer.header("x-request-id");
    let line = text.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{id} in {text}"));
    serde_json::from_str(line).unwrap()
}

fn tells_nothing(answer: &Got) {
    let body = String::from_utf8_lossy(&answer.body);
    for secret in [EXAMPLE_CLIENT_ID, "127.0.0.1", "60/min"] {
        assert!(!body.contains(secret), "{secret} in {body}");
    }
}

/// A method may be as long as a head; a line must not.
#[tokio::test]
async fn a_method_of_any_length_is_one_short_word_in_the_line() {
    let (world, log) = world(|_| ()).await;
    let method = Method::from_bytes("M".repeat(15_000).as_bytes()).unwrap();
    for (path, status) in [(conversation_path("c-1"), 405), ("/nothing".to_owned(), 404)] {
        let answer = got(world.request(method.clone(), &path, REPORTING)).await;
        assert_eq!(answer.status, status);
        let line = line(&world, &log, &answer);
        assert_eq!(line["method"], "_OTHER");
        assert!(line.to_string().len() < 400, "{line}");
    }
}

#[tokio::test]
async fn a_refused_credential_is_named_in_the_line_and_not_to_the_caller() {
    let (world, log) = world(|_| ()).await;
    world.standin.fault(Some(Fault::Unauthorized401));
    let answer = world.get(&conversation_path("c-1")).await;
    assert_eq!((answer.status.as_u16(), answer.problem()), (502, "upstream-refused".to_owned()));
    tells_nothing(&answer);
    let line = line(&world, &log, &answer);
    assert_eq!(
        (&line["cause"], &line["concerns"]),
        (&json!("credential-refused"), &json!(EXAMPLE_CLIENT_ID))
    );
}

#[tokio::test]
async fn a_used_up_pool_and_an_open_breaker_are_named_in_the_line() {
    let (world, log) = world(|setup| {
        setup.credentials = "[accounts.quota]\naccount = [\"1/h\"]\nbot = [\"1/h\"]\n".to_owned();
    })
    .await;
    for (path, body, cause) in [
        (conversation_path("c-1"), None, "account-quota"),
        (transcript_path(), Some(r#"{"sessionId":"69a51b80c0ffee0000000001"}"#), "bot-quota"),
    ] {
        let mut last = None;
        for n in 0..2 {
            let path = format!("{path}?n={n}");
            let request = match body {
                Some(body) => world.request(Method::POST, &path, REPORTING).body(body),
                None => world.request(Method::GET, &path, REPORTING),
            };
            last = Some(got(request).await);
        }
        let answer = last.unwrap();
        assert_eq!(answer.status, 503, "{answer:?}");
        tells_nothing(&answer);
        let line = line(&world, &log, &answer);
        assert_eq!((&line["cause"], &line["concerns"]), (&json!(cause), &json!(EXAMPLE_ACCOUNT)));
    }

    let (world, log) = self::world(|_| ()).await;
    world.standin.fault(Some(Fault::Status(500)));
    for n in 0..5 {
        world.get(&conversation_path(&format!("c-{n}"))).await;
    }
    let answer = world.get(&conversation_path("c-9")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    tells_nothing(&answer);
    let line = line(&world, &log, &answer);
    assert_eq!(line["cause"], "breaker-open");
    assert!(line["concerns"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{line}");
}

#[tokio::test]
async fn what_policy_and_limits_refuse_has_its_word_too() {
    let (world, log) = world(|setup| {
        setup.clients = client("slow", "kg_slow").rate_limit("1/h").toml();
    })
    .await;
    let path = conversation_path("c-1");
    let theirs = path.replace(EXAMPLE_STREAM, OTHER_STREAM);
    let session = r#"{"sessionId":"69a51b80c0ffee0000000001"}"#;
    got(world.request(Method::GET, &path, "kg_slow")).await;
    for (request, status, cause) in [
        (world.request(Method::GET, &path, "kg_wrong"), 401, "unknown-key"),
        (world.request(Method::GET, &path, "kg_slow"), 429, "client-limit"),
        (world.request(Method::GET, &theirs, ONE_BOT), 403, "bot-denied"),
        (world.request(Method::POST, &transcript_path(), ONE_BOT).body(session), 403, "session-unproven"),
    ] {
        let answer = got(request).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        assert_eq!(line(&world, &log, &answer)["cause"], cause, "{answer:?}");
        assert!(!String::from_utf8_lossy(&answer.body).contains(cause));
    }
}

#[tokio::test]
async fn explain_says_which_part_of_the_policy_denied_and_what_is_kept_from_a_client_of_some_bots() {
    let theirs = Conversation::closed_at(OTHER_STREAM, 1, before(DAY));
    let path = conversation_path(&theirs.conversation_id);
    let world = World::with(|setup| {
        with_ops_token(setup);
        setup.clients = client("no-windows", "kg_no-windows")
            .rate_limit("100/s")
            .toml()
            .replace(r#""conversation", "interaction_details", "#, r#""interaction_details", "#);
    })
    .await;
    let explain = async |request: Value| {
        let request = admin(&world, Method::POST, "/admin/explain", OPS_TOKEN).body(request.to_string());
        got(request).await.json()
    };
    for (client, path, denied) in [
        ("no-windows", path.clone(), "route"),
        ("neighbour", path.clone(), "account"),
        ("one-bot", path.replace(EXAMPLE_STREAM, OTHER_STREAM), "bot"),
    ] {
        let told = explain(json!({ "client": client, "method": "GET", "path": path })).await;
        assert_eq!(told["policy"]["denied"], denied, "{told}");
        assert_eq!(told["outcome"], "refused");
    }
    // A stored record of another bot is refused, as a real request is.
    let body = json!({
        "_id": theirs.conversation_id, "botId": OTHER_STREAM, "botSessionId": theirs.session_id,
        "status": "CLOSED", "endTime": "2026-02-01T00:00:00Z",
    });
    world.standin.serve_body("/conversations/", 200, "application/json", body.to_string());
    assert!(world.get(&path).await.cache_status().ends_with("; stored"));
    let told = explain(json!({ "client": "one-bot", "method": "GET", "path": path })).await;
    assert_eq!(
        (&told["outcome"], &told["refusal"]["cause"]),
        (&json!("refused"), &json!("bot-denied")),
        "{told}"
    );
    let session = json!({ "sessionId": theirs.session_id });
    let transcript =
        json!({ "client": "one-bot", "method": "POST", "path": transcript_path(), "body": session });
    assert_eq!(explain(transcript).await["refusal"]["cause"], "bot-denied");
    let unknown = json!({ "sessionId": "69a51b80c0ffee0000000001" });
    let transcript =
        json!({ "client": "one-bot", "method": "POST", "path": transcript_path(), "body": unknown });
    assert_eq!(explain(transcript).await["refusal"]["cause"], "session-unproven");
    let named = json!({ "conversationId": "c-69a51b80-0000-4000-8000-000000000001" });
    let transcript =
        json!({ "client": "one-bot", "method": "POST", "path": transcript_path(), "body": named });
    let told = explain(transcript).await;
    assert_eq!(told["outcome"], "miss", "{told}");
    assert!(told["because"].as_str().unwrap().contains("record of its conversation"), "{told}");
}
