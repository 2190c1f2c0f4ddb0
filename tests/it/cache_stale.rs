//! Past its lifetime an answer is served at once while one task fetches another, then only instead
//! of an error, then not at all; and whoever tunes `settle` is told how often it was too short.

use http::StatusCode;
use kore_gateway::cache::Purge;
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault};

use crate::world::{DAY, HOUR, SECOND, World, before, conversation_path, until};

fn settled() -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, 1, before(2 * DAY))
}

#[tokio::test]
async fn two_hundred_who_ask_for_a_stale_answer_get_it_at_once_and_cost_one_call() {
    let world = World::with(|setup| {
        setup.standin.conversations = vec![settled()];
        setup.config = "cache.conversation.stale_while_revalidate = \"1d\"".to_owned();
    })
    .await;
    let path = conversation_path(&settled().conversation_id);
    world.get(&path).await;
    world.advance(DAY + 3 * HOUR);
    // The one that fetches gets no answer as long as the others ask.
    world.standin.fault(Some(Fault::HangBeforeHead));
    let asking = (0..200).map(|_| world.get(&path));
    for got in futures_util::future::join_all(asking).await {
        assert!(got.cache_status().ends_with("; detail=stale-while-revalidate"), "{}", got.cache_status());
        assert!(got.cache_status().contains("hit; ttl=-"));
    }
    until("the refresh is under way", || world.standin.count() == 2).await;
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn a_refresh_that_fails_is_not_repeated_by_each_who_comes() {
    let world = World::with(|setup| {
        setup.standin.conversations = vec![settled()];
        setup.config =
            "cache.conversation.stale_while_revalidate = \"1d\"\ncache.back_off = \"1m\"".to_owned();
    })
    .await;
    let path = conversation_path(&settled().conversation_id);
    world.get(&path).await;
    world.advance(DAY + 3 * HOUR);
    world.standin.fault(Some(Fault::Status(500)));
    let counted = || world.standin.calls().iter().filter(|call| call.status == 500).count();
    world.get(&path).await;
    until("the refresh has failed", || counted() == 1).await;
    until("the failure is known", || world.app.metrics.http.active_requests.get() == 0).await;
    for _ in 0..20 {
        assert!(world.get(&path).await.cache_status().ends_with("stale-while-revalidate"));
    }
    // One may have come before the failure was known; the next one then waits out the back-off.
    assert!(counted() <= 2, "{}", counted());
}

#[tokio::test]
async fn a_stale_answer_instead_of_an_error_is_marked_and_bounded() {
    let world = World::with(|setup| {
        setup.standin.conversations = vec![settled()];
        setup.config =
            "[cache.conversation]\nstale_while_revalidate = \"0s\"\nstale_if_error = \"6h\"".to_owned();
    })
    .await;
    let path = conversation_path(&settled().conversation_id);
    world.get(&path).await;
    // Past its lifetime, and less than six hours past the shortest that it can be jittered to.
    world.advance(DAY);
    for fault in [Fault::Status(503), Fault::Reset, Fault::TruncatedJson, Fault::Unauthorized401] {
        world.standin.fault(Some(fault.clone()));
        let got = world.get(&path).await;
        assert_eq!(got.status, StatusCode::OK, "{fault:?}");
        assert!(got.cache_status().starts_with("kore-gateway; hit; ttl=-"), "{fault:?}");
        assert!(got.cache_status().ends_with("; detail=stale-if-error"), "{fault:?}");
    }
    world.advance(6 * HOUR);
    assert_eq!(world.get(&path).await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn what_changed_after_it_was_called_settled_is_counted() {
    let world = World::with(|setup| {
        setup.standin.conversations = vec![settled()];
        setup.config = "cache.conversation.stale_while_revalidate = \"0s\"".to_owned();
    })
    .await;
    let path = conversation_path(&settled().conversation_id);
    let refreshes = async |result: &str| {
        let labels = format!("{{route=\"conversation\",result=\"{result}\"}}");
        world.metric(&format!("kore_gateway_cache_settled_refreshes_total{labels}")).await
    };
    world.get(&path).await;
    world.advance(DAY + 3 * HOUR);
    world.get(&path).await;
    assert!((refreshes("unchanged").await - 1.0).abs() < 0.1);
    assert!(refreshes("changed").await < 0.1);
    world.standin.put(settled().padded(10));
    world.advance(DAY + 3 * HOUR);
    world.get(&path).await;
    assert!((refreshes("changed").await - 1.0).abs() < 0.1);
    // An error says nothing about the conversation.
    world.standin.fault_next(1, Fault::Status(500));
    world.advance(DAY + 3 * HOUR);
    world.get(&path).await;
    world.advance(SECOND);
    assert!((refreshes("changed").await + refreshes("unchanged").await - 2.0).abs() < 0.1);
}

/// The stale answer that is better than an error is looked at again when the error has come.
#[tokio::test]
async fn what_is_purged_while_a_call_fails_does_not_stand_in_for_it() {
    let world = World::with(|setup| {
        setup.standin.conversations = vec![settled()];
        setup.config = "upstream.timeout = \"400ms\"".to_owned();
    })
    .await;
    let path = conversation_path(&settled().conversation_id);
    world.get(&path).await;
    world.advance(3 * DAY);
    world.standin.fault(Some(Fault::HangBeforeHead));
    let purging = async {
        until("the call is under way", || world.standin.count() == 2).await;
        world.app.cache.purge(Purge::All);
    };
    let (answer, ()) = futures_util::join!(world.get(&path), purging);
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.cache_status());
}
