//! The upstream sees the gateway's credential and the canonical query, and nothing of the caller's.

use http::Method;
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault, OTHER_ACCOUNT, OTHER_STREAM};

use crate::world::{
    DAY, HOUR, NEIGHBOUR, REPORTING, World, before, conversation_path, got, transcript_path, window_path,
};

const WINDOW: &str = r#"{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":0}"#;

#[tokio::test]
async fn nothing_of_the_callers_reaches_the_upstream() {
    let world = World::new().await;
    let private = [
        ("accountId", "canary"),
        ("iId", "canary"),
        ("cookie", "session=canary"),
        ("forwarded", "for=canary"),
        ("x-forwarded-for", "canary"),
        ("x-forwarded-host", "canary"),
        ("referer", "https://canary.example"),
        ("origin", "https://canary.example"),
        ("user-agent", "canary"),
        ("accept-language", "canary"),
        ("tracestate", "canary=1"),
        ("x-request-id", "canary"),
        ("x-timezone-offset", "canary"),
        ("connection", "keep-alive, x-canary"),
        ("x-canary", "canary"),
    ];
    let requests = [
        world.request(Method::GET, &conversation_path("c-1"), REPORTING),
        world.post_request(&window_path(), WINDOW, REPORTING),
        world.post_request(&transcript_path(), r#"{"callId":"1"}"#, REPORTING),
    ];
    for mut request in requests {
        for (name, value) in private {
            request = request.header(name, value);
        }
        got(request).await;
    }
    let calls = world.standin.calls();
    assert_eq!(calls.len(), 3);
    for call in &calls {
        assert!(!format!("{:?}", call.headers).contains("canary"), "{:?}", call.headers);
        let mut names: Vec<_> = call.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), call.headers.len(), "a header twice: {names:?}");
        let allowed = [
            "accept",
            "accept-encoding",
            "accountid",
            "auth",
            "content-length",
            "content-type",
            "host",
            "iid",
            "user-agent",
        ];
        assert!(names.iter().all(|name| allowed.contains(name)), "{names:?}");
        assert_eq!(call.header("accountid"), Some(EXAMPLE_ACCOUNT));
        assert!(call.app_id.is_some(), "no valid token");
    }
    assert_eq!(calls[0].header("iid"), Some(EXAMPLE_STREAM));
    world.assert_no_violations();
}

/// A whole account's window carries `iId` only where the account has one stream: any other choice
/// could narrow the answer.
#[tokio::test]
async fn a_window_names_a_stream_only_where_the_account_has_only_one() {
    let world = World::new().await;
    world.post(&window_path(), WINDOW).await;
    let theirs = window_path().replace(EXAMPLE_ACCOUNT, OTHER_ACCOUNT);
    got(world.post_request(&theirs, WINDOW, NEIGHBOUR)).await;
    let calls = world.standin.calls();
    assert_eq!(calls[0].header("iid"), None);
    assert_eq!(calls[1].header("iid"), Some(OTHER_STREAM));
    assert_eq!(calls[1].header("accountid"), Some(OTHER_ACCOUNT));
    world.assert_no_violations();
}

#[tokio::test]
async fn the_canonical_query_goes_upstream_with_its_defaults_written_out() {
    let world = World::new().await;
    let body = r#"{"timeZoneOffset":0,"endDate":"2026-02-22","startDate":"2026-02-16 00:00:00","bots":[],"x":1.0,
        "selectedFields":["skills","customerinfo","skills"],"queues":["b","a"]}"#;
    world.post(&format!("{}?new=%41", window_path()), body).await;
    let call = &world.standin.calls()[0];
    assert_eq!(call.query, "limit=100&new=A&offset=0");
    assert_eq!(
        call.body,
        concat!(
            r#"{"endDate":"2026-02-22","queues":["a","b"],"selectedFields":["customerinfo","skills"],"#,
            r#""startDate":"2026-02-16","timeZoneOffset":0,"x":1}"#
        )
    );
    world.post(&transcript_path(), r#"{"conversationId":"c-1","sessionId":"s1","lang":"en"}"#).await;
    assert_eq!(world.standin.calls()[1].body, r#"{"isSummaryRequired":false,"sessionId":"s1","skip":0}"#);
    world.assert_no_violations();
}

#[tokio::test]
async fn one_token_serves_many_calls_and_is_renewed_before_it_expires() {
    let world = World::new().await;
    let minted =
        format!(r#"kore_gateway_tokens_minted_total{{credential="{}"}}"#, kore_standin::EXAMPLE_CLIENT_ID);
    for n in 0..20 {
        world.get(&conversation_path(&format!("c-{n}"))).await;
    }
    assert_eq!(world.metric(&minted).await, 1.0);
    // Four fifths of an hour are 48 minutes.
    world.advance(HOUR * 47 / 60);
    world.get(&conversation_path("c-20")).await;
    assert_eq!(world.metric(&minted).await, 1.0);
    world.advance(HOUR / 60);
    world.get(&conversation_path("c-21")).await;
    assert_eq!(world.metric(&minted).await, 2.0);
    let tokens: std::collections::HashSet<_> =
        world.standin.calls().into_iter().map(|call| call.token_id).collect();
    assert_eq!(tokens.len(), 2);
    world.assert_no_violations();
}

#[tokio::test]
async fn a_refused_token_is_minted_anew_once_and_then_it_is_a_502_that_names_no_credential() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::of(vec![conversation]).await;
    world.standin.fault_next(1, Fault::Unauthorized401);
    assert_eq!(world.get(&path).await.status, 200);
    assert_eq!(world.standin.count(), 2);

    world.standin.forget();
    world.standin.fault(Some(Fault::Unauthorized401));
    let refused = world.get(&conversation_path("c-2")).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (502, "upstream-refused".to_owned()));
    assert!(!refused.json()["detail"].as_str().unwrap().contains(kore_standin::EXAMPLE_CLIENT_ID));
    assert_eq!(world.standin.count(), 2);
    let minted =
        format!(r#"kore_gateway_tokens_minted_total{{credential="{}"}}"#, kore_standin::EXAMPLE_CLIENT_ID);
    assert_eq!(world.metric(&minted).await, 3.0);
}

#[tokio::test]
async fn an_app_that_enforces_jti_gets_a_fresh_token_for_every_attempt() {
    let world = World::with(|setup| {
        setup.standin.accounts[0].apps[0].enforce_jti = true;
        setup.credentials = "jti = true".to_owned();
    })
    .await;
    for n in 0..5 {
        let answer = world.get(&conversation_path(&format!("c-{n}"))).await;
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    let calls = world.standin.calls();
    let tokens: std::collections::HashSet<_> = calls.iter().map(|call| call.token_id.clone()).collect();
    assert_eq!(tokens.len(), 5);
    world.assert_no_violations();
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let world = World::new().await;
    world.standin.fault(Some(Fault::Redirect(format!("{}/elsewhere", world.standin.url()))));
    let answer = world.get(&conversation_path("c-1")).await;
    assert_eq!((answer.status.as_u16(), answer.problem()), (502, "upstream-invalid".to_owned()));
    assert_eq!(world.standin.count(), 1);
}
