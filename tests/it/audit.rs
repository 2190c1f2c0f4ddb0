//! For each body that is handed out there is one line that says to whom, and nothing of what it
//! says; a line that cannot be written is counted, and keeps its body back if so configured.

use std::path::PathBuf;

use http::Method;
use kore_gateway::access::identify::key_digest;
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM};
use serde_json::{Value, json};

use crate::world::{
    DAY, REPORTING, World, before, change_config, client, conversation_path, got, reload, transcript_path,
    window_path, with_ops_token,
};

const LOST: &str = r#"kore_gateway_audit_records_total{result="failure"}"#;

struct Audited {
    world: World,
    file: PathBuf,
    conversation: Conversation,
}

impl Audited {
    async fn new() -> Self {
        let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
        let mut file = PathBuf::new();
        let world = World::with(|setup| {
            with_ops_token(setup);
            setup.standin.conversations = vec![conversation.clone()];
            file = setup.secrets.path().join("audit.jsonl");
            let config = format!(
                "audit.to = \"{}\"\n[redaction.no-names]\nremove = [\"/userInfo\"]\n",
                file.display()
            );
            setup.config.push_str(&config);
            setup.clients = client("masked", "kg_masked").rate_limit("100/s").toml();
            setup.clients.push_str("redact = [\"no-names\"]\n");
        })
        .await;
        Self { world, file, conversation }
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn each_body_leaves_one_line_and_what_has_none_leaves_none() {
    let audited = Audited::new().await;
    let Audited { world, conversation, .. } = &audited;
    let path = conversation_path(&conversation.conversation_id);
    let first = got(world.request(Method::GET, &path, REPORTING).header("x-request-id", "r-1")).await;
    got(world.request(Method::GET, &path, "kg_masked").header("x-request-id", "r-2")).await;
    let who = |key: &str| hex::encode(key_digest(key.as_bytes()))[..8].to_owned();
    let line = json!({
        "time": "2026-03-02T12:00:00.000Z", "request_id": "r-1", "client": "reporting", "who": who(REPORTING),
        "address": "127.0.0.1", "route": "conversation", "account": EXAMPLE_ACCOUNT, "bot": EXAMPLE_STREAM,
        "id": conversation.conversation_id, "status": 200, "outcome": "miss", "redaction": [],
        "own_rows_only": false,
    });
    let mut masked = line.clone();
    for (name, value) in [
        ("request_id", json!("r-2")),
        ("client", json!("masked")),
        ("who", json!(who("kg_masked"))),
        ("outcome", json!("hit")),
        ("redaction", json!(["no-names"])),
    ] {
        masked[name] = value;
    }
    // A hit of the whole answer, which takes the shortest way there is.
    got(world.request(Method::GET, &path, REPORTING).header("x-request-id", "r-3")).await;
    let mut plain = line.clone();
    (plain["request_id"], plain["outcome"]) = (json!("r-3"), json!("hit"));
    assert_eq!(audited.lines(), [line, masked, plain]);

    // No body: not modified, a HEAD, and what the gateway itself has to say.
    let etag = first.header("etag");
    got(world.request(Method::GET, &path, REPORTING).header("if-none-match", etag)).await;
    got(world.request(Method::HEAD, &path, REPORTING)).await;
    got(world.request(Method::GET, &path, "kg_unknown")).await;
    got(world.post_request(&window_path(), "{}", REPORTING)).await;
    assert_eq!(audited.lines().len(), 3);

    // A body of the upstream's, whatever its status.
    got(world.request(Method::GET, &conversation_path("c-2"), REPORTING)).await;
    let transcript = format!(r#"{{"sessionId":"{}"}}"#, conversation.session_id);
    got(world.post_request(&transcript_path(), transcript, REPORTING)).await;
    let week = r#"{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":0}"#;
    got(world.post_request(&window_path(), week, REPORTING)).await;
    let lines = audited.lines();
    assert_eq!((&lines[3]["status"], &lines[3]["id"]), (&json!(404), &json!("c-2")));
    assert_eq!(lines[4]["id"], conversation.session_id);
    assert_eq!((&lines[5]["route"], lines[5].get("id")), (&json!("interaction_details"), None));
    assert_eq!(lines[5]["window"], json!(["2026-02-16T00:00:00.000Z", "2026-02-23T00:00:00.000Z"]));
    assert_eq!(world.metric(r#"kore_gateway_audit_records_total{result="success"}"#).await, 6.0);
    assert_eq!(world.metric(LOST).await, 0.0);

    let text = std::fs::read_to_string(&audited.file).unwrap();
    for content in ["Asha", "203.0.113.69", "ACTIVE", REPORTING] {
        assert!(!text.contains(content), "{content}");
    }
}

#[tokio::test]
async fn many_at_once_leave_a_whole_line_each() {
    let audited = Audited::new().await;
    let path = conversation_path(&audited.conversation.conversation_id);
    let all = (0..200).map(|_| got(audited.world.request(Method::GET, &path, REPORTING)));
    let answers = futures_util::future::join_all(all).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(audited.lines().len(), 200);
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_made_again_by_a_reload() {
    let audited = Audited::new().await;
    let path = conversation_path(&audited.conversation.conversation_id);
    got(audited.world.request(Method::GET, &path, REPORTING)).await;
    let moved = audited.file.with_extension("1");
    std::fs::rename(&audited.file, &moved).unwrap();
    assert_eq!(reload(&audited.world).await.status, 200);
    got(audited.world.request(Method::GET, &path, REPORTING)).await;
    assert_eq!(audited.lines().len(), 1);
    assert_eq!(std::fs::read_to_string(moved).unwrap().lines().count(), 1);
}

/// `/dev/full` is a disk on which nothing has room.
#[tokio::test]
async fn a_full_disk_is_counted_and_keeps_bodies_back_if_so_configured() {
    for (on_failure, status) in [("serve", 200), ("refuse", 503)] {
        let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
        let path = conversation_path(&conversation.conversation_id);
        let world = World::with(|setup| {
            setup.standin.conversations = vec![conversation];
            setup.config = format!("audit = {{ to = \"/dev/full\", on_failure = \"{on_failure}\" }}");
        })
        .await;
        for lost in [1.0, 2.0] {
            let answer = got(world.request(Method::GET, &path, REPORTING)).await;
            assert_eq!(answer.status, status, "{on_failure}");
            if status == 503 {
                assert_eq!(answer.problem(), "audit-unavailable");
                assert_eq!(answer.header("retry-after"), "1");
                assert!(!answer.headers.contains_key("etag"));
            }
            assert_eq!(world.metric(LOST).await, lost);
        }
    }
}

/// Room again by another file, and what a crash left of a line in it is ended first.
#[tokio::test]
async fn after_a_full_disk_bodies_are_handed_out_again_as_soon_as_there_is_room() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let mut file = PathBuf::new();
    let world = World::with(|setup| {
        with_ops_token(setup);
        file = setup.secrets.path().join("audit.jsonl");
        setup.standin.conversations = vec![conversation];
        setup.clients = "[audit]\nto = \"/dev/full\"\non_failure = \"refuse\"\n".to_owned();
    })
    .await;
    std::fs::write(&file, "{\"time\":\"2026-03-02T11:").unwrap();
    let status = async || got(world.request(Method::GET, &path, REPORTING)).await.status.as_u16();
    assert_eq!((status().await, status().await), (503, 503));
    change_config(&world, |written| written.replace("/dev/full", file.to_str().unwrap()));
    assert_eq!(reload(&world).await.status, 200);
    assert_eq!((status().await, status().await), (200, 200));
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, "{\"time\":\"2026-03-02T11:"));
    assert!(lines[1..].iter().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert_eq!(world.standin.count(), 1);
}
