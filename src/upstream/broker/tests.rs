//! The rules, one by one, and the windows against a reference.

use super::*;
use crate::cases::with_cases;
use crate::config::Fairness;
use proptest::collection::vec;
use proptest::prelude::*;

const FAIRNESS: Fairness = Fairness { headroom: 10, reserve: 0, background_minimum: 10 };
const MINUTE: Rate = Rate { amount: 60, window: Duration::from_secs(60) };

fn shares(interactive: u32, background: u32) -> QuotaShares {
    QuotaShares { interactive, background, heaviest: 1, fairness: FAIRNESS }
}

fn payer(client: &str, lane: Lane, weight: u32) -> Payer {
    Payer { client: client.into(), lane, weight }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How many of each client's calls are granted at `now`; they end at once.
fn granted(broker: &mut Broker, now: Duration) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for (_, payer) in broker.grant(now) {
        broker.end(now);
        *counts.entry(payer.client.to_string()).or_default() += 1;
    }
    counts
}

fn ask(broker: &mut Broker, payer: &Payer, calls: usize, now: Duration) {
    for _ in 0..calls {
        broker.enqueue(std::slice::from_ref(payer), now, Duration::MAX);
    }
}

#[test]
fn an_only_client_has_all_of_it_at_once() {
    let mut broker = Broker::new(&[MINUTE], shares(1, 0));
    ask(&mut broker, &payer("a", Lane::Interactive, 1), 100, seconds(0));
    assert_eq!(granted(&mut broker, seconds(0))["a"], 60);
    assert!(granted(&mut broker, seconds(59)).is_empty());
    assert_eq!(granted(&mut broker, seconds(60))["a"], 40);
}

#[test]
fn calls_within_the_share_go_at_once_and_those_beyond_are_spread() {
    let mut broker = Broker::new(&[MINUTE], shares(4, 0));
    let now = seconds(3600);
    ask(&mut broker, &payer("b", Lane::Interactive, 1), 1, now - seconds(1));
    granted(&mut broker, now - seconds(1));
    ask(&mut broker, &payer("a", Lane::Interactive, 1), 1000, now);
    let first = granted(&mut broker, now)["a"];
    assert!((15..=16).contains(&first), "a quarter of the quota, not {first}");
    let mut at = [0; 3];
    for tenth in 1..600_u32 {
        let later = now + Duration::from_millis(100) * tenth;
        at[tenth as usize / 200] += granted(&mut broker, later).get("a").unwrap_or(&0);
    }
    let sum = first + at.iter().sum::<usize>();
    assert_eq!(sum, 54, "all but the headroom");
    assert!(at.iter().all(|third| (12..=14).contains(third)), "evenly: {at:?}");
}

#[test]
fn a_client_that_is_alone_may_have_half_at_once() {
    let mut broker = Broker::new(&[MINUTE], shares(4, 0));
    ask(&mut broker, &payer("a", Lane::Interactive, 1), 1000, seconds(3600));
    let first = granted(&mut broker, seconds(3600))["a"];
    assert!((30..=31).contains(&first), "{first}");
}

#[test]
fn whoever_comes_later_finds_room_and_then_its_share() {
    let mut broker = Broker::new(&[MINUTE], shares(4, 0));
    let (a, b) = (payer("a", Lane::Interactive, 1), payer("b", Lane::Interactive, 1));
    ask(&mut broker, &a, 100_000, seconds(0));
    for second in 0..600 {
        granted(&mut broker, seconds(second));
    }
    // b asks once every four seconds, which is its share, and never waits.
    for second in 600..900 {
        if second % 4 == 0 {
            ask(&mut broker, &b, 1, seconds(second));
            assert_eq!(granted(&mut broker, seconds(second)).get("b"), Some(&1), "at {second}");
        } else {
            granted(&mut broker, seconds(second));
        }
    }
}

#[test]
fn within_the_share_whoever_has_been_owed_a_call_for_longest_goes_first() {
    let mut broker = Broker::new(&[Rate { amount: 2, ..MINUTE }], shares(2, 0));
    let (a, b) = (payer("a", Lane::Interactive, 1), payer("b", Lane::Interactive, 1));
    ask(&mut broker, &a, 1, seconds(10));
    granted(&mut broker, seconds(10));
    broker.refuse_until(seconds(80));
    // a's share has room from 70 on.
    ask(&mut broker, &a, 1, seconds(20));
    ask(&mut broker, &b, 1, seconds(30));
    let order = broker.grant(seconds(80)).into_iter().map(|(_, payer)| payer.client.to_string());
    assert_eq!(order.collect::<Vec<_>>(), ["b", "a"]);
}

