//! Only what is over is stored: at first for a moment, once it is settled for long. What an answer
//! does not say itself is taken from what other answers have told.

use http::Method;
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault};

use crate::world::{
    DAY, Got, HOUR, MINUTE, NOON, REPORTING, SECOND, World, before, conversation_path, got, transcript_path,
    until, window_path,
};

async fn fetch(world: &World, conversation: &Conversation) -> Got {
    world.get(&conversation_path(&conversation.conversation_id)).await
}

#[tokio::test]
async fn over_but_not_settled_is_kept_for_half_a_minute_and_settled_for_a_day() {
    // `updatedAt`, ten seconds after the end, is at noon.
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, NOON);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation.clone()];
        setup.config = "cache.conversation.stale_while_revalidate = \"0s\"".to_owned();
    })
    .await;
    assert!(fetch(&world, &conversation).await.cache_status().ends_with("; stored"));
    world.advance(26 * SECOND);
    assert!(fetch(&world, &conversation).await.is_hit());
    // A lifetime is shortened by up to a tenth.
    world.advance(8 * SECOND);
    assert_eq!(
        fetch(&world, &conversation).await.cache_status(),
        "kore-gateway; fwd=stale; fwd-status=200; stored"
    );
    assert_eq!(world.standin.count(), 2);

    world.advance(16 * MINUTE);
    fetch(&world, &conversation).await;
    world.advance(21 * HOUR);
    assert!(fetch(&world, &conversation).await.is_hit());
    assert_eq!(world.standin.count(), 3);
    world.advance(6 * HOUR);
    assert!(!fetch(&world, &conversation).await.is_hit());
    assert_eq!(world.standin.count(), 4);
}

