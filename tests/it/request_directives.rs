//! What a request's `Cache-Control` asks for: `no-cache` an answer that was asked for after it, `no-store` that
//! nothing is stored for it, `only-if-cached` that nothing is fetched for it (RFC 9111 §5.2.1).

use http::{Method, StatusCode};
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault, Gate};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::world::{
    DAY, Got, HOUR, ONE_BOT, REPORTING, SECOND, World, before, client, conversation_path, got,
    transcript_path, until, window_path,
};

const FRESH: &str = "kg_fresh";

fn settled() -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, 1, before(2 * DAY))
}

fn path() -> String {
    conversation_path(&settled().conversation_id)
}

async fn world_with(config: &str) -> World {
    World::with(|setup| {
        setup.standin.conversations = vec![settled()];
        setup.without_quota = true;
        setup.config = config.to_owned();
        setup.clients = client("fresh", FRESH).rate_limit("100000/min").toml() + "may_refresh = true\n";
    })
    .await
}

async fn world() -> World {
    world_with("").await
}

/// With a `Cache-Control` field for each of `fields`.
async fn asked(request: RequestBuilder, fields: &[&str]) -> Got {
    got(fields.iter().fold(request, |request, field| request.header("cache-control", *field))).await
}

async fn get(world: &World, key: &str, fields: &[&str]) -> Got {
    asked(world.request(Method::GET, &path(), key), fields).await
}

/// Every way to ask for something.
fn every_request(world: &World) -> Vec<(&'static str, RequestBuilder)> {
    let days: Value = json!({ "startDate": "2026-02-28", "endDate": "2026-03-01", "timeZoneOffset": 0 });
    let transcript = json!({ "sessionId": settled().session_id });
    let query = |path: &str, body: &Value| {
        let request = world.request(Method::QUERY, path, REPORTING);
        request.header("content-type", "application/json").body(body.to_string())
    };
    vec![
        ("GET", world.request(Method::GET, &path(), REPORTING)),
        ("HEAD", world.request(Method::HEAD, &path(), REPORTING)),
        ("window", world.post_request(&window_path(), &days, REPORTING)),
        ("QUERY window", query(&window_path(), &days)),
        ("transcript", world.post_request(&transcript_path(), &transcript, REPORTING)),
        ("QUERY transcript", query(&transcript_path(), &transcript)),
    ]
}

fn assert_not_cached(got: &Got, what: &str) {
    assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT, "{what}");
    if !got.body.is_empty() {
        assert_eq!(got.problem(), "not-cached", "{what}");
    }
}

#[tokio::test]
async fn only_if_cached_never_makes_a_call_and_gets_what_is_stored_on_every_route() {
    let world = world().await;
    for (what, request) in every_request(&world) {
        assert_not_cached(&asked(request, &["only-if-cached"]).await, what);
    }
    assert_eq!(world.standin.count(), 0);
    let bypassed =
        |route| format!("kore_gateway_cache_requests_total{{route=\"{route}\",outcome=\"bypass\"}}");
    for route in ["conversation", "interaction_details", "conversation_details"] {
        assert_eq!(world.metric(&bypassed(route)).await, 2.0, "{route}");
    }
    for (_, request) in every_request(&world) {
        got(request).await;
    }
    assert_eq!(world.standin.count(), 3);
    for (what, request) in every_request(&world) {
        let got = asked(request, &["max-age=60", "x=\"a,b\", Only-If-Cached"]).await;
        assert!(got.status == StatusCode::OK && got.is_hit(), "{what}: {}", got.cache_status());
    }
    assert_eq!(world.standin.count(), 3);
}

