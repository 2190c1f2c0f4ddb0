//! A transcript is its bot's clients' alone, also where the upstream would find it under any bot of the account.
//! It names no bot itself, so other answers have to have told whose session it is.

use std::time::Duration;

use http::Method;
use kore_gateway::cache::Purge;
use kore_standin::{Account, Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM};
use serde_json::json;

use crate::world::{DAY, Got, REPORTING, Setup, World, before, client, got};

/// A bot of the first account that is not the example's.
const OTHERS: &str = "st-24ccdea9-de4e-5139-923f-883c53ffcccc";
const A: &str = "kg_client-of-a";
const B: &str = "kg_client-of-b";

fn of_bot(bot: &str) -> Conversation {
    Conversation::closed_at(bot, if bot == OTHERS { 8 } else { 7 }, before(DAY))
}

fn setup(setup: &mut Setup) {
    let mut account = Account::example();
    account.streams.push(OTHERS.to_owned());
    setup.standin.accounts = vec![account, Account::other()];
    setup.standin.conversations = vec![of_bot(EXAMPLE_STREAM), of_bot(OTHERS)];
    setup.standin.switches.held_to_path = false;
    setup.clients = client("a", A).bots(EXAMPLE_STREAM).rate_limit("1000/min").toml()
        + &client("b", B).bots(OTHERS).rate_limit("1000/min").toml();
}

async fn transcript(world: &World, bot: &str, body: serde_json::Value, key: &str) -> Got {
    let path = format!("/api/public/bot/{bot}/conversationDetails");
    got(world.request(Method::POST, &path, key).body(body.to_string())).await
}

async fn record(world: &World, bot: &str, id: &str, key: &str) -> Got {
    let path = format!("/agentassist/api/v1/public/{bot}/conversations/{id}");
    got(world.request(Method::GET, &path, key)).await
}

async fn window(world: &World) -> Got {
    let path = format!("/agentassist/api/public/analytics/account/{EXAMPLE_ACCOUNT}/v2/interactionDetails");
    let body = r#"{"startDate":"2026-02-27","endDate":"2026-03-02","timeZoneOffset":0}"#;
    got(world.request(Method::POST, &path, REPORTING).body(body)).await
}

fn ids(conversation: &Conversation) -> [serde_json::Value; 3] {
    [
        json!({ "sessionId": conversation.session_id }),
        json!({ "callId": conversation.call_id }),
        json!({ "conversationId": conversation.conversation_id }),
    ]
}

#[tokio::test]
async fn a_session_that_is_known_to_be_another_bots_is_refused_without_a_call() {
    let world = World::with(setup).await;
    let theirs = of_bot(OTHERS);
    assert_eq!(window(&world).await.status, 200);
    assert_eq!(record(&world, OTHERS, &theirs.conversation_id, B).await.status, 200);
    let calls = world.standin.count();
    for body in ids(&theirs) {
        let answer = transcript(&world, EXAMPLE_STREAM, body.clone(), A).await;
        assert_eq!(answer.status, 403, "{body}: {answer:?}");
    }
    assert_eq!(world.standin.count(), calls);
    // Their own client gets it, and it is stored under the bot it is proven to be of.
    let body = ids(&theirs)[0].clone();
    assert_eq!(transcript(&world, OTHERS, body.clone(), B).await.status, 200);
    assert!(transcript(&world, OTHERS, body.clone(), B).await.is_hit());
    assert_eq!(transcript(&world, EXAMPLE_STREAM, body, A).await.status, 403);
}

#[tokio::test]
async fn a_session_that_is_known_to_be_allowed_is_served_and_stored() {
    let world = World::with(setup).await;
    let ours = of_bot(EXAMPLE_STREAM);
    assert_eq!(window(&world).await.status, 200);
    let body = ids(&ours)[0].clone();
    assert_eq!(transcript(&world, EXAMPLE_STREAM, body.clone(), A).await.status, 200);
    assert!(transcript(&world, EXAMPLE_STREAM, body, A).await.is_hit());
}

#[tokio::test]
async fn a_session_of_which_nobody_has_told_is_refused_unless_the_account_says_otherwise() {
    for (accounts, expected) in [("", 403), ("unproven_sessions = \"pass\"", 200)] {
        let world = World::with(|it| {
            setup(it);
            it.accounts = accounts.to_owned();
        })
        .await;
        let ours = of_bot(EXAMPLE_STREAM);
        let [by_session, by_call, _] = ids(&ours);
        let before = world.standin.count();
        let answer = transcript(&world, EXAMPLE_STREAM, by_session, A).await;
        assert_eq!(answer.status, expected, "{answer:?}");
        assert_eq!(world.standin.count() - before, usize::from(expected == 200));
        // What nobody has told of is not stored in either case.
        assert!(expected != 200 || !answer.cache_status().ends_with("; stored"), "{answer:?}");
        let answer = transcript(&world, EXAMPLE_STREAM, by_call, A).await;
        assert_eq!(answer.status, expected, "{answer:?}");
        // A word that comes later counts at once.
        assert_eq!(window(&world).await.status, 200);
        let theirs = ids(&of_bot(OTHERS))[0].clone();
        assert_eq!(transcript(&world, EXAMPLE_STREAM, theirs, A).await.status, 403);
    }
}

