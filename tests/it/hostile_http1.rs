//! Some three thousand hostile requests over HTTP/1, made from a small grammar and judged by what the
//! upstream received: none is read in two ways. Whatever becomes of one, the honest request behind it
//! gets its own answer or none, the request hidden in its body is never made, and what has a fault of
//! framing gets one refusal and the end of its connection.

mod corpus;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use kore_standin::{Conversation, EXAMPLE_STREAM};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{DAY, REPORTING, SECOND, World, before, conversation_path};
use corpus::{Corpus, Hostile, Must};

/// Honest requests behind the hostile ones; each is asked for again and again.
const CANARIES: u64 = 97;
/// Connections at a time.
const AT_ONCE: usize = 32;
/// Statuses that the guard refuses with.
const REFUSED: [u16; 7] = [400, 413, 414, 417, 431, 501, 505];

/// An answer as a caller reads it: status, whether the connection ends, body.
struct Answer {
    status: u16,
    closes: bool,
    body: Vec<u8>,
}

/// The answers in all that came; what is none fails.
fn answers(mut bytes: &[u8], what: &str, to_head: bool) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{what}: {:?}", String::from_utf8_lossy(bytes)));
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let status: u16 = head.strip_prefix("HTTP/1.").unwrap()[2..5].parse().unwrap();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length: usize = field("content-length:").map_or(0, |length| length.parse().unwrap());
        let length = if to_head { 0 } else { length };
        bytes = &bytes[end + 4..];
        assert!(bytes.len() >= length, "{what}: an answer was cut");
        let closes = field("connection:") == Some("close");
        answers.push(Answer { status, closes, body: bytes[..length].to_vec() });
        bytes = &bytes[length..];
    }
    answers
}

/// All that comes back for these bytes, sent in two pieces that part at `split`.
async fn sent(world: &World, bytes: &[u8], split: usize, what: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut received = Vec::new();
    let (one, two) = bytes.split_at(split.min(bytes.len()));
    let writing = async {
        // Refused in the middle, the rest may not be taken any more.
        if writer.write_all(one).await.is_ok() {
            tokio::task::yield_now().await;
            let _ = writer.write_all(two).await;
        }
    };
    let reading = async { reader.read_to_end(&mut received).await };
    let (read, ()) = tokio::time::timeout(SECOND * 20, async { tokio::join!(reading, writing) })
        .await
        .unwrap_or_else(|_| panic!("{what}: the connection is held"));
    // A reset after the end is as good as the end.
    let _ = read;
    received
}

fn asks_for(id: &str) -> Vec<u8> {
    let path = conversation_path(id);
    format!("GET {path} HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {REPORTING}\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

/// What became of one: refused, read, or neither.
async fn judged(world: &World, index: usize, hostile: &Hostile, canary: &str) -> &'static str {
    let Hostile { what, bytes, must, is_last } = hostile;
    let own = |answer: &Answer| {
        answer.status == 200
            && serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()["_id"] == canary
    };
    let both = [&bytes[..], &asks_for(canary)].concat();
    let received = sent(world, &both, index * 7 % bytes.len(), what).await;
    let answers = answers(&received, what, bytes.starts_with(b"HEAD"));
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    let was_read = match &answers[..] {
        [] => false,
        [only] => {
            // An answer before the body was read, or to one that broke, ends the connection too.
            let may_end = only.closes || *is_last || *must != Must::Read;
            assert!(may_end, "{what}: {statuses:?}, and the next request was not answered");
            !(REFUSED.contains(&only.status) && (only.closes || !*is_last))
        }
        [_, next] => {
            assert!(own(next), "{what}: the next request got another's answer: {statuses:?}");
            true
        }
        _ => panic!("{what}: {statuses:?} for two requests"),
    };
    match must {
        Must::Refuse => {
            assert!(!was_read, "{what}: it was read: {statuses:?}");
            assert_eq!(answers.len(), 1, "{what}: no refusal");
            assert!(REFUSED.contains(&statuses[0]), "{what}: {statuses:?}");
        }
        Must::Read => assert!(was_read, "{what}: it was refused: {statuses:?}"),
        Must::NotConfuse => {}
    }
    if answers.len() < 2 {
        let received = sent(world, &asks_for(canary), usize::MAX, what).await;
        let answers = self::answers(&received, what, false);
        assert!(answers.len() == 1 && own(&answers[0]), "{what}: and a new connection");
    }
    if was_read { "read" } else { "refused" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_hostile_request_is_read_in_two_ways() {
    let corpus = Corpus::all();
    assert!(corpus.len() >= 2000, "{}", corpus.len());
    let count = corpus.len();
    let canaries: Vec<Conversation> =
        (0..CANARIES).map(|n| Conversation::closed_at(EXAMPLE_STREAM, n, before(DAY * 3))).collect();
    let ids: Vec<String> = canaries.iter().map(|canary| canary.conversation_id.clone()).collect();
    let world = World::with(|setup| {
        setup.without_quota = true;
        setup.standin.conversations = canaries;
    })
    .await;
    let world = Arc::new(world);
    let mut became: BTreeMap<&str, usize> = BTreeMap::new();
    let mut judging = stream::iter(corpus.into_iter().zip(ids.clone().into_iter().cycle()).enumerate())
        .map(|(index, (hostile, canary))| {
            let world = world.clone();
            tokio::spawn(async move { judged(&world, index, &hostile, &canary).await })
        })
        .buffer_unordered(AT_ONCE);
    while let Some(judged) = judging.next().await {
        *became.entry(judged.unwrap()).or_default() += 1;
    }
    println!("{count} hostile requests: {became:?}");

    let mut asked = HashSet::new();
    let canary_paths: HashSet<String> = ids.iter().map(|id| conversation_path(id)).collect();
    let hostile = conversation_path("c-hostile");
    for call in world.standin.calls() {
        assert!(!call.path.contains("smuggled"), "the hidden request was made");
        if canary_paths.contains(&call.path) {
            assert!(asked.insert(call.path), "an answer was not kept");
        } else {
            assert!(
                call.path == hostile || call.path.starts_with(&conversation_path("c-1")),
                "{}",
                call.path
            );
        }
        assert!(call.body.is_empty());
    }
    assert_eq!(asked.len(), ids.len());
    world.assert_no_violations();
}
