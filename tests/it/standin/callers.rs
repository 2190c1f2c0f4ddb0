//! Who may call, and where: contract §1, §2 and the table of §7.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use kore_standin::{
    Account, App, EXAMPLE_ACCOUNT, EXAMPLE_CLIENT_ID, EXAMPLE_STREAM, OTHER_ACCOUNT, OTHER_CLIENT_ID,
    OTHER_STREAM, Options, Scope, example_secret, other_secret,
};
use serde_json::{Value, json};

use super::{
    NOW, World, conversation_path, details_path, error, live, options, rows_of, sign, signed, transcript_path,
};

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
