//! A caller whose body is late is answered by what holds when it has come: not by what was fresh, nor
//! by what he might see, when his head came.

use std::time::Duration;

use kore_gateway::access::identify::key_digest;
use kore_standin::{Conversation, EXAMPLE_STREAM};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::peak_memory;
use crate::process::{own_process, up_to};
use crate::world::{
    DAY, HOUR, REPORTING, World, before, change_config, client, conversation_path, reload, transcript_path,
    until, with_ops_token,
};

const KEY: &str = "kg_late";

/// A gateway that has a transcript in its store, and a caller who has sent all of a request for it but
/// the last byte.
struct Late {
    world: World,
    stream: TcpStream,
    last: u8,
    block: String,
}

impl Late {
    async fn with_key(expires: &str) -> Self {
        let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
        let body = json!({ "sessionId": conversation.session_id }).to_string();
        let path = conversation_path(&conversation.conversation_id);
        let digest = hex::encode(key_digest(KEY.as_bytes()));
        let block = client("late", KEY).rate_limit("1000/min").toml().replace(
            &format!("api_key_sha256 = \"{digest}\""),
            &format!("api_keys = [{{ sha256 = \"{digest}\"{expires} }}]"),
        );
        let world = World::with(|setup| {
            with_ops_token(setup);
            setup.config.push_str("server.body_timeout = \"10m\"\n");
            setup.standin.conversations = vec![conversation];
            setup.clients = block.clone();
        })
        .await;
        world.get(&path).await;
        assert!(world.post(&transcript_path(), &body).await.cache_status().ends_with("; stored"));
        assert!(world.post(&transcript_path(), &body).await.is_hit());

        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {KEY}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            transcript_path(),
            body.len()
        );
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let (last, first) = body.as_bytes().split_last().unwrap();
        stream.write_all(&[head.as_bytes(), first].concat()).await.unwrap();
        // Counted when it comes; on this one thread it waits for its body by the time that is seen.
        until("the head is in", || world.app.metrics.http.active_requests.get() == 1).await;
        Self { world, stream, last: *last, block }
    }

    /// The answer, once the last byte is sent.
    async fn answer(&mut self) -> String {
        self.stream.write_all(&[self.last]).await.unwrap();
        let mut answer = Vec::new();
        self.stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[tokio::test]
async fn what_was_fresh_when_the_head_came_is_not_served_past_its_lifetime() {
    let mut late = Late::with_key("").await;
    let calls = late.world.standin.count();
    late.world.advance(400 * DAY);
    let answer = late.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("fwd=uri-miss"), "{answer}");
    assert_eq!(late.world.standin.count(), calls + 1);
}

#[tokio::test]
async fn a_hit_tells_its_age_when_it_is_handed_out() {
    let mut late = Late::with_key("").await;
    late.world.advance(Duration::from_secs(77));
    let answer = late.answer().await;
    assert!(answer.contains("kore-gateway; hit") && answer.contains("age: 77\r\n"), "{answer}");
}

#[tokio::test]
async fn a_key_that_is_revoked_meanwhile_gets_no_hit() {
    let mut late = Late::with_key("").await;
    change_config(&late.world, |written| written.replace(&late.block, ""));
    assert_eq!(reload(&late.world).await.status, 200);
    let answer = late.answer().await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn a_key_that_ends_meanwhile_gets_no_hit() {
    // Noon and an hour.
    let mut late = Late::with_key(", expires = 2026-03-02T13:00:00Z").await;
    late.world.advance(HOUR);
    let answer = late.answer().await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

/// In a process of the gateway's own, for it is the process's memory that is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_in_parts_of_one_byte_takes_no_more_memory_than_its_bytes() {
    const REQUESTS: usize = 40;
    let world = World::new().await;
    let (gateway, url) = own_process(&world, &up_to("32MiB")).await;
    let address = url.strip_prefix("http://").unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {address}\r\nX-Api-Key: {REPORTING}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        transcript_path()
    );
    let before = peak_memory(gateway.id().unwrap());
    let parts = [head.as_bytes(), &b"1\r\n \r\n".repeat(60_000)].concat();
    let mut streams = Vec::new();
    for _ in 0..REQUESTS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&parts).await.unwrap();
        streams.push(stream);
    }
    // All of it has been read once it is answered.
    for stream in &mut streams {
        stream.write_all(b"2\r\n{}\r\n0\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 400");
    }
    let grown = peak_memory(gateway.id().unwrap()) - before;
    println!("{REQUESTS} bodies of 60,000 parts: grown by {grown} KiB");
    assert!(grown < 60 * 1024, "{grown} KiB");
}
