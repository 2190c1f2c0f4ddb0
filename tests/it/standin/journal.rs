//! What a test can put down beforehand, and read afterwards.

use std::time::Duration;

use kore_standin::{
    Clock, DemoIds, EXAMPLE_ACCOUNT, EXAMPLE_CLIENT_ID, EXAMPLE_STREAM, Options, Pool, example_secret,
};
use serde_json::{Value, json};

use super::{DAY, NOW, TODAY, World, details_path, live, sign, signed, today};

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

/// The window that the demo's lines ask for has the same rows whenever it is asked for.
#[tokio::test]
async fn the_demos_past_week_is_the_same_at_any_time_of_day() {
    let midnight = NOW - NOW.rem_euclid(DAY);
    for minute in [0, 6, 61, 720, 1_439] {
        let world = World::new(Options::demo(Clock::starting_at(midnight + minute * 60_000))).await;
        let week = json!({"startDate": "2025-10-01", "endDate": "2025-10-07"});
        assert_eq!(world.rows(week).await.len(), 5, "at minute {minute}");
    }
}