#[test]
fn beyond_the_share_whoever_has_used_least_goes_first() {
    let mut broker = Broker::new(&[Rate { amount: 8, ..MINUTE }], shares(4, 0));
    let (a, b) = (payer("a", Lane::Interactive, 1), payer("b", Lane::Interactive, 1));
    ask(&mut broker, &a, 4, seconds(0));
    assert_eq!(granted(&mut broker, seconds(0))["a"], 4, "twice its share, for it is alone");
    ask(&mut broker, &b, 2, seconds(1));
    granted(&mut broker, seconds(1));
    ask(&mut broker, &a, 1, seconds(2));
    ask(&mut broker, &b, 1, seconds(3));
    assert_eq!(granted(&mut broker, seconds(30)), HashMap::from([("b".to_owned(), 1)]));
    assert_eq!(granted(&mut broker, seconds(45)), HashMap::from([("a".to_owned(), 1)]));
}

/// With the default reserve.
fn with_reserve(interactive: u32) -> QuotaShares {
    QuotaShares { fairness: Fairness { reserve: 25, ..FAIRNESS }, ..shares(interactive, 0) }
}

/// What one client that asks without end gets of the ten minutes before this, by the minute.
fn greedy_for_ten_minutes(broker: &mut Broker) -> usize {
    ask(broker, &payer("a", Lane::Interactive, 1), 100_000, seconds(0));
    let all: usize = (0..600).map(|second| granted(broker, seconds(second)).values().sum::<usize>()).sum();
    all / 10
}

#[test]
fn a_whole_share_is_kept_for_one_who_comes_after_a_silence_however_long() {
    let mut broker = Broker::new(&[MINUTE], with_reserve(4));
    assert!((45..=47).contains(&greedy_for_ten_minutes(&mut broker)), "all but a share");
    for (name, from) in [("b", 600), ("b", 2000), ("c", 2100)] {
        (from - 60..from).for_each(|second| drop(granted(&mut broker, seconds(second))));
        ask(&mut broker, &payer(name, Lane::Interactive, 1), 15, seconds(from));
        assert_eq!(granted(&mut broker, seconds(from)).get(name), Some(&15), "{name} at {from}");
    }
}

#[test]
fn no_more_is_kept_for_one_who_may_come_than_its_share_or_the_reserve() {
    for (clients, minute) in [(2, 45), (4, 45), (8, 53), (20, 54)] {
        let mut broker = Broker::new(&[MINUTE], with_reserve(clients));
        let got = greedy_for_ten_minutes(&mut broker);
        assert!((minute..=minute + 2).contains(&got), "{clients} clients: {got}");
    }
    let mut broker = Broker::new(&[MINUTE], with_reserve(1));
    assert_eq!(greedy_for_ten_minutes(&mut broker), 60, "nobody else may come");
}

#[test]
fn twice_the_weight_is_twice_the_calls() {
    let mut broker = Broker::new(&[MINUTE], shares(3, 0));
    ask(&mut broker, &payer("light", Lane::Interactive, 1), 10_000, seconds(0));
    ask(&mut broker, &payer("heavy", Lane::Interactive, 2), 10_000, seconds(0));
    let mut sums: HashMap<String, usize> = HashMap::new();
    for second in 0..600 {
        for (client, calls) in granted(&mut broker, seconds(second)) {
            *sums.entry(client).or_default() += calls;
        }
    }
    assert_eq!((sums["light"], sums["heavy"]), (200, 400));
}

#[test]
fn the_background_lane_gets_its_minimum_and_what_nobody_else_wants() {
    let mut broker = Broker::new(&[MINUTE], shares(1, 1));
    let background = payer("export", Lane::Background, 1);
    ask(&mut broker, &background, 10_000, seconds(0));
    ask(&mut broker, &payer("desk", Lane::Interactive, 1), 10_000, seconds(0));
    let mut sums: HashMap<String, usize> = HashMap::new();
    for second in 0..600 {
        for (client, calls) in granted(&mut broker, seconds(second)) {
            *sums.entry(client).or_default() += calls;
        }
    }
    assert_eq!((sums["export"], sums["desk"]), (60, 540));

    let mut broker = Broker::new(&[MINUTE], shares(1, 1));
    ask(&mut broker, &background, 10_000, seconds(0));
    let alone: usize =
        (0..600).map(|second| granted(&mut broker, seconds(second)).values().sum::<usize>()).sum();
    assert!(alone >= 530, "{alone} of 600");
}

#[test]
fn those_who_would_come_too_late_are_told_when_they_would_not() {
    let mut broker = Broker::new(&[MINUTE], shares(1, 0));
    let client = payer("a", Lane::Interactive, 1);
    ask(&mut broker, &client, 60, seconds(0));
    granted(&mut broker, seconds(0));
    let late = broker.enqueue(std::slice::from_ref(&client), seconds(10), seconds(30));
    let in_time = broker.enqueue(std::slice::from_ref(&client), seconds(10), seconds(90));
    assert_eq!(broker.shed(seconds(10), 100), [(late, seconds(50))]);
    assert_eq!(broker.shed(seconds(10), 0), [(in_time, seconds(50))]);
}

