//! The access line says who called from where, and what the upstream had to do with it, in numbers that people read.

use std::path::PathBuf;

use http::Method;
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault};
use serde_json::Value;

use crate::world::{
    DAY, Got, MINUTE, NEIGHBOUR, REPORTING, World, before, change_config, conversation_path, got, reload,
    with_ops_token,
};

async fn world() -> (World, PathBuf, String) {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let mut file = PathBuf::new();
    let world = World::with(|setup| {
        file = setup.secrets.path().join("access.jsonl");
        setup.standin.conversations = vec![conversation];
        setup.config.push_str(&format!(
            "log = {{ access = true, access_to = {file:?} }}\nserver.trusted_proxies = [\"127.0.0.1\"]\n"
        ));
        with_ops_token(setup);
    })
    .await;
    (world, file, path)
}

/// The access line of an answer, as it is written.
fn line(world: &World, file: &PathBuf, answer: &Got) -> String {
    world.app.snapshot().access_log.flush(MINUTE);
    let text = std::fs::read_to_string(file).unwrap();
    let id = answer.header("x-request-id");
    text.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{id} in {text}")).to_owned()
}

async fn ask(world: &World, path: &str, key: &str) -> Got {
    got(world.request(Method::GET, path, key).header("x-forwarded-for", "192.0.2.7")).await
}

#[tokio::test]
async fn a_line_has_its_callers_address_and_the_calls_that_it_set_off() {
    let (world, file, path) = world().await;
    let miss = ask(&world, &path, REPORTING).await;
    let text = line(&world, &file, &miss);
    let said: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(said["address"], "192.0.2.7", "{said}");
    assert_eq!(said["cache"], "miss", "{said}");
    assert_eq!(said["upstream_host"], world.standin.address().to_string(), "{said}");
    assert_eq!(said["upstream_calls"], 1, "{said}");
    for number in ["duration_ms", "upstream_ms"] {
        let digits = text.split(&format!("\"{number}\":")).nth(1).unwrap().split([',', '}']).next().unwrap();
        let (_, fraction) = digits.split_once('.').unwrap();
        assert_eq!(fraction.len(), 3, "{number} in {text}");
    }
    let timestamp = said["timestamp"].as_str().unwrap();
    assert_eq!((timestamp.len(), &timestamp[19..20]), (24, "."), "{text}");

    let hit = ask(&world, &path, REPORTING).await;
    let said: Value = serde_json::from_str(&line(&world, &file, &hit)).unwrap();
    assert_eq!((&said["cache"], &said["upstream_host"]), (&Value::from("hit"), &Value::Null), "{said}");
}

#[tokio::test]
async fn a_call_that_fails_is_in_the_line_with_the_retries() {
    let (world, file, _) = world().await;
    world.standin.fault(Some(Fault::Status(503)));
    let failed = ask(&world, &conversation_path("c-1"), REPORTING).await;
    assert_eq!(failed.status, 503);
    let said: Value = serde_json::from_str(&line(&world, &file, &failed)).unwrap();
    assert_eq!(said["upstream_calls"], world.standin.count(), "{said}");

    // No answer: an error of the gateway's own.
    world.standin.fault(Some(Fault::Reset));
    world.advance(MINUTE);
    let refused = ask(&world, &conversation_path("c-2"), REPORTING).await;
    let said: Value = serde_json::from_str(&line(&world, &file, &refused)).unwrap();
    assert_eq!(said["error"], "upstream-invalid", "{said}");
    assert_eq!(said["upstream_host"], world.standin.address().to_string(), "{said}");
}

#[tokio::test]
async fn an_address_that_may_not_be_kept_is_in_no_line() {
    let (world, file, path) = world().await;
    change_config(&world, |written| format!("log.address = false\n{written}"));
    assert_eq!(reload(&world).await.status, 200);
    for key in [REPORTING, "wrong"] {
        let answer = ask(&world, &path, key).await;
        let text = line(&world, &file, &answer);
        assert!(!text.contains("address\"") && !text.contains("192.0.2.7"), "{text}");
    }
}

#[tokio::test]
async fn refusals_are_counted_by_client_and_by_the_kind_of_the_callers_address() {
    let (world, _, path) = world().await;
    let refused = async |status: u16, client: &str, address: &str| {
        let labels = format!("status=\"{status}\",client=\"{client}\",address=\"{address}\"");
        world.metric(&format!("kore_gateway_access_refused_total{{{labels}}}")).await
    };
    assert_eq!(refused(403, "neighbour", "private").await, 0.0, "there from the first scrape on");
    assert_eq!(ask(&world, &path, "wrong").await.status, 401);
    assert_eq!(got(world.request(Method::GET, &path, "wrong")).await.status, 401);
    let inside = world.request(Method::GET, &path, NEIGHBOUR).header("x-forwarded-for", "10.1.2.3");
    assert_eq!(got(inside).await.status, 403);
    assert_eq!(ask(&world, &path, REPORTING).await.status, 200);
    for (status, client, address, count) in [
        (401, "none", "public", 1.0),
        (401, "none", "loopback", 1.0),
        (401, "none", "private", 0.0),
        (403, "neighbour", "private", 1.0),
        (403, "neighbour", "public", 0.0),
    ] {
        assert_eq!(refused(status, client, address).await, count, "{status} {client} {address}");
    }
}
