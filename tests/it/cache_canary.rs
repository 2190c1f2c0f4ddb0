//! Nobody ever gets a body he did not ask for or may not see: 200,000 requests of three clients for
//! two accounts' conversations, with callers who hang up, a store that is far too small, purges, and
//! configurations that change who may see what.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kore_gateway::cache::Purge;
use kore_standin::{Account, App, Conversation, EXAMPLE_ACCOUNT, EXAMPLE_CLIENT_ID, EXAMPLE_STREAM};
use kore_standin::{OTHER_ACCOUNT, OTHER_STREAM, example_secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::dice::Dice;
use crate::world::{DAY, NEIGHBOUR, ONE_BOT, REPORTING, SECOND, World, before};

const REQUESTS: usize = 200_000;
const CALLERS: usize = 16;
/// Once in so many requests the operator acts.
const REQUESTS_PER_ACT: usize = 4_000;
const PEOPLE: u64 = 120;
/// A second stream of the first account.
const SECOND_STREAM: &str = "st-24ccdea9-de4e-5139-923f-883c53ffcccc";

/// Which of the first account's streams the client `one-bot` may see, and how often that changed.
#[derive(Default)]
struct Policy {
    changes: AtomicUsize,
}

impl Policy {
    fn stream(changes: usize) -> &'static str {
        if changes % 4 < 2 { EXAMPLE_STREAM } else { SECOND_STREAM }
    }

    fn may_see(client: &str, stream: &str, changes: usize) -> bool {
        match client {
            REPORTING => stream != OTHER_STREAM,
            NEIGHBOUR => stream == OTHER_STREAM,
            _ => stream == Self::stream(changes),
        }
    }
}

#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    hits: AtomicUsize,
    forbidden: AtomicUsize,
    left: AtomicUsize,
}

async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> (u16, bool) {
    buffer.clear();
    let mut head = None;
    loop {
        if head.is_none()
            && let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let text = std::str::from_utf8(&buffer[..end]).unwrap();
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let status: u16 = text.split(' ').nth(1).unwrap().parse().unwrap();
            let length: usize = field("content-length:").unwrap().parse().unwrap();
            let is_hit = field("cache-status:").is_some_and(|status| status.contains("; hit;"));
            head = Some((status, end + 4, length, is_hit));
        }
        if let Some((status, start, length, is_hit)) = head
            && buffer.len() >= start + length
        {
            buffer.drain(..start);
            return (status, is_hit);
        }
        assert_ne!(stream.read_buf(buffer).await.unwrap(), 0, "the gateway hung up");
    }
}

/// Changes the policy, purges something and moves the clock, again and again, while others ask.
struct Operator {
    /// The configurations: `one-bot` sees the one stream, or the other.
    configs: [String; 2],
    requests: AtomicUsize,
    /// How often it has acted.
    acts: Mutex<usize>,
}

impl Operator {
    fn new(world: &World) -> Self {
        // Windows that are longer than the clock's steps: who read the time just before one and is counted
        // just after it would else be a whole window behind.
        let written =
            std::fs::read_to_string(&world.config_file).unwrap().replace("1000000/min", "60000000/h");
        let (head, tail) = written.split_once("name = \"one-bot\"").unwrap();
        let configs = [EXAMPLE_STREAM, SECOND_STREAM].map(|stream| {
            let tail = tail.replacen(
                &format!("bots = [\"{EXAMPLE_STREAM}\"]"),
                &format!("bots = [\"{stream}\"]"),
                1,
            );
            format!("{head}name = \"one-bot\"{tail}")
        });
        assert_ne!(configs[0], configs[1]);
        Self { configs, requests: AtomicUsize::default(), acts: Mutex::default() }
    }