#[tokio::test]
async fn an_unknown_status_is_live() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).with_status("ARCHIVED");
    let world = World::of(vec![conversation.clone()]).await;
    for _ in 0..2 {
        assert!(fetch(&world, &conversation).await.cache_status().ends_with("stored=?0; detail=live"));
    }
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn a_window_is_stored_when_it_is_past_and_all_its_rows_are_over() {
    let over = Conversation::closed_at(EXAMPLE_STREAM, 1, before(3 * DAY));
    let live = Conversation::live(EXAMPLE_STREAM, 2, before(2 * DAY));
    let world = World::of(vec![over, live]).await;
    let window =
        |from: &str, to: &str| format!(r#"{{"startDate":"{from}","endDate":"{to}","timeZoneOffset":0}}"#);

    let past = world.post(&window_path(), window("2026-02-26", "2026-02-27")).await;
    assert_eq!(past.json()["numResults"], 1);
    assert!(past.cache_status().ends_with("; stored"), "{}", past.cache_status());

    let with_a_live_row = world.post(&window_path(), window("2026-02-26", "2026-02-28")).await;
    assert_eq!(with_a_live_row.json()["numResults"], 2);
    assert!(with_a_live_row.cache_status().ends_with("detail=live"), "{}", with_a_live_row.cache_status());

    // It ends tonight: nothing in it is live, but more may come. Kept as long as what is not settled.
    let today = world.post(&window_path(), window("2026-03-02", "2026-03-02")).await;
    assert_eq!(today.json()["numResults"], 0);
    let again = world.post(&window_path(), window("2026-03-02", "2026-03-02")).await;
    let left: u64 = again.cache_status().rsplit("ttl=").next().unwrap().parse().unwrap_or(0);
    assert!(left <= 33, "{}", again.cache_status());

    let empty = world.post(&window_path(), window("2026-02-20", "2026-02-21")).await;
    assert_eq!(empty.json()["numResults"], 0);
    assert!(empty.cache_status().ends_with("; stored"), "{}", empty.cache_status());
}

#[tokio::test]
async fn a_transcript_is_stored_once_another_answer_has_told_that_it_is_over() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let world = World::of(vec![conversation.clone()]).await;
    let by_session = format!(r#"{{"sessionId":"{}"}}"#, conversation.session_id);
    let unknown = world.post(&transcript_path(), &by_session).await;
    assert!(
        unknown.cache_status().ends_with("stored=?0; detail=unknown-phase"),
        "{}",
        unknown.cache_status()
    );

    fetch(&world, &conversation).await;
    let told = world.post(&transcript_path(), &by_session).await;
    assert!(told.cache_status().ends_with("; stored"), "{}", told.cache_status());
    assert!(world.post(&transcript_path(), &by_session).await.is_hit());

    // A window tells of all its rows.
    let world = World::of(vec![conversation.clone()]).await;
    world
        .post(&window_path(), r#"{"startDate":"2026-03-01","endDate":"2026-03-01","timeZoneOffset":0}"#)
        .await;
    let by_conversation = format!(r#"{{"conversationId":"{}"}}"#, conversation.conversation_id);
    for body in [by_session, by_conversation] {
        let told = world.post(&transcript_path(), &body).await;
        assert!(told.cache_status().ends_with("; stored"), "{body}: {}", told.cache_status());
    }
}

/// A session can hold two conversations: it is over when both are, whichever row comes last.
#[tokio::test]
async fn a_session_with_a_live_conversation_is_live() {
    let row = |status: &str| {
        format!(
            r#"{{"sessionId":"s-9","finalStatus":"{status}","sessionStartTime":"2026-02-20T00:00:00","sessionEndTime":"2026-02-20T01:00:00"}}"#
        )
    };
    for rows in [["TRANSIENT_OPEN", "CLOSED"], ["CLOSED", "TRANSIENT_OPEN"]] {
        let world = World::new().await;
        let rows = rows.map(row).join(",");
        let window = format!(r#"{{"numResults":2,"data":[{rows}]}}"#);
        world.standin.serve_body("interactiondetails", 200, "application/json", window);
        let transcript = r#"{"conversationInfo":{"sessionId":"s-9"},"conversationHistory":[]}"#;
        world.standin.serve_body("conversationdetails", 200, "application/json", transcript);
        world
            .post(&window_path(), r#"{"startDate":"2026-02-20","endDate":"2026-02-20","timeZoneOffset":0}"#)
            .await;
        let told = world.post(&transcript_path(), r#"{"sessionId":"s-9"}"#).await;
        assert!(told.cache_status().ends_with("stored=?0; detail=live"), "{}", told.cache_status());
    }
}

/// The language model failed, or was not done: the transcript may be kept for a moment, no longer.
#[tokio::test]
async fn a_summary_that_did_not_come_is_asked_for_again_soon() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let world = World::of(vec![conversation.clone()]).await;
    fetch(&world, &conversation).await;
    let body = format!(r#"{{"sessionId":"{}","isSummaryRequired":true}}"#, conversation.session_id);
    let without = format!(
        r#"{{"conversationInfo":{{"sessionId":"{}"}},"conversationHistory":[]}}"#,
        conversation.session_id
    );
    world.standin.serve_body("conversationdetails", 200, "application/json", without);
    world.post(&transcript_path(), &body).await;
    let calls = world.standin.count();
    let hit = world.post(&transcript_path(), &body).await;
    let left: u64 = hit.cache_status().rsplit("ttl=").next().unwrap().parse().unwrap();
    assert!(left <= 33, "{}", hit.cache_status());
    world.advance(2 * MINUTE);
    world.post(&transcript_path(), &body).await;
    until("it is asked for again", || world.standin.count() > calls).await;
}

/// A refusal of this one call says nothing about what is stored; that there is none does.
#[tokio::test]
async fn a_refusal_leaves_what_is_stored_and_a_404_takes_it_away() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let world = World::of(vec![conversation.clone()]).await;
    let first = fetch(&world, &conversation).await;
    world.advance(2 * DAY);
    world.standin.fault(Some(Fault::Status(400)));
    assert_eq!(fetch(&world, &conversation).await.status, 400);
    world.advance(MINUTE);
    world.standin.fault(Some(Fault::Html200));
    let stale = fetch(&world, &conversation).await;
    assert_eq!((stale.status.as_u16(), &stale.body), (200, &first.body), "{}", stale.cache_status());
    world.advance(MINUTE);
    world.standin.fault(Some(Fault::Status(404)));
    assert_eq!(fetch(&world, &conversation).await.status, 404);
    world.advance(MINUTE);
    world.standin.fault(Some(Fault::Status(500)));
    assert_eq!(fetch(&world, &conversation).await.status, 500);
}

#[tokio::test]
async fn the_upstreams_own_503_says_when_to_ask_again() {
    let world = World::new().await;
    world.standin.fault(Some(Fault::StatusWithRetryAfter(503, 17)));
    assert_eq!(world.get(&conversation_path("c-1")).await.header("retry-after"), "17");
    world.standin.fault(Some(Fault::Status(503)));
    assert_eq!(world.get(&conversation_path("c-2")).await.header("retry-after"), "5");
}

#[tokio::test]
async fn a_summary_is_stored_apart_and_made_once() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let world = World::of(vec![conversation.clone()]).await;
    fetch(&world, &conversation).await;
    let body = |wanted: bool| {
        format!(r#"{{"sessionId":"{}","isSummaryRequired":{wanted}}}"#, conversation.session_id)
    };
    let with = world.post(&transcript_path(), body(true)).await;
    assert!(with.json()["summary"].is_object());
    let without = world.post(&transcript_path(), body(false)).await;
    assert!(without.json()["summary"].is_null());
    // The stand-in words each summary anew: the same words are the same call's.
    world.advance(6 * DAY);
    assert_eq!(world.post(&transcript_path(), body(true)).await.body, with.body);
}

#[tokio::test]
async fn past_its_lifetime_an_answer_is_served_at_once_and_fetched_anew_by_one_call() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let world = World::of(vec![conversation.clone()]).await;
    fetch(&world, &conversation).await;
    // The lifetime is a day and up to a tenth; the minute after it is looked for in steps.
    let mut stale = fetch(&world, &conversation).await;
    for _ in 0..6 * 60 * 2 {
        if !stale.is_hit() {
            break;
        }
        world.advance(if world.clock.uptime() < 21 * HOUR { 21 * HOUR } else { 30 * SECOND });
        stale = fetch(&world, &conversation).await;
    }
    assert_eq!(stale.status, 200);
    assert!(stale.cache_status().starts_with("kore-gateway; hit; ttl=-"), "{}", stale.cache_status());
    assert!(stale.cache_status().ends_with("; detail=stale-while-revalidate"), "{}", stale.cache_status());
    until("the refresh reaches the upstream", || world.standin.count() == 2).await;
    // It is stored a moment after it has been answered.
    let stored = async { while !fetch(&world, &conversation).await.is_hit() {} };
    tokio::time::timeout(10 * SECOND, stored).await.expect("the refresh is stored");
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn a_stale_answer_stands_in_when_the_upstream_fails_and_no_longer_than_allowed() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let world = World::of(vec![conversation.clone()]).await;
    let first = fetch(&world, &conversation).await;
    world.advance(2 * DAY);
    for fault in [Fault::Status(500), Fault::Reset, Fault::TruncatedJson, Fault::OtherConversation200] {
        world.standin.fault(Some(fault.clone()));
        let stale = fetch(&world, &conversation).await;
        assert_eq!((stale.status.as_u16(), &stale.body), (200, &first.body), "{fault:?}");
        assert!(
            stale.cache_status().ends_with("; detail=stale-if-error"),
            "{fault:?}: {}",
            stale.cache_status()
        );
        assert_eq!(stale.header("age"), "172800");
        // So that the breaker plays no part.
        world.standin.clear_faults();
        got(world.request(Method::GET, &conversation_path("c-unknown"), REPORTING)).await;
    }
    world.advance(7 * DAY);
    world.standin.fault(Some(Fault::Status(500)));
    assert_eq!(fetch(&world, &conversation).await.status, 500);
}

#[tokio::test]
async fn a_conversation_that_was_reopened_is_not_served_as_it_was() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(MINUTE));
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation.clone()];
        setup.config = "cache.conversation.stale_while_revalidate = \"0s\"".to_owned();
    })
    .await;
    fetch(&world, &conversation).await;
    world.standin.put(conversation.clone().reopened_at(NOON));
    world.advance(MINUTE);
    assert!(fetch(&world, &conversation).await.cache_status().contains("detail=live"));
    world.standin.fault(Some(Fault::Status(500)));
    assert_eq!(fetch(&world, &conversation).await.status, 500, "the closed one came back");
}

