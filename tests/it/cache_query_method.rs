//! The two queries that are POSTs are asked by QUERY (RFC 10008) as well, out of the same entry.

use http::{Method, StatusCode};
use kore_standin::{Conversation, EXAMPLE_STREAM};
use serde_json::json;

use crate::world::{DAY, REPORTING, World, before, conversation_path, got, transcript_path, window_path};

#[tokio::test]
async fn query_and_post_share_one_entry_and_each_answer_says_which_queries_are_taken() {
    let over = Conversation::closed_at(EXAMPLE_STREAM, 1, before(2 * DAY));
    let world = World::of(vec![over.clone()]).await;
    world.get(&conversation_path(&over.conversation_id)).await;
    world.standin.forget();
    let window = json!({ "startDate": "2026-02-28", "endDate": "2026-02-28", "timeZoneOffset": 0 });
    let asked = [(window_path(), window), (transcript_path(), json!({ "sessionId": over.session_id }))];
    for (path, body) in &asked {
        let query = || {
            let request = world.request(Method::QUERY, path, REPORTING);
            request.header("content-type", "application/json").body(body.to_string())
        };
        let first = got(query()).await;
        assert!(first.cache_status().ends_with("; stored"), "{first:?}");
        assert_eq!(first.header("accept-query"), "\"application/json\"");
        let posted = world.post(path, body).await;
        assert!(posted.is_hit());
        assert_eq!((&posted.body, posted.header("accept-query")), (&first.body, "\"application/json\""));
        let again = got(query().header("if-none-match", first.header("etag"))).await;
        assert_eq!(again.status, StatusCode::NOT_MODIFIED);
        // What goes upstream is a POST: the upstream knows no other.
        assert_eq!(world.standin.calls().last().unwrap().method, "POST");
    }
    assert_eq!(world.standin.count(), 2);
    world.assert_no_violations();
}

#[tokio::test]
async fn a_query_says_its_type_and_is_not_for_the_get() {
    let world = World::new().await;
    let untyped = world.request(Method::QUERY, &transcript_path(), REPORTING).body(r#"{"sessionId":"s"}"#);
    let untyped = got(untyped).await;
    assert_eq!(
        (untyped.status, untyped.problem()),
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type".into())
    );
    assert_eq!(untyped.header("accept-query"), "\"application/json\"");
    let of_get = got(world.request(Method::QUERY, &conversation_path("c-1"), REPORTING)).await;
    assert_eq!((of_get.status, of_get.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    assert_eq!(of_get.header("accept-query"), "");
    let wrong = got(world.request(Method::PUT, &window_path(), REPORTING)).await;
    assert_eq!(wrong.header("allow"), "POST, QUERY");
    assert_eq!(wrong.header("accept-query"), "\"application/json\"");
    assert_eq!(world.standin.count(), 0);
}