    /// One more request is over. Every so many of them it acts, however long they take; the caller whose request
    /// that was waits for it, and the others go on.
    async fn count(&self, world: &World, people: &[Conversation], policy: &Policy) {
        if !(self.requests.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(REQUESTS_PER_ACT) {
            return;
        }
        let mut acts = self.acts.lock().await;
        let target = policy.changes.load(Ordering::SeqCst) + 2;
        let file = &self.configs[usize::from(Policy::stream(target) == SECOND_STREAM)];
        std::fs::write(&world.config_file, file).unwrap();
        // Odd: changing. Even: changed.
        policy.changes.fetch_add(1, Ordering::SeqCst);
        world.app.reload().await.unwrap();
        policy.changes.fetch_add(1, Ordering::SeqCst);
        world.app.cache.purge(match *acts % 3 {
            0 => Purge::conversation(&people[*acts % people.len()].conversation_id),
            1 => Purge::bot(EXAMPLE_STREAM),
            _ => Purge::account(OTHER_ACCOUNT),
        });
        // Less than a rate limit's window: who has read the clock and is overtaken by all of it looks
        // as if he had asked before the others' requests were back.
        world.advance(SECOND * 20);
        world.standin.forget();
        *acts += 1;
    }
}

async fn caller(
    world: Arc<World>,
    people: Arc<Vec<Conversation>>,
    shared: Arc<(Policy, Tally, Operator)>,
    seed: u64,
) {
    let (policy, tally, operator) = &*shared;
    let mut dice = Dice::of_seed(seed);
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let mut buffer = Vec::with_capacity(16 * 1024);
    for _ in 0..REQUESTS / CALLERS {
        // Squared, so that some are asked for often.
        let who = dice.below(people.len()) * dice.below(people.len()) / people.len();
        let person = &people[who];
        let client = match [REPORTING, NEIGHBOUR, ONE_BOT][dice.below(3)] {
            // The first account takes any stream, so only the upstream could refuse this one.
            REPORTING if person.stream == OTHER_STREAM => ONE_BOT,
            client => client,
        };
        let changes = policy.changes.load(Ordering::SeqCst);
        let (of, id, session) = (&person.stream, &person.conversation_id, &person.session_id);
        let (request, canary) = if dice.below(4) == 0 {
            let by_id = dice.below(2) == 0;
            let (name, value) = if by_id { ("conversationId", id) } else { ("sessionId", session) };
            let body = format!(r#"{{"{name}":"{value}"}}"#);
            let head = format!(
                "POST /api/public/bot/{of}/conversationDetails HTTP/1.1\r\nhost: g\r\nx-api-key: {client}\r\n"
            );
            (
                format!(
                    "{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                ),
                session,
            )
        } else {
            let path = format!("/agentassist/api/v1/public/{of}/conversations/{id}");
            (format!("GET {path} HTTP/1.1\r\nhost: g\r\nx-api-key: {client}\r\n\r\n"), id)
        };
        stream.write_all(request.as_bytes()).await.unwrap();
        if dice.below(100) == 0 {
            stream = TcpStream::connect(world.address).await.unwrap();
            tally.left.fetch_add(1, Ordering::Relaxed);
            operator.count(&world, &people, policy).await;
            continue;
        }
        let (status, is_hit) = answer(&mut stream, &mut buffer).await;
        let body = std::str::from_utf8(&buffer).unwrap();
        let unchanged = policy.changes.load(Ordering::SeqCst) == changes && changes % 2 == 0;
        let allowed = Policy::may_see(client, of, changes);
        match status {
            200 => {
                assert!(body.contains(canary.as_str()), "asked for {canary}, got {body}");
                assert!(allowed || !unchanged, "{client} may not see {of}");
                tally.answered.fetch_add(1, Ordering::Relaxed);
                tally.hits.fetch_add(usize::from(is_hit), Ordering::Relaxed);
            }
            403 => {
                assert!(!body.contains(canary.as_str()), "{body}");
                assert!(!allowed || !unchanged, "{client} may see {of}");
                tally.forbidden.fetch_add(1, Ordering::Relaxed);
            }
            other => panic!("{other}: {body}"),
        }
        operator.count(&world, &people, policy).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_body_reaches_a_caller_who_did_not_ask_for_it_or_may_not_see_it() {
    let people: Vec<_> = (0..PEOPLE)
        .map(|n| {
            let stream = [EXAMPLE_STREAM, SECOND_STREAM, OTHER_STREAM][usize::try_from(n % 3).unwrap()];
            Conversation::closed_at(stream, n, before(DAY)).padded(500)
        })
        .collect();
    let world = World::with(|setup| {
        let app = App::new(EXAMPLE_CLIENT_ID, example_secret());
        let first = Account::new(EXAMPLE_ACCOUNT, &[EXAMPLE_STREAM, SECOND_STREAM], vec![app]);
        setup.standin.accounts = vec![first, Account::other()];
        setup.standin.conversations = people.clone();
        setup.without_quota = true;
        // Whose sessions are shown to whom without that, tests/it/policy_canary.rs asks.
        setup.accounts = "unproven_sessions = \"pass\"".to_owned();
        // Not all answers fit.
        setup.config = "cache.capacity = \"768KiB\"".to_owned();
    })
    .await;
    let shared = Arc::new((Policy::default(), Tally::default(), Operator::new(&world)));
    let (world, people) = (Arc::new(world), Arc::new(people));
    let callers: Vec<_> = (0..CALLERS)
        .map(|n| tokio::spawn(caller(world.clone(), people.clone(), shared.clone(), n as u64 + 1)))
        .collect();

    for caller in callers {
        caller.await.unwrap();
    }
    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    let (policy, tally, _) = &*shared;
    let evictions = world.metric("kore_gateway_cache_evictions_total").await;
    println!(
        "{} answered ({} out of the store), {} forbidden, {} left; {evictions} evictions, {} reloads",
        count(&tally.answered),
        count(&tally.hits),
        count(&tally.forbidden),
        count(&tally.left),
        count(&policy.changes) / 2,
    );
    let all = count(&tally.answered) + count(&tally.forbidden) + count(&tally.left);
    assert_eq!(all, REQUESTS);
    assert!(count(&tally.hits) > REQUESTS / 20 && evictions > 500.0 && count(&policy.changes) > 20);
    assert!(count(&tally.forbidden) > REQUESTS / 10 && count(&tally.left) > REQUESTS / 200);
}
