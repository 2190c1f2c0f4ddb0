//! What is purged is gone at once, in every form, and does not come back; nothing else goes.

use http::{Method, StatusCode};
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault, Gate, OTHER_ACCOUNT, OTHER_STREAM};
use serde_json::{Value, json};

use crate::world::{
    DAY, Got, HOUR, NEIGHBOUR, SECOND, World, before, conversation_path, got, transcript_path, until,
    window_path,
};

const TOKEN: &str = "ops-token-of-the-purge";

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
        let gate = Gate::closed();
        world.standin.fault_next(1, Fault::Held(gate.clone()));
        let (old, new) = tokio::join!(world.get(&path), async {
            until("the first call has been judged", || world.standin.count() == 1).await;
            // From here on the upstream would say something else.
            world.standin.put(conversation.clone().padded(1000));
            assert_eq!(purge(&world, purged.clone()).await, 0);
            let new = world.get(&path).await;
            gate.open();
            new
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
    let gate = Gate::closed();
    world.standin.fault_next(1, Fault::Held(gate.clone()));
    let (got, ()) = tokio::join!(world.get(&path), async {
        until("the call is under way", || world.standin.count() == 1).await;
        purge(&world, json!({ "conversation_id": "c-another" })).await;
        gate.open();
    });
    assert!(got.cache_status().ends_with("; stored"));
    assert!(world.get(&path).await.is_hit());
}

/// The purge lets the next one start a call of his own, and that one can be faster.
#[tokio::test]
async fn an_answer_that_lands_late_neither_replaces_nor_removes_what_was_asked_for_after_it() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    for is_there in [true, false] {
        let world = world(if is_there { vec![conversation.clone()] } else { Vec::new() }).await;
        let path = conversation_path(&conversation.conversation_id);
        let gate = Gate::closed();
        world.standin.fault_next(1, Fault::Held(gate.clone()));
        let (late, new) = tokio::join!(world.get(&path), async {
            until("the first call has been judged", || world.standin.count() == 1).await;
            world.standin.put(conversation.clone().padded(1000));
            purge(&world, json!({ "conversation_id": "c-another" })).await;
            world.advance(SECOND);
            let new = world.get(&path).await;
            gate.open();
            new
        });
        assert_eq!(late.status, if is_there { 200 } else { 404 });
        let reason = if is_there { "superseded" } else { "status" };
        assert!(late.cache_status().ends_with(&format!("stored=?0; detail={reason}")), "{late:?}");
        assert!(new.cache_status().ends_with("; stored"));
        let later = world.get(&path).await;
        assert!(later.is_hit() && later.body == new.body);
        assert_eq!(world.standin.count(), 2);
    }
}

/// Nor does it come back after an answer that was asked for later and is not stored: there is none, or
/// it goes on.
#[tokio::test]
async fn an_answer_that_lands_late_does_not_come_after_one_that_made_it_void() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let world = world(vec![conversation.clone()]).await;
    let path = conversation_path(&conversation.conversation_id);
    let gate = Gate::closed();
    world.standin.fault_next(1, Fault::Held(gate.clone()));
    let (late, new) = tokio::join!(world.get(&path), async {
        until("the first call has been judged", || world.standin.count() == 1).await;
        purge(&world, json!({ "conversation_id": "c-another" })).await;
        world.advance(SECOND);
        world.standin.fault_next(1, Fault::Status(404));
        let new = world.get(&path).await;
        gate.open();
        new
    });
    assert_eq!((late.status.as_u16(), new.status.as_u16()), (200, 404));
    assert!(late.cache_status().ends_with("stored=?0; detail=superseded"), "{late:?}");
    assert_eq!(world.app.cache.size().0, 0);
    assert!(world.get(&path).await.cache_status().ends_with("; stored"));
    assert_eq!(world.standin.count(), 3);
}

/// What a window of bot sessions, or a transcript of one, is told of: no conversation.
struct Links {
    world: World,
    session: String,
}

impl Links {
    const CONVERSATION: &str = "c-69a51b80-0000-4000-8000-000000000001";

    fn row(&self, conversation: Option<&str>) -> Value {
        let mut row = json!({ "sessionId": self.session, "botId": EXAMPLE_STREAM, "finalStatus": "CLOSED" });
        row["sessionStartTime"] = "2026-02-28T10:00:00".into();
        row["sessionEndTime"] = "2026-02-28T10:30:00".into();
        if let Some(conversation) = conversation {
            row["conversationId"] = conversation.into();
        }
        row
    }

