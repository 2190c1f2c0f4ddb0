//! A transcript without a summary is answered out of one stored with it, byte for byte as the
//! upstream would; the other way round it is not, nor for another page or another conversation.

use kore_standin::{Conversation, EXAMPLE_STREAM};
use serde_json::{Value, json};

use crate::world::{DAY, Got, HOUR, World, before, conversation_path, transcript_path};

fn settled() -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, 1, before(2 * DAY))
}

/// A world that knows that the conversation is over.
async fn world() -> World {
    let world = World::of(vec![settled()]).await;
    world.get(&conversation_path(&settled().conversation_id)).await;
    world.standin.forget();
    world
}

async fn ask(world: &World, more: Value) -> Got {
    let mut body = json!({ "sessionId": settled().session_id });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.post(&transcript_path(), body).await
}

#[tokio::test]
async fn a_transcript_without_a_summary_is_cut_out_of_the_one_with_it() {
    let fresh = world().await;
    let expected = ask(&fresh, json!({})).await;

    let world = world().await;
    let whole = ask(&world, json!({ "isSummaryRequired": true, "lang": "de" })).await;
    assert!(whole.json()["summary"].is_object());
    for _ in 0..2 {
        let cut = ask(&world, json!({})).await;
        assert!(cut.is_hit(), "{}", cut.cache_status());
        assert_eq!(cut.body, expected.body);
        assert_eq!(cut.header("etag"), expected.header("etag"));
    }
    assert_eq!(world.standin.count(), 1);
}

#[tokio::test]
async fn it_is_kept_by_its_own_rule_not_by_the_summarys() {
    let world = world().await;
    ask(&world, json!({ "isSummaryRequired": true })).await;
    // The summary is kept for a week, a transcript for a day.
    world.advance(DAY + 3 * HOUR);
    assert!(ask(&world, json!({ "isSummaryRequired": true })).await.is_hit());
    assert!(!ask(&world, json!({})).await.is_hit());
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn nothing_else_is_answered_from_it() {
    let world = world().await;
    ask(&world, json!({ "isSummaryRequired": true, "lang": "de" })).await;
    assert!(!ask(&world, json!({ "skip": 1 })).await.is_hit());
    assert!(!ask(&world, json!({ "limit": 5 })).await.is_hit());
    assert!(!ask(&world, json!({ "isSummaryRequired": true, "lang": "en" })).await.is_hit());
    assert_eq!(world.standin.count(), 4);
    let plain_first = self::world().await;
    ask(&plain_first, json!({})).await;
    assert!(!ask(&plain_first, json!({ "isSummaryRequired": true })).await.is_hit());
    assert_eq!(plain_first.standin.count(), 2);
}
