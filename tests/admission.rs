//! Which policy lets the store get by with the fewest calls: a replay of made-up requests, each for an answer of
//! 1 KiB to 1 MiB, against moka under several policies. What is counted is the requests that find nothing, for each
//! of them is a call, whatever the answer's size. `cargo test --test admission -- --nocapture` prints the table of
//! docs/DECISIONS.md; the assertions are what the store promises. Seeds are fixed; TinyLFU alone varies a little, by moka's own hash.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the numbers of the replay are small and positive"
)]

#[path = "../src/cache/doorkeeper.rs"]
mod doorkeeper;

use doorkeeper::Doorkeeper;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

const CAPACITY: u64 = 16 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Policy {
    TinyLfu,
    Lru,
    /// LRU that, once full, lets in what has been asked for so often since it was last let in.
    Doorkeeper(u32),
}

const POLICIES: [Policy; 4] = [Policy::TinyLfu, Policy::Lru, Policy::Doorkeeper(2), Policy::Doorkeeper(3)];

/// What is asked for: an id and its answer's bytes.
type Ask = (u64, u32);

struct Store {
    slots: Cache<u64, u32>,
    policy: Policy,
    doorkeeper: Doorkeeper,
}

impl Store {
    fn new(policy: Policy) -> Self {
        let eviction =
            if policy == Policy::TinyLfu { EvictionPolicy::tiny_lfu() } else { EvictionPolicy::lru() };
        let slots =
            Cache::builder().max_capacity(CAPACITY).weigher(|_, bytes| *bytes).eviction_policy(eviction);
        Self { slots: slots.build(), policy, doorkeeper: Doorkeeper::new(CAPACITY) }
    }

    /// Whether it is a call.
    fn ask(&mut self, (id, bytes): Ask) -> bool {
        if self.slots.get(&id).is_some() {
            return false;
        }
        self.doorkeeper.ask(hash(id));
        let has_room = self.slots.weighted_size() + u64::from(bytes) <= CAPACITY;
        let is_let_in = match self.policy {
            Policy::TinyLfu | Policy::Lru => true,
            Policy::Doorkeeper(times) => has_room || self.doorkeeper.asks(hash(id)) >= times,
        };
        if is_let_in {
            self.doorkeeper.forget(hash(id));
            self.slots.insert(id, bytes);
            self.slots.run_pending_tasks();
            assert!(self.slots.weighted_size() <= CAPACITY);
        }
        true
    }

    fn calls(&mut self, asks: impl IntoIterator<Item = Ask>) -> u64 {
        asks.into_iter().map(|ask| u64::from(self.ask(ask))).sum()
    }
}

/// splitmix64.
fn hash(number: u64) -> u64 {
    let mut hash = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// From 0 to 1, the same for the same number.
fn chance(number: u64) -> f64 {
    f64::from(u32::try_from(hash(number) >> 32).unwrap()) / 4_294_967_296.0
}

/// Of 1 KiB to 1 MiB, as many of each order of magnitude, but always the same for the same id.
fn sized(id: u64) -> Ask {
    let bytes = 1024.0 * 1024_f64.powf(chance(id ^ 0x5123));
    // No more than 2^20.
    (id, bytes as u32)
}

fn small(id: u64) -> Ask {
    (id, 1024 + u32::try_from(hash(id) % 3072).unwrap())
}

/// `asks` requests for `ids` ids, of which the nth is asked for in proportion to n^-skew.
fn zipf(seed: u64, ids: u64, skew: f64, asks: u64) -> impl Iterator<Item = u64> {
    let mut sum = 0.0;
    let until: Vec<f64> = (1..=ids)
        .map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        })
        .collect();
    (0..asks).map(move |nth| {
        let at = chance(hash(seed) ^ nth) * sum;
        until.partition_point(|until| *until < at) as u64
    })
}

const ASKS: u64 = 24_000;

fn workloads() -> Vec<(&'static str, Vec<Ask>)> {
    let scan = |nth: u64| 1_000_000 + nth;
    vec![
        ("popularity 1/n^0.9, 1 KiB to 1 MiB", zipf(1, 500, 0.9, ASKS).map(sized).collect()),
        ("popularity 1/n^0.6, 1 KiB to 1 MiB", zipf(2, 500, 0.6, ASKS).map(sized).collect()),
        ("popularity 1/n^0.9, 1 to 4 KiB", zipf(3, 20_000, 0.9, ASKS).map(small).collect()),
        (
            "half of it a scan of ids asked for once",
            zipf(4, 300, 0.9, ASKS / 2)
                .enumerate()
                .flat_map(|(nth, id)| [sized(id), sized(scan(nth as u64))])
                .collect(),
        ),
        (
            "polled windows of 95 kB among small conversations asked for twice",
            (0..ASKS)
                .map(|nth| match nth % 4 {
                    0 => (5_000_000 + nth / 4 % 100, 95_000),
                    _ => small(nth / 8 * 4 + nth % 4),
                })
                .collect(),
        ),
        (
            "popularity that moves on",
            zipf(5, 300, 0.9, ASKS).enumerate().map(|(nth, id)| sized(id + nth as u64 / 100)).collect(),
        ),
        ("a loop over 1.2 times the capacity", (0..ASKS).map(|nth| (nth % 8_000, 2_500)).collect()),
        (
            "each asked for three times, close together",
            (0..ASKS).map(|nth| sized(nth / 300 * 100 + nth % 100)).collect(),
        ),
    ]
}

#[test]
fn the_policy_in_use_makes_the_fewest_calls_of_those_that_keep_the_promises() {
    let mut sums = [0; POLICIES.len()];
    println!("| requests | {} |", POLICIES.map(|policy| format!("{policy:?}")).join(" | "));
    for (name, asks) in workloads() {
        let calls = POLICIES.map(|policy| Store::new(policy).calls(asks.iter().copied()));
        println!("| {name} | {} |", calls.map(|calls| calls.to_string()).join(" | "));
        sums.iter_mut().zip(calls).for_each(|(sum, calls)| *sum += calls);
    }
    println!("| all | {} |", sums.map(|calls| calls.to_string()).join(" | "));
    let [_, lru, twice, thrice] = sums;
    assert!(twice < lru && twice < thrice, "{sums:?}");
}

/// The store is full of small answers that were asked for twice; then one of 95 kB is asked for.
#[test]
fn what_is_asked_for_a_third_time_is_stored_whatever_its_size() {
    let calls = POLICIES.map(|policy| {
        let mut store = Store::new(policy);
        let all = || (0..10_000).map(small);
        store.calls(all().chain(all()));
        store.calls((0..1_500).map(|_| (9_999_999, 95_000)))
    });
    // TinyLFU makes a call for each, or nearly: which is why another policy is in use.
    let [_, lru, twice, thrice] = calls;
    assert_eq!((lru, twice, thrice), (1, 2, 3));
}

#[test]
fn a_scan_of_a_million_ids_does_not_push_out_what_is_asked_for_often() {
    let hot = || (0..4_000).map(small);
    let calls_after_scan = |policy, ids| {
        let mut store = Store::new(policy);
        store.calls(hot().chain(hot()).chain(hot()));
        store.calls((0..ids).map(|nth| small(1_000_000 + nth)));
        store.calls(hot())
    };
    assert_eq!(calls_after_scan(Policy::Lru, 10_000), 4_000, "which is why there is a doorkeeper");
    assert_eq!(calls_after_scan(Policy::Doorkeeper(2), 1_000_000), 0);
}