#[test]
fn a_closed_pool_opens_when_the_upstream_said() {
    let mut broker = Broker::new(&[MINUTE], shares(1, 0));
    broker.refuse_until(seconds(60));
    ask(&mut broker, &payer("a", Lane::Interactive, 1), 1, seconds(0));
    let availability = broker.availability(seconds(20));
    assert_eq!(
        (availability.left, availability.resets_at, availability.holds_until),
        (0, seconds(60), seconds(60))
    );
    assert!(granted(&mut broker, seconds(59)).is_empty());
    assert_eq!(granted(&mut broker, seconds(60))["a"], 1);
}

/// What becomes of a call: how long it takes, when in that time the upstream counts it, or that
/// it is never made.
#[derive(Clone, Debug)]
struct Fate {
    after: u64,
    client: usize,
    takes: u64,
    counted: u64,
    is_made: bool,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = (
        prop_oneof![3 => Just(0_u64), 1 => 0..4_000_u64],
        0..4_usize,
        prop_oneof![Just(0_u64), 0..20_000_u64],
        0..=100_u64,
        prop::bool::weighted(0.9),
    );
    let fate = fate.prop_map(|(after, client, takes, share, is_made)| Fate {
        after,
        client,
        takes,
        counted: takes * share / 100,
        is_made,
    });
    vec(fate, 1..400)
}

const RATES: [Rate; 2] = [
    Rate { amount: 12, window: Duration::from_secs(10) },
    Rate { amount: 40, window: Duration::from_secs(60) },
];

proptest! {
    #![proptest_config(with_cases(64))]

    /// The reference is the upstream: it counts each call at a moment of its own choosing
    /// between start and end, and looks at every window that ends with a call.
    #[test]
    fn whatever_the_bursts_the_upstream_never_sees_one_call_too_many(fates in fates()) {
        let clients = [
            payer("a", Lane::Interactive, 1),
            payer("b", Lane::Interactive, 1),
            payer("c", Lane::Interactive, 3),
            payer("d", Lane::Background, 1),
        ];
        let mut broker = Broker::new(&RATES, shares(5, 1));
        let mut tickets: HashMap<Ticket, Fate> = HashMap::new();
        let mut ends: Vec<(u64, Payer, bool)> = Vec::new();
        let mut counted: Vec<u64> = Vec::new();
        let mut asked = fates.clone().into_iter().scan(0, |at, fate| {
            *at += fate.after;
            Some((*at, fate))
        }).peekable();
        let mut served = 0;
        let mut now = 0_u64;
        while served < fates.len() {
            let at = Duration::from_millis(now);
            while let Some((_, fate)) = asked.next_if(|(at, _)| *at <= now) {
                let ticket = broker.enqueue(&clients[fate.client..=fate.client], at, Duration::MAX);
                tickets.insert(ticket, fate);
            }
            let (over, under_way): (Vec<_>, Vec<_>) = ends.drain(..).partition(|(end, ..)| *end <= now);
            ends = under_way;
            for (_, payer, is_made) in over {
                if is_made { broker.end(at) } else { broker.give_back(&payer) }
            }
            for (ticket, payer) in broker.grant(at) {
                let fate = &tickets[&ticket];
                served += 1;
                ends.push((now + fate.takes, payer, fate.is_made));
                if fate.is_made {
                    counted.push(now + fate.counted);
                }
            }
            prop_assert!(now < 36_000_000, "somebody waits for ever");
            now += 100;
        }
        counted.sort_unstable();
        for rate in RATES {
            let window = u64::try_from(rate.window.as_millis()).expect("short");
            for (index, end) in counted.iter().enumerate() {
                let first = counted.partition_point(|at| at + window <= *end);
                prop_assert!(index + 1 - first <= amount(&rate), "{} in {window} ms", index + 1 - first);
            }
        }
    }

    /// The reference grants each call at the first moment at which every window has room.
    #[test]
    fn an_only_client_never_waits_longer_than_the_windows_say(gaps in vec(0_u64..3_000, 1..200)) {
        let mut broker = Broker::new(&RATES, shares(1, 0));
        let client = payer("a", Lane::Interactive, 1);
        let mut reference: Vec<u64> = Vec::new();
        let mut now = 0;
        for gap in gaps {
            now += gap;
            broker.enqueue(std::slice::from_ref(&client), Duration::from_millis(now), Duration::MAX);
            let has_room = RATES.iter().all(|rate| {
                let window = u64::try_from(rate.window.as_millis()).expect("short");
                reference.iter().filter(|at| **at + window > now).count() < amount(rate)
            });
            let at = Duration::from_millis(now);
            let granted = broker.grant(at);
            prop_assert_eq!(!granted.is_empty(), has_room, "at {}", now);
            for _ in granted {
                broker.end(at);
                reference.push(now);
            }
            for queue in broker.queues.values_mut() {
                queue.backlog.clear();
            }
        }
    }
}
