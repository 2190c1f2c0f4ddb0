//! Half a million distinct conversations, each asked for twice, for a full store refuses what is asked for once, go
//! through a store of 128 MiB: it never holds more than that by its own count, and the process never more than a fifth above it by the system's. In a process of
//! its own, so that what other tests hold does not blur it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use kore_gateway::cache::{Cache, CacheLimits, Terms};
use kore_gateway::clock::{Clock, UnixMillis};
use kore_gateway::config::Lane;
use kore_gateway::fetch::answer::{Answer, Fetched};
use kore_gateway::fetch::payer::Payer;
use kore_gateway::lifecycle::phase::Rule;
use kore_gateway::observe::metrics::Metrics;
use kore_gateway::routes::{self, Found, Key, Query, RequestLimits as Contract};

const CAPACITY: u64 = 128 << 20;
/// The store is full after a fifth of them.
const IDS: u64 = 500_000;
const TASKS: u64 = 2;
const DAY: Duration = Duration::from_secs(86_400);
const RULE: Rule = Rule {
    settle: Duration::ZERO,
    settled_ttl: DAY,
    over_ttl: DAY,
    live_ttl: Duration::ZERO,
    summary_ttl: None,
    not_found_ttl: Duration::ZERO,
    stale_while_revalidate: Duration::ZERO,
    stale_if_error: DAY,
};

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn query(account: &Arc<str>, n: u64) -> (Query, String) {
    let id = format!("c-{n:07}-e522-4c53-9e03-f0efd16e7c73");
    let path =
        format!("/agentassist/api/v1/public/st-24ccdea9-de4e-5139-923f-883c53ffaaaa/conversations/{id}");
    let path = PathAndQuery::try_from(path).unwrap();
    let Found::Route(route, ids) = routes::find(&Method::GET, &path) else { panic!("{path}") };
    let limits = Contract { conversation_details_limit: 100, max_json_depth: 32 };
    let canonical = (route.parse)(&routes::Request { ids: &ids, query: "", body: None, limits }).unwrap();
    let key = Key::new(account, route, &ids, &canonical);
    let bot = ids.bot().map(Arc::from);
    (
        Query {
            route,
            account: account.clone(),
            bot,
            key,
            plain: None,
            drops_text: false,
            requested: canonical.requested,
        },
        id,
    )
}

/// 0.1 to 2.1 KiB, most of them small.
fn body(n: u64, id: &str) -> Arc<[u8]> {
    let bulk = usize::try_from(n.wrapping_mul(2_654_435_761) % 2048).unwrap() >> (n % 4);
    let head = format!(
        r#"{{"_id":"{id}","status":"CLOSED","endTime":"2026-01-01T00:00:00Z","botSessionId":"{n:024x}"}}"#
    );
    // White space behind the object costs a parser least.
    let mut body = Vec::with_capacity(head.len() + bulk);
    body.extend_from_slice(head.as_bytes());
    body.resize(head.len() + bulk, b' ');
    body.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_stays_within_a_fifth_above_the_capacity() {
    let clock = Clock::manual(UnixMillis(1_772_452_800_000));
    let limits = CacheLimits { capacity: CAPACITY, seen: 20_000, back_off: Duration::ZERO };
    let cache = Cache::new(limits, clock.clone(), &Arc::new(Metrics::new()));
    let account: Arc<str> = "65269fe0dd9c622245c1aaaa".into();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (cache, account, asked_at) = (cache.clone(), account.clone(), clock.moment());
            tokio::spawn(async move {
                let (mut most_resident, mut most_held) = (0, 0);
                let payer = Payer { client: "one".into(), lane: Lane::Interactive, weight: 1 };
                for n in (task..IDS).step_by(usize::try_from(TASKS).unwrap()) {
                    let (query, id) = query(&account, n);
                    let fill = move |_| {
                        let body = body(n, &id);
                        let answer = Answer {
                            status: StatusCode::OK,
                            content_type: None,
                            retry_after: None,
                            body,
                            asked_at,
                        };
                        async { Ok(Fetched::Whole(answer)) }
                    };
                    for _ in 0..2 {
                        cache
                            .get_or_fill(&query, &RULE, DAY, Terms::default(), payer.clone(), fill.clone())
                            .await
                            .unwrap();
                    }
                    assert!(cache.has(&query), "the second request for {n} stores it");
                    if n % 5_000 < TASKS {
                        most_resident = most_resident.max(resident());
                        most_held = most_held.max(cache.size().1);
                    }
                }
                (most_resident, most_held)
            })
        })
        .collect();
    let (mut most_resident, mut most_held) = (0, 0);
    for task in tasks {
        let (resident, held) = task.await.unwrap();
        most_resident = most_resident.max(resident);
        most_held = most_held.max(held);
    }
    let (entries, _) = cache.size();
    println!(
        "{entries} entries; at most {} MiB counted and {} MiB resident of {} MiB",
        most_held >> 20,
        most_resident >> 20,
        CAPACITY >> 20
    );
    assert!(entries > 10_000);
    assert!(most_held > CAPACITY * 9 / 10 && most_held <= CAPACITY, "{most_held}");
    assert!(most_resident <= CAPACITY * 12 / 10, "{most_resident} of {CAPACITY}");
}
