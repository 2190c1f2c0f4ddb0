//! `/admin/explain` tells what would happen to a request and why, by the decisions that a real one goes
//! through, and neither calls the upstream nor spends anybody's limit.

use std::time::Duration;

use http::{Method, StatusCode};
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_CLIENT_ID, EXAMPLE_STREAM, OTHER_STREAM};
use serde_json::{Value, json};

use crate::world::{
    DAY, Got, HOUR, OPS_TOKEN, World, admin, before, client, conversation_path, got, transcript_path,
    window_path, with_ops_token,
};

fn closed() -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY))
}

async fn world() -> World {
    World::with(|setup| {
        with_ops_token(setup);
        setup.standin.conversations = vec![closed()];
        setup.clients = client("seldom", "kg_seldom").rate_limit("1/min").toml();
    })
    .await
}

async fn explain(world: &World, request: Value) -> Value {
    let told = got(admin(world, Method::POST, "/admin/explain", OPS_TOKEN).body(request.to_string())).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    told.json()
}

async fn supposed(world: &World, client: &str, path: &str) -> Value {
    explain(world, json!({ "client": client, "method": "GET", "path": path })).await
}

#[tokio::test]
async fn a_miss_becomes_a_hit_and_later_stale_and_nothing_is_fetched_by_asking() {
    let world = world().await;
    let path = conversation_path(&closed().conversation_id);
    let miss = supposed(&world, "reporting", &path).await;
    assert_eq!(miss["outcome"], "miss");
    assert_eq!(miss["route"]["name"], "conversation");
    assert_eq!(miss["policy"]["decision"], "allow");
    assert_eq!(miss["policy"]["account"], EXAMPLE_ACCOUNT);
    assert_eq!(miss["credential"], EXAMPLE_CLIENT_ID);
    assert_eq!((&miss["quota"]["pool"], &miss["quota"]["left"]), (&json!("account"), &json!(60)));
    assert_eq!(world.standin.count(), 0);

    assert_eq!(world.get(&path).await.status, StatusCode::OK);
    let hit = supposed(&world, "reporting", &path).await;
    assert_eq!((&hit["outcome"], &hit["quota"]["left"]), (&json!("hit"), &json!(59)));
    assert!(hit["ttl"].as_u64().unwrap() > HOUR.as_secs());
    assert_eq!(hit["key"], miss["key"]);

    world.advance(3 * DAY);
    assert_eq!(supposed(&world, "reporting", &path).await["outcome"], "miss");
    assert_eq!(world.standin.count(), 1);
}

#[tokio::test]
async fn what_would_be_refused_is_told_with_the_refusal() {
    let world = world().await;
    let path = conversation_path(&closed().conversation_id);
    let elsewhere = path.replace(EXAMPLE_STREAM, OTHER_STREAM);
    for (client, method, path, kind) in [
        ("nobody", "GET", path.as_str(), "unauthenticated"),
        ("neighbour", "GET", &path, "forbidden"),
        ("reporting", "GET", &elsewhere, "forbidden"),
        ("reporting", "GET", "/elsewhere", "not-found"),
        ("reporting", "DELETE", &path, "method-not-allowed"),
        ("reporting", "GET", &format!("{path}?limit=0"), "invalid-request"),
    ] {
        let told = explain(&world, json!({ "client": client, "method": method, "path": path })).await;
        assert_eq!(told["outcome"], "refused", "{told}");
        let wanted = format!("/problems/{kind}");
        assert_eq!(told["refusal"]["type"], wanted, "{told}");
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn the_canonical_form_shows_why_two_requests_are_one() {
    let world = world().await;
    let path = window_path();
    let one =
        json!({ "startDate": "2026-02-20", "endDate": "2026-02-21", "timeZoneOffset": 0, "queues": [] });
    let two = r#"{"timeZoneOffset":0.0,"endDate":"2026-02-21","startDate":"2026-02-20 00:00:00"}"#;
    let supposed = |query: &str, body: Value| json!({ "client": "reporting", "method": "POST", "path": path, "query": query, "body": body });
    let first = explain(&world, supposed("limit=100", one)).await;
    let second = explain(&world, supposed("offset=0", json!(two))).await;
    assert_eq!(first["key"], second["key"], "{first} {second}");
    assert_eq!(first["canonical"]["query"], "limit=100&offset=0");
    let faulty = explain(&world, supposed("", json!({ "startDate": "2026-02-20" }))).await;
    assert_eq!(faulty["refusal"]["errors"].as_array().unwrap().len(), 2, "{faulty}");
    let transcript = json!({ "client": "reporting", "method": "POST", "path": transcript_path(), "body": { "sessionId": "s1" } });
    assert_eq!(explain(&world, transcript).await["quota"]["pool"], "bot");
}

#[tokio::test]
async fn asking_spends_no_limit() {
    let world = world().await;
    let path = conversation_path(&closed().conversation_id);
    for _ in 0..5 {
        assert_eq!(supposed(&world, "seldom", &path).await["outcome"], "miss");
    }
    assert_eq!(got(world.request(Method::GET, &path, "kg_seldom")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_waited_for_or_refused_with_its_time() {
    let world = World::with(|setup| {
        with_ops_token(setup);
        setup.credentials = "[accounts.quota]\naccount = [\"1/min\"]\n".to_owned();
        setup.without = vec!["neighbour", "one-bot"];
        setup.standin.conversations = vec![closed()];
    })
    .await;
    world.get(&conversation_path("c-unknown")).await;
    let path = conversation_path(&closed().conversation_id);
    let refused = supposed(&world, "reporting", &path).await;
    assert_eq!(refused["outcome"], "refused", "{refused}");
    assert!(refused["refusal"]["type"].as_str().unwrap().ends_with("#temporary-reduced-capacity"));
    assert!(refused["refusal"]["retry_after"].as_u64().unwrap() > 30, "{refused}");
    world.advance(Duration::from_secs(45));
    let waited = supposed(&world, "reporting", &path).await;
    assert_eq!(waited["outcome"], "miss", "{waited}");
    assert!(waited["because"].as_str().unwrap().contains("quota"));
}

#[tokio::test]
async fn only_the_ops_token_opens_it_and_a_wrong_body_is_told_what_is_right() {
    let world = world().await;
    let ask = async |token: &str, body: &'static str| -> Got {
        got(admin(&world, Method::POST, "/admin/explain", token).body(body)).await
    };
    assert_eq!(ask("wrong", "{}").await.status, StatusCode::UNAUTHORIZED);
    for body in ["", "{}", "[]", r#"{"client":"a","method":"GET","path":"/","more":1}"#] {
        let refused = ask(OPS_TOKEN, body).await;
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (StatusCode::BAD_REQUEST, "invalid-request"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_body_is_explained_as_it_is_spelled() {
    let world = world().await;
    let body = r#"{"sessionId":"s","future":1.02222222222222222222222222}"#;
    let path = transcript_path();
    for body in [body.to_owned(), json!(body).to_string()] {
        let request = format!(r#"{{"client":"reporting","method":"POST","path":"{path}","body":{body}}}"#);
        let told = got(admin(&world, Method::POST, "/admin/explain", OPS_TOKEN).body(request)).await.json();
        let canonical = told["canonical"]["body"].as_str().unwrap();
        assert!(canonical.contains("1.02222222222222222222222222"), "{told}");
    }
}