/// What is no complete answer to what was asked is passed on or refused, and never stored.
#[tokio::test]
async fn only_a_complete_answer_of_the_right_shape_and_identity_is_stored() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let world = World::of(vec![conversation.clone()]).await;
    let passed_on = [Fault::Html200, Fault::ErrorEnvelope200, Fault::Opaque200, Fault::Status(500)];
    let refused = [
        Fault::TruncatedJson,
        Fault::CutBody,
        Fault::CloseDelimitedCut,
        Fault::Empty200,
        Fault::OtherConversation200,
        Fault::Reset,
        Fault::ResetInBody,
    ];
    for fault in passed_on {
        world.standin.fault_next(1, fault.clone());
        let answer = fetch(&world, &conversation).await;
        assert!(answer.cache_status().contains("stored=?0"), "{fault:?}: {}", answer.cache_status());
        world.get(&conversation_path("c-unknown")).await;
    }
    for fault in refused {
        // For a second try too.
        world.standin.fault(Some(fault.clone()));
        let answer = fetch(&world, &conversation).await;
        world.standin.clear_faults();
        assert_eq!(answer.status, 502, "{fault:?}");
        assert!(!answer.headers.contains_key("cache-status"), "{fault:?}");
        world.get(&conversation_path("c-unknown")).await;
    }
    assert_eq!(world.metric("kore_gateway_cache_entries").await, 0.0);
    assert_eq!(fetch(&world, &conversation).await.status, 200);
    assert_eq!(world.metric("kore_gateway_cache_entries").await, 1.0);
}
