//! What is purged is gone at once, in every form, and does not come back; nothing else goes.

use std::time::Duration;

use http::{Method, StatusCode};
use kore_gateway::standin::{
    Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault, OTHER_ACCOUNT, OTHER_STREAM,
};
use serde_json::{Value, json};

use crate::world::{
    DAY, Got, HOUR, NEIGHBOUR, World, before, conversation_path, got, transcript_path, until, window_path,
};

const TOKEN: &str = "ops-token";

async fn world(conversations: Vec<Conversation>) -> World {
    World::with(|setup| {
        let token = setup.secrets.path().join("ops");
        std::fs::write(&token, TOKEN).unwrap();
        setup.config = format!("ops.token = {{ file = \"{}\" }}", token.display());
        setup.standin.conversations = conversations;
        setup.without_quota = true;
    })
    .await
}

async fn post(world: &World, body: &Value, token: &str) -> Got {
    let request = reqwest::Client::new().post(format!("http://{}/admin/purge", world.ops));
    got(request.bearer_auth(token).body(body.to_string())).await
}

/// Purges, and says how many entries went.
async fn purge(world: &World, body: Value) -> u64 {
    let got = post(world, &body, TOKEN).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    let removed = got.json()["removed"].clone();
    let by_route = removed["by_route"].as_object().unwrap().values().map(|count| count.as_u64().unwrap());
    assert_eq!(by_route.sum::<u64>(), removed["entries"].as_u64().unwrap());
    removed["entries"].as_u64().unwrap()
}

/// Two conversations of one account in one window, their transcripts, and a neighbour's.
struct Town {
    world: World,
    first: Conversation,
    second: Conversation,
    theirs: Conversation,
}

impl Town {
    async fn new() -> Self {
        let first = Conversation::closed_at(EXAMPLE_STREAM, 1, before(2 * DAY));
        let second = Conversation::closed_at(EXAMPLE_STREAM, 2, before(2 * DAY));
        let theirs = Conversation::closed_at(OTHER_STREAM, 3, before(2 * DAY));
        let world = world(vec![first.clone(), second.clone(), theirs.clone()]).await;
        let town = Self { world, first, second, theirs };
        town.ask_all().await;
        assert_eq!(town.hits().await, [true; 6]);
        town
    }

    /// The first's conversation and transcript, the second's, the window with both, the neighbour's.
    async fn ask_all(&self) -> [Got; 6] {
        let world = &self.world;
        let transcript = async |of: &Conversation| {
            world.post(&transcript_path(), json!({ "sessionId": of.session_id })).await
        };
        let window = json!({ "startDate": "2026-02-28", "endDate": "2026-02-28", "timeZoneOffset": 0 });
        let theirs = format!(
            "/agentassist/api/v1/public/{OTHER_STREAM}/conversations/{}",
            self.theirs.conversation_id
        );
        [
            world.get(&conversation_path(&self.first.conversation_id)).await,
            transcript(&self.first).await,
            world.get(&conversation_path(&self.second.conversation_id)).await,
            transcript(&self.second).await,
            world.post(&window_path(), window).await,
            got(world.request(Method::GET, &theirs, NEIGHBOUR)).await,
        ]
    }

    async fn hits(&self) -> [bool; 6] {
        self.ask_all().await.map(|got| got.is_hit())
    }
}

#[tokio::test]
async fn a_conversation_takes_its_transcripts_and_the_windows_that_hold_its_row_along() {
    let town = Town::new().await;
    let calls = town.world.standin.count();
    assert_eq!(purge(&town.world, json!({ "conversation_id": town.first.conversation_id })).await, 3);
    assert_eq!(town.hits().await, [false, false, true, true, false, true]);
    assert_eq!(town.world.standin.count(), calls + 3);
    assert_eq!(town.hits().await, [true; 6]);
}

#[tokio::test]
async fn a_session_a_bot_an_account_and_all_are_as_exact() {
    let town = Town::new().await;
    assert_eq!(purge(&town.world, json!({ "session_id": town.second.session_id })).await, 3);
    assert_eq!(town.hits().await, [true, true, false, false, false, true]);

    assert_eq!(purge(&town.world, json!({ "bot_id": OTHER_STREAM })).await, 1);
    assert_eq!(town.hits().await, [true, true, true, true, true, false]);
    assert_eq!(purge(&town.world, json!({ "bot_id": EXAMPLE_STREAM })).await, 5);
    assert_eq!(town.hits().await, [false, false, false, false, false, true]);

    assert_eq!(purge(&town.world, json!({ "account_id": EXAMPLE_ACCOUNT })).await, 5);
    assert_eq!(purge(&town.world, json!({ "account_id": EXAMPLE_ACCOUNT })).await, 0);
    assert_eq!(town.hits().await, [false, false, false, false, false, true]);
    assert_eq!(purge(&town.world, json!({ "account_id": OTHER_ACCOUNT })).await, 1);

    town.ask_all().await;
    assert_eq!(purge(&town.world, json!({ "all": true })).await, 6);
    assert_eq!(town.hits().await, [false; 6]);
}

