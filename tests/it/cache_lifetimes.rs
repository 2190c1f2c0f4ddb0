//! What is not over is never stored, however it looks; what was stored is dropped when it turns out
//! to go on; lifetimes are spread, so that what was loaded at once does not expire at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use kore_gateway::cache::Terms;
use kore_gateway::config::Lane;
use kore_gateway::fetch::answer::{Answer, Fetched};
use kore_gateway::fetch::payer::Payer;
use kore_gateway::routes::{self, Found, Key, Query};
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault};
use serde_json::json;

use crate::world::{
    DAY, HOUR, MINUTE, NOON, SECOND, World, before, conversation_path, transcript_path, until, window_path,
};

fn window(from: &str, to: &str) -> String {
    json!({ "startDate": from, "endDate": to, "timeZoneOffset": 0 }).to_string()
}

#[tokio::test]
async fn a_window_is_live_until_it_has_been_past_for_as_long_as_it_takes_to_settle() {
    let world = World::of(vec![Conversation::closed_at(EXAMPLE_STREAM, 1, before(3 * HOUR))]).await;
    let ends_in_a_minute = window("2026-03-02 08:00:00", "2026-03-02 12:01:00");
    let ask = async || world.post(&window_path(), &ends_in_a_minute).await;
    // Every row has been over for hours; rows may still come.
    assert!(ask().await.cache_status().ends_with("stored=?0; detail=live"));
    world.advance(MINUTE + 15 * MINUTE - SECOND);
    assert!(ask().await.cache_status().ends_with("stored=?0; detail=live"));
    world.advance(SECOND);
    assert!(ask().await.cache_status().ends_with("; stored"));
    assert!(ask().await.is_hit());
    assert_eq!(world.standin.count(), 3);
}

#[tokio::test]
async fn each_unknown_or_missing_status_is_live_on_each_route() {
    let over = || Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    for odd in [
        over().with_status("ARCHIVED").with_final_status("ARCHIVED"),
        over().with_status("closed").with_final_status("closed"),
        over().without_status().without_final_status(),
        over().with_status("IDLE").with_final_status("TRANSIENT_OPEN"),
    ] {
        let world = World::of(vec![odd.clone()]).await;
        let transcript = json!({ "sessionId": odd.session_id });
        for _ in 0..2 {
            let conversation = world.get(&conversation_path(&odd.conversation_id)).await;
            assert!(conversation.cache_status().ends_with("stored=?0; detail=live"));
            let window = world.post(&window_path(), window("2026-02-28", "2026-03-01")).await;
            assert!(window.cache_status().ends_with("stored=?0; detail=live"));
            let transcript = world.post(&transcript_path(), &transcript).await;
            assert!(transcript.cache_status().ends_with("stored=?0; detail=live"));
        }
        assert_eq!(world.standin.count(), 6);
    }
}

#[tokio::test]
async fn a_transcript_of_what_ended_while_it_was_fetched_is_not_taken_for_over() {
    let ends_soon = Conversation::live(EXAMPLE_STREAM, 1, before(HOUR)).ends_at(NOON + 60_000);
    let world = World::of(vec![ends_soon.clone()]).await;
    let transcript = json!({ "sessionId": ends_soon.session_id }).to_string();
    world.standin.fault_where("conversationDetails", Fault::Latency(Duration::from_millis(500)));
    let path = transcript_path();
    let (got, ()) = tokio::join!(world.post(&path, &transcript), async {
        until("the transcript is asked for", || world.standin.count() == 1).await;
        world.advance(HOUR);
        world.get(&conversation_path(&ends_soon.conversation_id)).await;
    });
    assert!(got.cache_status().contains("stored=?0"), "{}", got.cache_status());
    world.standin.clear_faults();
    let all_of_it = world.post(&transcript_path(), &transcript).await;
    assert!(all_of_it.cache_status().ends_with("; stored"));
    assert!(world.post(&transcript_path(), &transcript).await.is_hit());
}

#[tokio::test]
async fn a_conversation_seen_live_again_drops_all_that_was_stored_about_it() {
    let reopened = Conversation::closed_at(EXAMPLE_STREAM, 1, before(2 * DAY)).reopened_at(NOON + 3_600_000);
    let other = Conversation::closed_at(EXAMPLE_STREAM, 2, before(2 * DAY));
    let world = World::of(vec![reopened.clone(), other.clone()]).await;
    let path = conversation_path(&reopened.conversation_id);
    let by_session = json!({ "sessionId": reopened.session_id }).to_string();
    let by_conversation = json!({ "conversationId": reopened.conversation_id }).to_string();
    let days = window("2026-02-28", "2026-03-01");
    let ask_all = async || {
        [
            world.get(&path).await,
            world.post(&window_path(), &days).await,
            world.post(&transcript_path(), &by_session).await,
            world.post(&transcript_path(), &by_conversation).await,
            world.get(&conversation_path(&other.conversation_id)).await,
        ]
    };
    ask_all().await;
    assert!(ask_all().await.iter().all(crate::world::Got::is_hit));
    assert_eq!(world.standin.count(), 5);

    world.advance(2 * HOUR);
    // Another question about the same conversation, and so another key.
    let seen_live = world.get(&format!("{path}?limit=7")).await;
    assert_eq!(seen_live.json()["status"], "ACTIVE");
    let [conversation, window, session, by_id, other] = ask_all().await;
    for dropped in [conversation, window, session, by_id] {
        assert_eq!(
            dropped.cache_status(),
            "kore-gateway; fwd=uri-miss; fwd-status=200; stored=?0; detail=live"
        );
    }
    assert!(other.is_hit());
    assert_eq!(world.standin.count(), 10);
}

