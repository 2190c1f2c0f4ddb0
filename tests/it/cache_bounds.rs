//! An answer above the cap is passed through, whole and uncached, to whoever may see any bot; the
//! store never holds more bytes than it may.

use futures_util::future::join_all;
use http::{Method, StatusCode};
use kore_gateway::standin::{Conversation, EXAMPLE_STREAM, Fault};

use crate::world::{DAY, MINUTE, ONE_BOT, REPORTING, World, before, conversation_path, got};

async fn world(conversations: Vec<Conversation>) -> World {
    World::with(|setup| {
        setup.standin.conversations = conversations;
        setup.without_quota = true;
        setup.config = "upstream.max_body = \"64KiB\"\ncache.capacity = \"1MiB\"".to_owned();
    })
    .await
}

#[tokio::test]
async fn an_answer_above_the_cap_is_passed_through_whole_and_not_stored() {
    let large = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).padded(3_000_000);
    let world = world(vec![large.clone()]).await;
    let path = conversation_path(&large.conversation_id);
    for calls in 1..=2 {
        let got = world.get(&path).await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(got.json()["formData"][0]["padding"].as_str().unwrap().len(), 3_000_000);
        assert_eq!(
            got.cache_status(),
            "kore-gateway; fwd=uri-miss; fwd-status=200; stored=?0; detail=too-large"
        );
        assert_eq!((got.header("etag"), got.header("age")), ("", ""));
        assert_eq!(world.standin.count(), calls);
    }
    assert_eq!(world.app.cache.size(), (0, 0));
}

#[tokio::test]
async fn all_who_ask_at_once_for_a_large_answer_get_all_of_it() {
    let large = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).padded(200_000);
    let world = world(vec![large.clone()]).await;
    let path = conversation_path(&large.conversation_id);
    for got in join_all((0..10).map(|_| world.get(&path))).await {
        assert_eq!(got.json()["_id"], large.conversation_id);
    }
    assert!(world.standin.count() <= 10);
}

#[tokio::test]
async fn a_client_of_some_bots_does_not_get_what_nobody_has_looked_into() {
    let large = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).padded(200_000);
    let world = world(vec![large.clone()]).await;
    let refused = world.request(Method::GET, &conversation_path(&large.conversation_id), ONE_BOT);
    let refused = got(refused).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::BAD_GATEWAY, "upstream-invalid"));
}

#[tokio::test]
async fn a_large_answer_that_breaks_off_does_not_look_whole() {
    let large = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).padded(3_000_000);
    let world = world(vec![large.clone()]).await;
    world.standin.fault(Some(Fault::CutBody));
    let request = world.request(Method::GET, &conversation_path(&large.conversation_id), REPORTING);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.bytes().await.is_err());
}

/// A full store keeps what is asked for often; what it turns away for that is not said to be stored.
#[tokio::test]
async fn what_is_said_to_be_stored_is_there_for_the_next_one() {
    let conversations: Vec<_> =
        (0..120).map(|n| Conversation::closed_at(EXAMPLE_STREAM, n, before(DAY)).padded(20_000)).collect();
    let world = world(conversations.clone()).await;
    let paths: Vec<_> = conversations.iter().map(|one| conversation_path(&one.conversation_id)).collect();
    let (popular, others) = paths.split_at(60);
    for path in popular.iter().cycle().take(60 * 5) {
        world.get(path).await;
    }
    let (mut stored, mut turned_away) = (0, 0);
    for path in others.iter().cycle().take(60 * 5) {
        let first = world.get(path).await;
        if first.cache_status().ends_with("; stored") {
            stored += 1;
            assert!(world.get(path).await.is_hit());
        } else if !first.is_hit() {
            turned_away += 1;
            assert!(first.cache_status().ends_with("; stored=?0; detail=no-room"), "{first:?}");
        }
    }
    assert!(turned_away > 20 && stored > 5, "{turned_away} turned away, {stored} stored");
}

#[tokio::test]
async fn the_store_holds_no_more_bytes_than_it_may_and_its_index_goes_with_it() {
    let conversations: Vec<_> =
        (0..300).map(|n| Conversation::closed_at(EXAMPLE_STREAM, n, before(DAY)).padded(20_000)).collect();
    let world = world(conversations.clone()).await;
    for conversation in &conversations {
        world.get(&conversation_path(&conversation.conversation_id)).await;
        assert!(world.app.cache.size().1 <= 1 << 20);
    }
    let (entries, _) = world.app.cache.size();
    assert!(entries > 20, "{entries}");
    let evictions = world.metric("kore_gateway_cache_evictions_total").await;
    assert!(evictions >= 200.0, "{evictions}");
    // What was pushed out is found by no purge.
    let purged: u64 = conversations
        .iter()
        .map(|conversation| {
            let purge = kore_gateway::cache::Purge::conversation(&conversation.conversation_id);
            world.app.cache.purge(purge).entries()
        })
        .sum();
    assert_eq!(purged, entries);
    assert_eq!(world.app.cache.size(), (0, 0));
    world.advance(MINUTE);
}
