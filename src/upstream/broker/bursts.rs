//! One client at a hundred times its share beside three others, which call steadily or in bursts, and
//! a background lane: how long their misses take, and at most how long. Simulated, for minutes of it
//! are needed; tests/it/fairness.rs shows steady calls and first bursts over sockets.

use super::*;
use crate::config::Fairness;

const MINUTE: Rate = Rate { amount: 60, window: Duration::from_secs(60) };
const TICK: Duration = Duration::from_millis(100);
/// What the upstream takes for an answer.
const LATENCY: Duration = Duration::from_millis(300);
const OTHERS: [&str; 3] = ["b", "c", "d"];
/// Of sixty calls a minute six are the background lane's, and each of four has a quarter of the rest.
const SHARE: usize = 13;

/// When a neighbour calls: how many at this second of its life, by its place among the neighbours.
type Pattern = fn(second: u64, place: u64) -> usize;

fn steady(second: u64, place: u64) -> usize {
    usize::from(second % 5 == place)
}

fn half_bursts(second: u64, place: u64) -> usize {
    if second % 31 == place * 7 { 6 } else { 0 }
}

fn bursts(second: u64, place: u64) -> usize {
    if second % 61 == place * 11 { SHARE } else { 0 }
}

fn all_at_once(second: u64, _: u64) -> usize {
    if second % 75 == 10 { SHARE } else { 0 }
}

/// Some four a minute, at moments that follow no rule.
fn at_random(second: u64, place: u64) -> usize {
    let mut mixed =
        (second + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (place + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^= mixed >> 29;
    usize::from(mixed.wrapping_mul(0x94d0_49bb_1331_11eb) >> 32 & 0xff < 17)
}

/// Misses of one client: how long each took, the call itself included.
type Took = HashMap<String, Vec<Duration>>;

/// Runs for so many seconds. The neighbours begin at `from`. Calls that arrived before `counts` are not in the result.
fn run(pattern: Pattern, seconds: u64, from: u64, counts: u64, with_greedy: bool) -> Took {
    let fairness = Fairness { headroom: 10, reserve: 25, background_minimum: 10 };
    let mut broker =
        Broker::new(&[MINUTE], QuotaShares { interactive: 4, background: 1, heaviest: 1, fairness });
    let payer = |client: &str| Payer { client: client.into(), lane: Lane::Interactive, weight: 1 };
    let export = Payer { lane: Lane::Background, ..payer("export") };
    let mut asked: HashMap<Ticket, Duration> = HashMap::new();
    let mut under_way: VecDeque<Duration> = VecDeque::new();
    let mut took = Took::new();
    for tick in 0..seconds * 10 {
        let now = TICK * u32::try_from(tick).expect("short");
        let mut ask = |broker: &mut Broker, payer: &Payer| {
            let ticket = broker.enqueue(std::slice::from_ref(payer), now, now + Duration::from_secs(60));
            asked.insert(ticket, now);
        };
        while under_way.front().is_some_and(|end| *end <= now) {
            under_way.pop_front();
            broker.end(now);
        }
        if with_greedy && tick % 10 < 2 {
            // 22 a second are a hundred times 13 a minute; more than can be served wait already.
            let waiting = broker.queues.get("a").map_or(0, |queue| queue.backlog.len());
            (waiting..10).for_each(|_| ask(&mut broker, &payer("a")));
        }
        if tick % 10 == 0 && tick / 10 >= from {
            let second = tick / 10 - from;
            for (place, other) in OTHERS.iter().enumerate() {
                let calls = pattern(second, u64::try_from(place).expect("small"));
                (0..calls).for_each(|_| ask(&mut broker, &payer(other)));
            }
        }
        if tick % 620 == 450 {
            (0..6).for_each(|_| ask(&mut broker, &export));
        }
        for (ticket, payer) in broker.grant(now) {
            under_way.push_back(now + LATENCY);
            let since = asked[&ticket];
            if since >= Duration::from_secs(counts) {
                took.entry(payer.client.to_string()).or_default().push(now - since + LATENCY);
            }
        }
    }
    took
}

fn mean(took: &[Duration]) -> Duration {
    took.iter().sum::<Duration>() / u32::try_from(took.len().max(1)).expect("few")
}

fn longest(took: &[Duration]) -> Duration {
    took.iter().max().copied().unwrap_or_default()
}

#[test]
fn neighbours_misses_take_no_more_than_twice_as_long_whether_they_come_steadily_or_in_bursts() {
    let patterns: [(&str, Pattern); 5] = [
        ("one every 5 s", steady),
        ("6 at once", half_bursts),
        ("13 at once", bursts),
        ("13 at once, all three", all_at_once),
        ("4 a minute at random", at_random),
    ];
    println!("pattern                client   misses   mean  longest   beside it:  mean  longest");
    for (name, pattern) in patterns {
        let alone = run(pattern, 1260, 60, 600, false);
        let beside = run(pattern, 1260, 60, 600, true);
        for client in ["b", "c", "d", "export"] {
            let (alone, beside) = (&alone[client], &beside[client]);
            println!(
                "{name:22} {client:8} {:>6} {:>6.2} {:>8.2} {:>18.2} {:>8.2}",
                beside.len(),
                mean(alone).as_secs_f64(),
                longest(alone).as_secs_f64(),
                mean(beside).as_secs_f64(),
                longest(beside).as_secs_f64()
            );
        }
        println!("{name:22} a        {:>6}", beside["a"].len());
        for client in ["b", "c", "d", "export"] {
            let (alone, beside) = (&alone[client], &beside[client]);
            assert_eq!(alone.len(), beside.len(), "{name}, {client}");
            assert!(mean(beside) <= mean(alone) * 2, "{name}, {client}: mean");
            assert!(longest(beside) <= longest(alone) * 2, "{name}, {client}: longest");
        }
        let minutes = 11;
        let sum: usize = beside.values().map(Vec::len).sum();
        assert!(beside["a"].len() >= (SHARE - 1) * minutes, "{name}: the greedy one has its share too");
        assert!(sum >= 40 * minutes, "{name}: the quota lies idle: {sum}");
    }
}

/// Whoever has been quiet for longer than bursts are remembered finds the reserve, which is a whole
/// share of one. If several come at the same moment, or one right after the background's first calls,
/// they wait for what the greedy one gives back: a minute's worth in a minute.
#[test]
fn a_first_burst_after_a_long_silence_waits_for_seconds_at_most_and_several_at_once_for_a_minute() {
    let once: Pattern = |second, place| if second == 0 && place == 0 { SHARE } else { 0 };
    let all: Pattern = |second, _| if second == 0 { SHARE } else { 0 };
    let mut worst = [Duration::ZERO; 2];
    // Whenever it comes, and however long the greedy one has had the pool to itself.
    for from in (20..260).step_by(12) {
        for (worst, pattern) in worst.iter_mut().zip([once, all]) {
            let took = run(pattern, from + 100, from, from, true);
            let neighbours = OTHERS.iter().filter_map(|other| took.get(*other));
            *worst = neighbours.map(|took| longest(took)).max().unwrap_or_default().max(*worst);
        }
    }
    let [one, all] = worst;
    println!("13 of one           {one:>10.2?}\n13 of each of three {all:>10.2?}");
    assert!(one <= Duration::from_secs(5), "{one:?}");
    assert!(all <= MINUTE.window + LATENCY, "{all:?}");
}