#[tokio::test]
async fn a_404_is_stored_only_if_its_lifetime_is_set_and_no_longer() {
    let world = World::with(|setup| {
        setup.config = "cache.conversation.not_found_ttl = \"10s\"".to_owned();
    })
    .await;
    let path = conversation_path("c-nobody");
    assert_eq!(world.get(&path).await.status, StatusCode::NOT_FOUND);
    world.advance(8 * SECOND);
    assert!(world.get(&path).await.is_hit());
    assert_eq!(world.standin.count(), 1);
    world.advance(3 * SECOND);
    assert!(!world.get(&path).await.is_hit());
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn a_hundred_thousand_answers_loaded_at_once_do_not_expire_at_once() {
    const ENTRIES: usize = 100_000;
    let world = World::new().await;
    let config = &world.app.snapshot().config;
    let rule = kore_gateway::lifecycle::phase::Rule {
        stale_while_revalidate: Duration::ZERO,
        ..*config.cache.rule(routes::Route::named(routes::RouteName::Conversation))
    };
    let account: Arc<str> = EXAMPLE_ACCOUNT.into();
    let queries: Vec<Query> = (0..ENTRIES)
        .map(|n| {
            let id = format!("c-{n}");
            let path = PathAndQuery::try_from(conversation_path(&id)).unwrap();
            let Found::Route(route, ids) = routes::find(&Method::GET, &path) else { panic!("{path}") };
            let request = routes::Request { ids: &ids, query: "", body: None, limits: config.limits };
            let canonical = (route.parse)(&request).unwrap();
            let key = Key::new(EXAMPLE_ACCOUNT, route, &ids, &canonical);
            let bot = Some(EXAMPLE_STREAM.into());
            Query {
                route,
                account: account.clone(),
                bot,
                key,
                plain: None,
                drops_text: false,
                requested: canonical.requested,
            }
        })
        .collect();
    let payer = Payer { client: "reporting".into(), lane: Lane::Interactive, weight: 1 };
    let calls = Arc::new(AtomicUsize::new(0));
    let ask_all = async || {
        let before = calls.load(Ordering::SeqCst);
        for query in &queries {
            let (calls, asked_at, id) =
                (calls.clone(), world.clock.moment(), query.requested.id().unwrap().to_owned());
            let fill = move |_| {
                calls.fetch_add(1, Ordering::SeqCst);
                let body = format!(r#"{{"_id":"{id}","status":"CLOSED","endTime":"2026-01-01T00:00:00Z"}}"#);
                let body = body.into_bytes().into();
                let answer =
                    Answer { status: StatusCode::OK, content_type: None, retry_after: None, body, asked_at };
                async { Ok(Fetched::Whole(answer)) }
            };
            world
                .app
                .cache
                .get_or_fill(query, &rule, MINUTE, Terms::default(), payer.clone(), fill)
                .await
                .unwrap();
        }
        calls.load(Ordering::SeqCst) - before
    };
    assert_eq!(ask_all().await, ENTRIES);
    world.advance(DAY * 9 / 10 - SECOND);
    assert_eq!(ask_all().await, 0);
    world.advance(DAY / 20 + SECOND);
    let expired_by_half = ask_all().await;
    assert!((ENTRIES * 4 / 10..ENTRIES * 6 / 10).contains(&expired_by_half), "{expired_by_half}");
    world.advance(DAY / 20);
    assert_eq!(ask_all().await, ENTRIES - expired_by_half);
}

#[tokio::test]
async fn no_answer_of_any_route_is_fresh_for_longer_than_its_lifetime() {
    const CONVERSATIONS: u64 = 40;
    let conversations: Vec<_> =
        (0..CONVERSATIONS).map(|n| Conversation::closed_at(EXAMPLE_STREAM, n, before(3 * DAY))).collect();
    let world = World::with(|setup| {
        setup.standin.conversations = conversations.clone();
        setup.without_quota = true;
        let ttl = |route| format!("[cache.{route}]\nsettled_ttl = \"24h\"\nnot_found_ttl = \"24h\"\n");
        setup.config = ttl("conversation")
            + &ttl("conversation_details")
            + "[cache.interaction_details]\nsettled_ttl = \"24h\"";
    })
    .await;
    let mut left = Vec::new();
    for (n, conversation) in conversations.iter().enumerate() {
        let path = conversation_path(&conversation.conversation_id);
        let transcript = json!({ "sessionId": conversation.session_id });
        let day = format!("2026-02-{:02}", n % 27 + 1);
        let days = json!({ "startDate": day, "endDate": day, "timeZoneOffset": 0 });
        for ask in [true, false] {
            let missing = conversation_path(&format!("c-missing-{n}"));
            let all = [
                world.get(&path).await,
                world.post(&transcript_path(), &transcript).await,
                world.post(&window_path(), &days).await,
                world.get(&missing).await,
            ];
            left.extend(all.iter().filter(|_| !ask).map(ttl));
        }
    }
    assert_eq!(left.len(), conversations.len() * 4);
    assert!(left.iter().all(|left| *left <= 86_400), "{left:?}");
    assert!(left.iter().any(|left| *left < 80_000), "they are spread: {left:?}");
}

/// Of a hit, the seconds of its lifetime that are left.
fn ttl(got: &crate::world::Got) -> u64 {
    let status = got.cache_status();
    let ttl = status.strip_prefix("kore-gateway; hit; ttl=").unwrap_or_else(|| panic!("no hit: {status}"));
    ttl.split(';').next().unwrap().parse().unwrap()
}