#[tokio::test]
async fn stale_copies_and_variants_go_too() {
    let town = Town::new().await;
    let path = conversation_path(&town.first.conversation_id);
    let brotli = || {
        got(town.world.request(Method::GET, &path, crate::world::REPORTING).header("accept-encoding", "br"))
    };
    let etag = brotli().await.header("etag").to_owned();
    assert!(etag.ends_with("-br\""), "{etag}");
    town.world.advance(2 * DAY);
    // Nobody has asked since: the stale copy is there to stand in for an error.
    town.world.standin.fault(Some(Fault::Status(500)));
    assert!(town.world.get(&path).await.cache_status().ends_with("stale-if-error"));
    assert_eq!(purge(&town.world, json!({ "conversation_id": town.first.conversation_id })).await, 3);
    assert_eq!(brotli().await.status, StatusCode::INTERNAL_SERVER_ERROR);
    town.world.standin.clear_faults();
    town.world.standin.put(town.first.clone().padded(100));
    assert_ne!(brotli().await.header("etag"), etag);
    // The purge emptied what it counted: bytes too.
    purge(&town.world, json!({ "all": true })).await;
    assert_eq!(town.world.app.cache.size(), (0, 0));
}

#[tokio::test]
async fn a_fill_in_flight_neither_puts_the_old_answer_back_nor_serves_who_comes_after() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    for purged in [
        json!({ "conversation_id": conversation.conversation_id }),
        json!({ "session_id": conversation.session_id }),
        json!({ "bot_id": EXAMPLE_STREAM }),
        json!({ "account_id": EXAMPLE_ACCOUNT }),
        json!({ "all": true }),
    ] {
        let world = world(vec![conversation.clone()]).await;
        let path = conversation_path(&conversation.conversation_id);
        world.standin.fault_next(1, Fault::Latency(Duration::from_millis(300)));
        let (old, new) = tokio::join!(world.get(&path), async {
            until("the first call has been judged", || world.standin.count() == 1).await;
            // From here on the upstream would say something else.
            world.standin.put(conversation.clone().padded(1000));
            assert_eq!(purge(&world, purged.clone()).await, 0);
            world.get(&path).await
        });
        assert!(old.cache_status().ends_with("stored=?0; detail=purged"), "{}", old.cache_status());
        assert_ne!(old.body, new.body);
        assert!(!new.cache_status().contains("collapsed"));
        let later = world.get(&path).await;
        assert!(later.is_hit());
        assert_eq!(later.body, new.body);
        assert_eq!(world.standin.count(), 2);
    }
}

#[tokio::test]
async fn a_fill_in_flight_of_something_else_is_stored_all_the_same() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let world = world(vec![conversation.clone()]).await;
    let path = conversation_path(&conversation.conversation_id);
    world.standin.fault_next(1, Fault::Latency(Duration::from_millis(200)));
    let (got, ()) = tokio::join!(world.get(&path), async {
        until("the call is under way", || world.standin.count() == 1).await;
        purge(&world, json!({ "conversation_id": "c-another" })).await;
    });
    assert!(got.cache_status().ends_with("; stored"));
    assert!(world.get(&path).await.is_hit());
}

#[tokio::test]
async fn only_the_ops_token_opens_it_and_only_one_thing_is_purged_at_a_time() {
    let world = world(Vec::new()).await;
    assert_eq!(post(&world, &json!({ "all": true }), "wrong").await.status, StatusCode::UNAUTHORIZED);
    for body in
        [json!({}), json!({ "all": false }), json!({ "bot_id": "x", "all": true }), json!({ "bot": "x" })]
    {
        assert_eq!(post(&world, &body, TOKEN).await.problem(), "invalid-request", "{body}");
    }
    let closed = World::new().await;
    assert_eq!(post(&closed, &json!({ "all": true }), TOKEN).await.status, StatusCode::NOT_FOUND);
    closed.advance(HOUR);
}
