//! Who has an answer already is told so without being sent it again (RFC 9110 §13); HEAD is GET
//! without the body.

use http::Method;
use kore_standin::{Conversation, EXAMPLE_STREAM};

use crate::world::{DAY, MINUTE, REPORTING, World, before, conversation_path, got, window_path};

#[tokio::test]
async fn a_get_and_a_post_with_the_entity_tag_are_answered_304_without_a_call() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::of(vec![conversation]).await;
    let window = r#"{"startDate":"2026-02-26","endDate":"2026-02-27","timeZoneOffset":0}"#;
    let firsts = [world.get(&path).await, world.post(&window_path(), window).await];
    for first in firsts {
        let is_window = first.json().get("data").is_some();
        let ask = |tag: &str| {
            let request = if is_window {
                world.post_request(&window_path(), window, REPORTING)
            } else {
                world.request(Method::GET, &path, REPORTING)
            };
            got(request.header("if-none-match", tag))
        };
        let tag = first.header("etag");
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10, "{tag}");
        for sent in [tag.to_owned(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let answer = ask(&sent).await;
            assert_eq!(answer.status, 304, "{sent}");
            assert!(answer.body.is_empty());
            for name in ["etag", "cache-control", "vary", "date", "cache-status", "age", "ratelimit"] {
                assert!(answer.headers.contains_key(name), "no {name}");
            }
            assert_eq!(answer.header("etag"), tag);
        }
        assert_eq!(ask("\"another\"").await.status, 200);
    }
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn head_is_get_without_the_body_out_of_the_same_entry() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::of(vec![conversation]).await;
    let head = got(world.request(Method::HEAD, &path, REPORTING)).await;
    let get = world.get(&path).await;
    assert!(head.body.is_empty());
    assert!(get.is_hit());
    for name in ["content-length", "content-type", "etag", "cache-control", "vary"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    assert_eq!(world.standin.calls()[0].method, "GET");
    assert_eq!(world.standin.count(), 1);
}

#[tokio::test]
async fn an_answer_out_of_the_store_tells_its_age() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::of(vec![conversation]).await;
    assert_eq!(world.get(&path).await.header("age"), "0");
    world.advance(MINUTE);
    let hit = world.get(&path).await;
    assert_eq!(hit.header("age"), "60");
    assert_eq!(hit.header("cache-control"), "private, no-cache");
    let parsed = sfv::Parser::new(hit.cache_status()).parse::<sfv::List>().unwrap();
    assert_eq!(parsed.len(), 1, "{}", hit.cache_status());
}