#[tokio::test]
async fn only_if_cached_gets_an_answer_past_its_lifetime_as_far_as_that_may_be_served_and_no_other() {
    let world =
        world_with("[cache.conversation]\nstale_while_revalidate = \"6h\"\nstale_if_error = \"12h\"").await;
    get(&world, REPORTING, &[]).await;
    world.advance(DAY);
    let stale = get(&world, REPORTING, &["only-if-cached"]).await;
    assert!(stale.cache_status().ends_with("; detail=stale-while-revalidate"), "{}", stale.cache_status());
    world.advance(6 * HOUR);
    assert_not_cached(&get(&world, REPORTING, &["only-if-cached"]).await, "nothing has failed");
    // Had either of them set off a call, it would have been made by the time that this one has ended.
    world.advance(DAY);
    get(&world, REPORTING, &[]).await;
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn only_if_cached_does_not_join_a_call_and_gets_what_can_be_cut_out_of_what_is_stored() {
    let world = world().await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let (first, ()) = tokio::join!(get(&world, REPORTING, &[]), async {
        until("the call is under way", || world.standin.count() == 1).await;
        assert_not_cached(&get(&world, REPORTING, &["only-if-cached"]).await, "a call is under way");
        gate.open();
    });
    assert_eq!(first.status, StatusCode::OK);
    world.standin.clear_faults();
    let transcript = |summary: bool| {
        let body = json!({ "sessionId": settled().session_id, "isSummaryRequired": summary });
        world.post_request(&transcript_path(), body, REPORTING)
    };
    got(transcript(true)).await;
    assert_eq!(world.standin.count(), 2);
    let cut = asked(transcript(false), &["only-if-cached"]).await;
    assert!(cut.is_hit(), "{}", cut.cache_status());
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn only_if_cached_with_no_cache_is_not_to_be_had_by_who_may_refresh() {
    let world = world().await;
    get(&world, REPORTING, &[]).await;
    assert_not_cached(&get(&world, FRESH, &["only-if-cached, no-cache"]).await, "a contradiction");
    assert!(
        get(&world, REPORTING, &["only-if-cached, no-cache"]).await.is_hit(),
        "to others no-cache is nothing"
    );
    assert_eq!(world.standin.count(), 1);
}

/// Whether what is kept from a caller is there at all, `only-if-cached` does not tell either.
#[tokio::test]
async fn what_a_limited_client_may_not_see_is_to_only_if_cached_like_what_is_not_stored() {
    let world = world().await;
    let body = serde_json::to_string(&json!({ "_id": "c-hidden", "status": "CLOSED", "botId": "st-another",
        "endTime": "2026-01-01T00:00:00Z" }));
    world.standin.serve_body("/conversations/c-hidden", 200, "application/json", body.unwrap().into_bytes());
    let mut seen = Vec::new();
    for id in ["c-hidden", "c-nowhere"] {
        got(world.request(Method::GET, &conversation_path(id), REPORTING)).await;
        let refused = got(world.request(Method::GET, &conversation_path(id), ONE_BOT)).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{id}");
        let refused =
            asked(world.request(Method::GET, &conversation_path(id), ONE_BOT), &["only-if-cached"]).await;
        assert_not_cached(&refused, id);
        let mut problem = refused.json();
        problem["request_id"] = Value::Null;
        seen.push(problem);
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn what_is_fetched_for_a_request_with_no_store_is_not_stored_on_any_route() {
    let world = world().await;
    // What is known of the conversation lets its transcript be stored.
    get(&world, REPORTING, &[]).await;
    let purge = kore_gateway::cache::Purge::All;
    for (what, request) in every_request(&world) {
        world.app.cache.purge(purge.clone());
        world.standin.forget();
        let again = request.try_clone().unwrap();
        let fetched = asked(request, &["No-Store"]).await;
        assert!(
            fetched.cache_status().ends_with("; stored=?0; detail=no-store"),
            "{}",
            fetched.cache_status()
        );
        assert_eq!(world.app.cache.size().0, 0, "{what}");
        let stored = got(again.try_clone().unwrap()).await;
        assert!(stored.cache_status().ends_with("; stored"), "{}", stored.cache_status());
        let hit = asked(again, &["no-store"]).await;
        assert!(hit.is_hit(), "what is stored already may be handed out: {}", hit.cache_status());
        assert_eq!(world.standin.count(), 2, "{what}");
    }
}

#[tokio::test]
async fn what_others_wait_for_as_well_is_stored_whoever_of_them_wants_it_not() {
    for (first, second) in [("no-store", "max-age=60"), ("max-age=60", "no-store")] {
        let world = world().await;
        let gate = Gate::closed();
        world.standin.fault(Some(Fault::Held(gate.clone())));
        let (first, second, ()) = tokio::join!(
            get(&world, REPORTING, std::slice::from_ref(&first)),
            async {
                until("the call is under way", || world.standin.count() == 1).await;
                get(&world, REPORTING, &[second]).await
            },
            async {
                until("both wait", || world.app.metrics.http.active_requests.get() == 2).await;
                gate.open();
            }
        );
        for got in [first, second] {
            assert!(got.cache_status().contains("; stored"), "{}", got.cache_status());
            assert!(!got.cache_status().contains("detail=no-store"), "{}", got.cache_status());
        }
        assert!(get(&world, REPORTING, &[]).await.is_hit());
        assert_eq!(world.standin.count(), 1);
    }
}

#[tokio::test]
async fn no_store_sets_off_no_refresh_whose_answer_would_be_stored() {
    let world = world_with("cache.conversation.stale_while_revalidate = \"6h\"").await;
    get(&world, REPORTING, &[]).await;
    world.advance(DAY);
    let stale = get(&world, REPORTING, &["no-store"]).await;
    assert!(stale.cache_status().ends_with("; detail=stale-while-revalidate"), "{}", stale.cache_status());
    world.advance(7 * HOUR);
    assert!(!get(&world, REPORTING, &["no-store"]).await.is_hit());
    assert_eq!(world.standin.count(), 2);
}

/// Bodies that differ from call to call.
fn numbered(world: &World, number: u32) {
    let body = format!(r#"{{"_id":"{}","status":"ACTIVE","number":{number}}}"#, settled().conversation_id);
    world.standin.serve_body("/conversations/", 200, "application/json", body.into_bytes());
}

#[tokio::test]
async fn no_cache_gets_an_answer_that_was_asked_for_after_it_and_later_requests_share_that() {
    let world = world().await;
    let gate = Gate::closed();
    numbered(&world, 1);
    world.standin.fault_next(1, Fault::Held(gate.clone()));
    let (old, (), (anew, later)) = tokio::join!(
        get(&world, REPORTING, &[]),
        async {
            until("the first call is under way", || world.standin.count() == 1).await;
            numbered(&world, 2);
        },
        async {
            until("the first call is under way", || world.standin.count() == 1).await;
            world.advance(SECOND);
            let second = Gate::closed();
            world.standin.fault_next(1, Fault::Held(second.clone()));
            let (anew, later, ()) = tokio::join!(
                get(&world, FRESH, &["no-cache"]),
                async {
                    until("a second call is made", || world.standin.count() == 2).await;
                    get(&world, REPORTING, &[]).await
                },
                async {
                    until("all wait", || world.app.metrics.http.active_requests.get() == 3).await;
                    second.open();
                }
            );
            gate.open();
            (anew, later)
        }
    );
    assert_eq!(old.status, StatusCode::OK);
    assert_eq!(anew.json()["number"], 2);
    assert_eq!(later.json()["number"], 2, "who comes later gets the later answer");
    assert!(later.cache_status().contains("; collapsed"), "{}", later.cache_status());
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn many_who_come_with_no_cache_while_one_is_answered_share_the_next_call() {
    const MANY: usize = 50;
    let world = world().await;
    let gate = Gate::closed();
    numbered(&world, 1);
    world.standin.fault_next(1, Fault::Held(gate.clone()));
    let (first, (), many) = tokio::join!(
        get(&world, FRESH, &["no-cache"]),
        async {
            let under_way = || world.app.metrics.http.active_requests.get();
            until("all wait", || under_way() == i64::try_from(MANY + 1).unwrap()).await;
            numbered(&world, 2);
            gate.open();
        },
        async {
            until("the first call is under way", || world.standin.count() == 1).await;
            futures_util::future::join_all((0..MANY).map(|_| get(&world, FRESH, &["no-cache"]))).await
        }
    );
    assert_eq!(first.status, StatusCode::OK);
    assert!(many.iter().all(|got| got.json()["number"] == 2));
    assert_eq!(world.standin.count(), 2);
}