#[tokio::test]
async fn a_conversation_id_lets_one_call_tell_whose_the_session_is() {
    for (bot, expected, calls) in [(EXAMPLE_STREAM, 200, 2), (OTHERS, 403, 1)] {
        let conversation = of_bot(bot);
        for body in [
            json!({ "conversationId": conversation.conversation_id }),
            // The session counts; the conversation is named to tell whose it is.
            json!({ "sessionId": conversation.session_id, "conversationId": conversation.conversation_id }),
        ] {
            let world = World::with(setup).await;
            let answer = transcript(&world, EXAMPLE_STREAM, body.clone(), A).await;
            assert_eq!(answer.status, expected, "{body}: {answer:?}");
            assert_eq!(world.standin.count(), calls, "{body}");
        }
    }
}

/// Which bot a call went through, answers about its session say.
#[tokio::test]
async fn what_is_known_of_a_session_is_known_of_its_calls() {
    let world = World::with(|it| {
        setup(it);
        it.accounts = "unproven_sessions = \"pass\"".to_owned();
    })
    .await;
    let [ours, theirs] = [EXAMPLE_STREAM, OTHERS].map(of_bot);
    let row = |conversation: &Conversation, more: &str| {
        let (session, id) = (&conversation.session_id, &conversation.conversation_id);
        format!(
            r#"{{"sessionId":"{session}","conversationId":"{id}",{more},"finalStatus":"CLOSED","sessionEndTime":"2026-03-01T12:00:00"}}"#
        )
    };
    let instance = "st-24ccdea9-de4e-5139-923f-883c53ffdddd";
    // The rows tell the automation bots, which no record names; the records tell the calls.
    let rows = [(&ours, EXAMPLE_STREAM), (&theirs, OTHERS)]
        .map(|(of, bot)| row(of, &format!(r#""botId":"{instance}","automationBotIDs":["{bot}"]"#)));
    let body = format!(r#"{{"numResults":2,"data":[{},{}]}}"#, rows[0], rows[1]);
    world.standin.serve_body("/interactionDetails", 200, "application/json", body);
    for of in [&ours, &theirs] {
        let (session, id, call) = (&of.session_id, &of.conversation_id, &of.call_id);
        let body = format!(
            r#"{{"_id":"{id}","botId":"{instance}","botSessionId":"{session}","CallIDData":"{call}","status":"CLOSED","endTime":"2026-03-01T12:00:00Z"}}"#
        );
        world.standin.serve_body(&format!("conversations/{id}"), 200, "application/json", body);
        assert_eq!(record(&world, EXAMPLE_STREAM, id, REPORTING).await.status, 200);
    }
    assert_eq!(window(&world).await.status, 200);
    let by_call = |conversation: &Conversation| json!({ "callId": conversation.call_id });
    assert_eq!(transcript(&world, EXAMPLE_STREAM, by_call(&ours), A).await.status, 200);
    assert!(transcript(&world, EXAMPLE_STREAM, by_call(&ours), A).await.is_hit());
    let calls = world.standin.count();
    assert_eq!(transcript(&world, EXAMPLE_STREAM, by_call(&theirs), A).await.status, 403);
    assert_eq!(world.standin.count(), calls);
}

/// A session whose records name no bot, and whose row does: the refusal counts for each of its names.
#[tokio::test]
async fn a_name_of_which_no_answer_names_a_bot_is_its_sessions() {
    let world = World::with(|it| {
        setup(it);
        it.accounts = "unproven_sessions = \"pass\"".to_owned();
    })
    .await;
    let theirs = of_bot(OTHERS);
    let (session, id, call) = (&theirs.session_id, &theirs.conversation_id, &theirs.call_id);
    let nobodys = format!(
        r#"{{"_id":"{id}","botSessionId":"{session}","CallIDData":"{call}","status":"CLOSED","endTime":"2026-03-01T12:00:00Z"}}"#
    );
    world.standin.serve_body(&format!("conversations/{id}"), 200, "application/json", nobodys);
    assert_eq!(record(&world, OTHERS, id, REPORTING).await.status, 200);
    let row = format!(
        r#"{{"sessionId":"{session}","botId":"{OTHERS}","finalStatus":"CLOSED","sessionEndTime":"2026-03-01T12:00:00"}}"#
    );
    let body = format!(r#"{{"numResults":1,"data":[{row}]}}"#);
    world.standin.serve_body("/interactionDetails", 200, "application/json", body);
    assert_eq!(window(&world).await.status, 200);
    let calls = world.standin.count();
    for body in ids(&theirs) {
        assert_eq!(transcript(&world, EXAMPLE_STREAM, body.clone(), A).await.status, 403, "{body}");
    }
    assert_eq!(world.standin.count(), calls, "known before a call");
    for body in ids(&theirs) {
        assert_eq!(transcript(&world, OTHERS, body.clone(), B).await.status, 200, "{body}");
    }
}

/// What is stored is stored under its own bot, and so is what is cut from it.
#[tokio::test]
async fn a_transcript_that_can_be_cut_from_a_stored_one_is_known() {
    let world = World::with(|it| {
        setup(it);
        // What was told is forgotten soon.
        it.config = "cache.seen = 2".to_owned();
    })
    .await;
    let [ours, theirs] = [EXAMPLE_STREAM, OTHERS].map(of_bot);
    assert_eq!(record(&world, EXAMPLE_STREAM, &ours.conversation_id, A).await.status, 200);
    let session = json!({ "sessionId": ours.session_id });
    let with_summary = json!({ "sessionId": ours.session_id, "isSummaryRequired": true });
    assert_eq!(transcript(&world, EXAMPLE_STREAM, with_summary, A).await.status, 200);
    assert_eq!(record(&world, OTHERS, &theirs.conversation_id, B).await.status, 200);
    let calls = world.standin.count();
    let answer = transcript(&world, EXAMPLE_STREAM, session, A).await;
    assert!(answer.is_hit(), "{answer:?}");
    assert_eq!(world.standin.count(), calls);
}

#[tokio::test]
async fn nobody_stores_a_transcript_under_a_bot_that_it_is_not_proven_to_be_of() {
    let world = World::with(setup).await;
    let theirs = of_bot(OTHERS);
    assert_eq!(window(&world).await.status, 200);
    let body = ids(&theirs)[0].clone();
    // By a client that may see all, under the wrong bot.
    for _ in 0..2 {
        let answer = transcript(&world, EXAMPLE_STREAM, body.clone(), REPORTING).await;
        assert_eq!(answer.status, 200);
        assert!(answer.cache_status().ends_with("stored=?0; detail=unproven-bot"), "{answer:?}");
    }
    assert_eq!(transcript(&world, EXAMPLE_STREAM, body, A).await.status, 403);
}

#[tokio::test]
async fn a_client_of_some_bots_cannot_tell_a_conversation_of_another_bot_from_one_that_does_not_exist() {
    let world = World::with(setup).await;
    let theirs = of_bot(OTHERS);
    // As it is in the store, as it is fetched, and one that is nowhere.
    assert_eq!(record(&world, EXAMPLE_STREAM, &theirs.conversation_id, REPORTING).await.status, 200);
    let without_id = |answer: &Got| {
        let mut document = answer.json();
        document["request_id"].take();
        let mut headers = answer.headers.clone();
        for name in ["x-request-id", "ratelimit", "date"] {
            headers.remove(name);
        }
        (answer.status, document, headers)
    };
    let missing = record(&world, EXAMPLE_STREAM, "c-0000000-0000-0000-0000-000000000000", A).await;
    assert_eq!(missing.status, 403, "{missing:?}");
    let stored = record(&world, EXAMPLE_STREAM, &theirs.conversation_id, A).await;
    assert_eq!(without_id(&stored), without_id(&missing));
    world.app.cache.purge(Purge::All);
    world.clock.advance(Duration::from_secs(5));
    let fetched = record(&world, EXAMPLE_STREAM, &theirs.conversation_id, A).await;
    assert_eq!(without_id(&fetched), without_id(&missing));
    let path =
        format!("/agentassist/api/v1/public/{EXAMPLE_STREAM}/conversations/{}", theirs.conversation_id);
    assert_eq!(got(world.request(Method::HEAD, &path, A)).await.status, 403);
}

#[tokio::test]
async fn a_client_that_asks_for_what_it_may_not_see_is_limited_like_any_other() {
    let world = World::with(|it| {
        setup(it);
        it.clients = client("a", A).bots(EXAMPLE_STREAM).rate_limit("3/h").toml();
    })
    .await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(record(&world, OTHERS, "c-1", A).await.status.as_u16());
    }
    assert_eq!(statuses, [403, 403, 403, 429, 429]);
}