    /// Asks for the window of a day, of which the upstream tells these rows.
    async fn window(&self, day: &str, rows: &[Value]) -> Got {
        let body = json!({ "numResults": rows.len(), "data": rows }).to_string();
        self.world.standin.serve_body("interactionDetails", 200, "application/json", body);
        let window = json!({ "startDate": day, "endDate": "2026-02-28", "timeZoneOffset": 0 });
        self.world.post(&window_path(), window).await
    }

    async fn transcript(&self) -> Got {
        self.world.post(&transcript_path(), json!({ "sessionId": self.session })).await
    }

    /// A window and a transcript are stored, and only then it is told whose they are.
    async fn new(tell_first: bool) -> Self {
        let links = Self { world: world(Vec::new()).await, session: "69a51b80c0ffee0000000001".to_owned() };
        if tell_first {
            links.tell().await;
        }
        let info = json!({ "sessionId": links.session, "callId": "k-1" });
        let transcript = json!({ "conversationInfo": info, "conversationHistory": [] });
        let body = transcript.to_string();
        links.world.standin.serve_body("conversationDetails", 200, "application/json", body);
        links.window("2026-02-27", &[links.row(None)]).await;
        links.transcript().await;
        assert!(links.transcript().await.is_hit());
        if !tell_first {
            links.tell().await;
        }
        links
    }

    /// An answer that goes by names the session and its conversation together; and many others.
    async fn tell(&self) {
        let mut rows: Vec<_> = (0..100).map(|n| self.row(Some(&format!("c-other-{n}")))).collect();
        rows.insert(0, self.row(Some(Self::CONVERSATION)));
        let told = self.window("2026-02-26", &rows).await;
        assert!(told.cache_status().ends_with("; stored"), "{}", told.cache_status());
    }
}

#[tokio::test]
async fn what_is_known_to_be_a_conversations_goes_with_it_whenever_that_was_learnt() {
    for tell_first in [true, false] {
        let links = Links::new(tell_first).await;
        assert_eq!(purge(&links.world, json!({ "conversation_id": Links::CONVERSATION })).await, 3);
        assert!(!links.transcript().await.is_hit());
    }
}

/// Too late to be counted, but not too late to be forgotten.
#[tokio::test]
async fn what_turns_out_after_the_purge_to_be_the_conversations_is_gone_from_then_on() {
    let links = Links::new(false).await;
    purge(&links.world, json!({ "all": true })).await;
    links.window("2026-02-27", &[links.row(None)]).await;
    // Nobody has told of this one yet.
    let another = "c-another";
    links.transcript().await;
    assert!(links.transcript().await.is_hit());
    assert_eq!(purge(&links.world, json!({ "conversation_id": another })).await, 0);
    assert!(links.transcript().await.is_hit());
    links.window("2026-02-25", &[links.row(Some(another))]).await;
    let again = links.transcript().await;
    assert!(again.cache_status().ends_with("; stored"), "{}", again.cache_status());
    // It was asked for after the purge, so it stays, whoever tells the same again.
    links.window("2026-02-24", &[links.row(Some(another))]).await;
    assert!(links.transcript().await.is_hit());
}

#[tokio::test]
async fn a_session_takes_its_conversations_and_their_windows_along_and_no_other_record() {
    let town = Town::new().await;
    let (first, second) = (&town.first, &town.second);
    let row = |of: &Conversation, session: &str| {
        json!({ "sessionId": session, "conversationId": of.conversation_id, "finalStatus": "CLOSED",
                "sessionStartTime": "2026-02-28T10:00:00", "sessionEndTime": "2026-02-28T10:30:00" })
    };
    // The second conversation was in a session of the first as well.
    let rows = [row(first, &first.session_id), row(second, &first.session_id)];
    let body = json!({ "numResults": 2, "data": rows }).to_string();
    town.world.standin.serve_body("interactionDetails", 200, "application/json", body);
    let window = json!({ "startDate": "2026-02-27", "endDate": "2026-02-28", "timeZoneOffset": 0 });
    let other_window = async || town.world.post(&window_path(), &window).await;
    other_window().await;
    town.world.standin.clear_faults();
    assert!(other_window().await.is_hit());
    assert_eq!(town.hits().await, [true; 6]);
    // The first's record and transcript, both windows; not the record of the second.
    purge(&town.world, json!({ "conversation_id": first.conversation_id })).await;
    assert!(town.hits().await[2]);
    assert!(!other_window().await.is_hit());
    other_window().await;
    purge(&town.world, json!({ "session_id": first.session_id })).await;
    assert_eq!(town.hits().await[..3], [false, false, false]);
    assert!(!other_window().await.is_hit());
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
