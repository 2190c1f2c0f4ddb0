//! A full store takes what is asked for again, whatever its size, and is not emptied by what is asked for once.

use futures_util::future::join_all;
use http::{Method, StatusCode};
use kore_standin::{Conversation, EXAMPLE_STREAM};
use serde_json::json;

use crate::world::{DAY, Got, REPORTING, World, before, client, conversation_path, got, window_path};

const MASKED: &str = "kg_masked";

/// Requests for one answer, of which a full store passes on two.
const ASKS: usize = 200;
/// Of some 95 kB.
const ROWS: u64 = 66;

async fn world(capacity: &str, conversations: Vec<Conversation>) -> World {
    World::with(|setup| {
        setup.standin.conversations = conversations;
        setup.without_quota = true;
        setup.config = format!("cache.capacity = \"{capacity}\"");
    })
    .await
}

/// Conversations of two days ago: `ROWS` for a window, and `more` beside them.
fn conversations(count: u64, bytes: usize, since: u64, ago: u32) -> Vec<Conversation> {
    let one = |n| Conversation::closed_at(EXAMPLE_STREAM, since + n, before(ago * DAY)).padded(bytes);
    (0..count).map(one).collect()
}

/// Asks for each, several at a time, and gives back how many were no hits.
async fn ask(world: &World, conversations: &[Conversation]) -> usize {
    let mut misses = 0;
    for some in conversations.chunks(20) {
        let all = join_all(some.iter().map(async |one| {
            let got = world.get(&conversation_path(&one.conversation_id)).await;
            assert_eq!(got.status, StatusCode::OK);
            got
        }));
        misses += all.await.iter().filter(|got| !got.is_hit()).count();
    }
    misses
}

async fn window(world: &World) -> Got {
    let body = json!({ "startDate": "2026-02-28", "endDate": "2026-02-28", "timeZoneOffset": 0 });
    world.post(&format!("{}?limit={ROWS}", window_path()), body).await
}

#[tokio::test]
async fn a_settled_window_that_is_polled_is_stored_among_small_conversations_asked_for_twice() {
    for (capacity, count, padding) in [("1MiB", 400, 0), ("16MiB", 800, 20_000)] {
        // Those of the window's day, and those that fill the store.
        let rows = conversations(ROWS, 0, 0, 2);
        let small = conversations(count, padding, 10_000, 4);
        let world = world(capacity, [rows, small.clone()].concat()).await;
        ask(&world, &small).await;
        ask(&world, &small).await;
        let before = world.standin.count();
        let first = window(&world).await;
        assert!((90_000..100_000).contains(&first.body.len()), "{} bytes", first.body.len());
        assert!(first.cache_status().ends_with("; stored=?0; detail=no-room"), "{}", first.cache_status());
        for _ in 1..ASKS {
            assert_eq!(window(&world).await.status, StatusCode::OK);
        }
        assert_eq!(world.standin.count() - before, 2, "{capacity}");
    }
}

#[tokio::test]
async fn a_larger_conversation_is_stored_among_others_that_were_asked_for_twenty_times() {
    let others = conversations(100, 10_000, 0, 2);
    let larger = conversations(1, 30_000, 1_000, 2);
    let world = world("1MiB", [others.clone(), larger.clone()].concat()).await;
    for _ in 0..20 {
        ask(&world, &others).await;
    }
    let before = world.standin.count();
    for _ in 0..ASKS {
        ask(&world, &larger).await;
    }
    assert_eq!(world.standin.count() - before, 2);
}

#[tokio::test]
async fn what_is_asked_for_once_pushes_out_nothing() {
    let hot = conversations(30, 20_000, 0, 2);
    let scanned = conversations(600, 20_000, 1_000, 2);
    let world = world("1MiB", [hot.clone(), scanned.clone()].concat()).await;
    ask(&world, &hot).await;
    assert_eq!(ask(&world, &scanned).await, 600);
    assert_eq!(ask(&world, &hot).await, 0);
    assert!(world.app.cache.size().1 <= 1 << 20);
}

/// An answer above an eighth of the capacity does not push out a host of others, however often it is asked for.
#[tokio::test]
async fn what_is_heavier_than_an_eighth_of_the_capacity_is_stored_only_where_there_is_room() {
    let small = conversations(40, 20_000, 0, 2);
    let heavy = conversations(1, 200_000, 1_000, 2);
    let world = world("1MiB", [small.clone(), heavy.clone()].concat()).await;
    ask(&world, &small).await;
    for _ in 0..5 {
        assert_eq!(ask(&world, &heavy).await, 1);
    }
    assert_eq!(ask(&world, &small).await, 0);
    world.app.cache.purge(kore_gateway::cache::Purge::All);
    assert_eq!((ask(&world, &heavy).await, ask(&world, &heavy).await), (1, 0));
}

/// A view is an entry of its own, let in like any other, and then made no more.
#[tokio::test]
async fn a_view_is_made_twice_at_most_in_a_full_store() {
    let all = conversations(70, 20_000, 0, 2);
    let world = World::with(|setup| {
        setup.standin.conversations = all.clone();
        setup.without_quota = true;
        setup.config =
            "cache.capacity = \"1MiB\"\n[redaction.no-numbers]\nmask = [\"/phoneNumber\"]\n".to_owned();
        setup.clients.push_str(&client("masked", MASKED).toml());
        setup.clients.push_str("redact = [\"no-numbers\"]\n");
    })
    .await;
    ask(&world, &all).await;
    let calls = world.standin.count();
    let last = all.last().unwrap();
    for _ in 0..20 {
        let path = conversation_path(&last.conversation_id);
        assert_eq!(got(world.request(Method::GET, &path, MASKED)).await.status, StatusCode::OK);
    }
    assert_eq!(world.standin.count() - calls, 1, "the second request for it");
    let made = world.metric("kore_gateway_cache_bodies_made_total{form=\"view\"}").await;
    assert!((1.0..=2.0).contains(&made), "{made}");
}

/// What is stored grows by its variants, and was let in before: that is no new request for room.
#[tokio::test]
async fn what_is_stored_stays_when_it_grows_by_a_variant_in_a_full_store() {
    let all = conversations(70, 20_000, 0, 2);
    let world = world("1MiB", all.clone()).await;
    ask(&world, &all).await;
    let (entries, _) = world.app.cache.size();
    assert!((40..70).contains(&entries), "full, of the first: {entries}");
    // Not those that were asked for first, which make room for what these grow by.
    let grown = &all[30..40];
    for one in grown {
        let path = conversation_path(&one.conversation_id);
        for _ in 0..2 {
            let coded = world.request(Method::GET, &path, REPORTING).header("accept-encoding", "gzip").send();
            assert_eq!(coded.await.unwrap().headers()["content-encoding"], "gzip");
        }
        let again = got(world.request(Method::GET, &path, REPORTING)).await;
        assert!(again.is_hit(), "{again:?}");
        assert!(world.app.cache.size().1 <= 1 << 20);
    }
    let calls = world.standin.count();
    assert_eq!(calls, all.len(), "nothing was fetched again");
    let made = world.metric("kore_gateway_cache_bodies_made_total{form=\"gzip\"}").await;
    assert_eq!(made, 10.0);
}
