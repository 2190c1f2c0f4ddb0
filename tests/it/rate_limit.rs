//! Each client has a limit of its own, is told where it stands on every answer, and is served again
//! after waiting as long as it was told to (draft-ietf-httpapi-ratelimit-headers-11).

use std::time::Duration;

use http::Method;
use kore_gateway::standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM};

use crate::world::{DAY, REPORTING, World, before, client, conversation_path, got, window_path};

const KEY: &str = "kg_slow";

async fn world() -> (World, String) {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation];
        setup.clients = client("slow", KEY, EXAMPLE_ACCOUNT, "*", "3/min");
    })
    .await;
    (world, path)
}

#[tokio::test]
async fn every_answer_tells_where_the_client_stands() {
    let (world, path) = world().await;
    let first = got(world.request(Method::GET, &path, KEY)).await;
    assert_eq!(first.header("ratelimit-policy"), r#""client";q=3;w=60, "upstream";q=60;w=60"#);
    assert_eq!(first.header("ratelimit"), r#""client";r=2;t=20, "upstream";r=59;t=60"#);
    let invalid = got(world.post_request(&window_path(), "{}", KEY)).await;
    assert_eq!(invalid.status, 400);
    assert_eq!(invalid.header("ratelimit"), r#""client";r=1;t=40, "upstream";r=59;t=60"#);
    let unknown = got(world.request(Method::GET, &conversation_path("c-2"), KEY)).await;
    assert_eq!(unknown.header("ratelimit"), r#""client";r=0;t=20, "upstream";r=58;t=60"#);
}

#[tokio::test]
async fn over_the_limit_is_429_and_waiting_as_told_works() {
    let (world, path) = world().await;
    for _ in 0..3 {
        assert_eq!(got(world.request(Method::GET, &path, KEY)).await.status, 200);
    }
    let over = got(world.request(Method::GET, &path, KEY)).await;
    assert_eq!((over.status.as_u16(), over.problem()), (429, "quota-exceeded".to_owned()));
    assert_eq!(over.json()["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(over.json()["violated-policies"][0], "client");
    assert_eq!(over.header("ratelimit"), r#""client";r=0;t=20"#);
    assert_eq!(over.header("retry-after"), "20");
    assert_eq!(world.metric(r#"kore_gateway_rate_limited_total{client="slow"}"#).await, 1.0);

    assert_eq!(got(world.request(Method::GET, &path, REPORTING)).await.status, 200, "another client's limit");
    let wait = over.header("retry-after").parse().unwrap();
    world.advance(Duration::from_secs(wait));
    assert_eq!(got(world.request(Method::GET, &path, KEY)).await.status, 200);
    assert_eq!(world.standin.count(), 1);
}
