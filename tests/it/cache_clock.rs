//! Ages and orders go by a clock that nobody can set. The time of day, which can be set, only says how
//! old an answer is at least, and is held against what answers say of themselves.

use kore_standin::{Conversation, EXAMPLE_STREAM, Fault};
use serde_json::json;

use crate::world::{DAY, HOUR, MINUTE, NOON, SECOND, World, before, conversation_path, transcript_path};

const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn a_clock_that_is_set_back_makes_nothing_younger() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, NOON);
    let world = World::of(vec![conversation.clone()]).await;
    let path = conversation_path(&conversation.conversation_id);
    // Over, not settled: kept for half a minute, and for a minute more while a new one is fetched.
    world.get(&path).await;
    world.advance(20 * SECOND);
    world.clock.set_by(-HOUR_MS);
    let hit = world.get(&path).await;
    assert!(hit.is_hit());
    assert_eq!(hit.header("age"), "20");
    world.advance(2 * MINUTE);
    assert!(!world.get(&path).await.is_hit());
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn what_lay_there_while_the_machine_slept_is_as_old_as_it_is() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, NOON);
    let world = World::of(vec![conversation.clone()]).await;
    let path = conversation_path(&conversation.conversation_id);
    world.get(&path).await;
    // The uptime stands still, the time of day goes on.
    world.clock.set_by(HOUR_MS);
    world.standin.clock().advance(HOUR);
    assert!(!world.get(&path).await.is_hit());
    assert_eq!(world.standin.count(), 2);
}

/// What is told after the clock was set back is news all the same.
#[tokio::test]
async fn a_conversation_that_is_reopened_after_the_clock_was_set_back_is_seen_to_be() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(2 * DAY));
    let world = World::of(vec![conversation.clone()]).await;
    let path = conversation_path(&conversation.conversation_id);
    let transcript = json!({ "sessionId": conversation.session_id });
    world.get(&path).await;
    assert!(world.post(&transcript_path(), &transcript).await.cache_status().ends_with("; stored"));
    world.clock.set_by(-HOUR_MS);
    world.advance(SECOND);
    world.standin.put(conversation.clone().reopened_at(NOON));
    // Another page, and so another question.
    assert_eq!(world.get(&format!("{path}?limit=7")).await.json()["status"], "ACTIVE");
    for answer in [world.get(&path).await, world.post(&transcript_path(), &transcript).await] {
        assert!(answer.cache_status().ends_with("stored=?0; detail=live"), "{}", answer.cache_status());
    }
    world.standin.fault(Some(Fault::Status(500)));
    assert_eq!(world.get(&path).await.status, 500, "the closed one came back");
}
