//! One client at a hundred times its share slows nobody else's misses to more than twice, and the
//! background lane always gets its minimum. Counted on a clock that moves by quarters of a second.
//! What takes longer to be known, as bursts that come again and again, is simulated:
//! src/upstream/broker/bursts.rs.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use tokio::task::JoinHandle;

use crate::world::{Got, World, client, conversation_path, got, until};

const STEP: Duration = Duration::from_millis(250);
const OTHERS: [&str; 3] = ["b", "c", "d"];
const GREEDY: &str = "a";

fn key(name: &str) -> String {
    format!("kg_{name}")
}

/// Four interactive clients and one in the background share sixty calls a minute: 13 each and 6.
async fn world() -> World {
    World::with(|setup| {
        setup.without = vec!["reporting", "one-bot"];
        setup.clients =
            [GREEDY, "b", "c", "d", "export"].iter().map(|name| client(name, &key(name)).toml()).collect();
        setup.clients.push_str("lane = \"background\"\n");
        setup.config = "upstream.timeout = \"60s\"".to_owned();
    })
    .await
}

/// What became of one client's misses.
#[derive(Default, Debug)]
struct Fared {
    asked: usize,
    served: usize,
    waited: Duration,
    longest: Duration,
}

struct Running {
    client: &'static str,
    since: Duration,
    task: JoinHandle<Got>,
}

/// Runs a load for `minutes`; `asks(client, step)` says how many misses come at each step.
async fn run(
    minutes: u32,
    clients: &[&'static str],
    asks: impl Fn(&str, u32) -> usize,
) -> BTreeMap<&'static str, Fared> {
    let world = world().await;
    let mut fared: BTreeMap<&'static str, Fared> = BTreeMap::new();
    let mut running: Vec<Running> = Vec::new();
    let mut n = 0;
    for step in 0..minutes * 240 {
        let now = STEP * step;
        for client in clients {
            for _ in 0..asks(client, step) {
                n += 1;
                let path = conversation_path(&format!("c-{n}"));
                let task = tokio::spawn(got(world.request(Method::GET, &path, &key(client))));
                running.push(Running { client, since: now, task });
                fared.entry(client).or_default().asked += 1;
            }
        }
        settle(&world, &mut running, &mut fared, now).await;
        world.advance(STEP);
    }
    world.assert_no_violations();
    fared
}

/// Waits until nothing moves any more at this moment of the clock, and takes down who has finished.
async fn settle(
    world: &World,
    running: &mut Vec<Running>,
    fared: &mut BTreeMap<&'static str, Fared>,
    now: Duration,
) {
    loop {
        let still = running.iter().filter(|one| !one.task.is_finished()).count();
        if world.app.snapshot().upstream.waiting() == still {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut rest = Vec::new();
    for one in running.drain(..) {
        if !one.task.is_finished() {
            rest.push(one);
            continue;
        }
        let answer = one.task.await.unwrap();
        let fared = fared.entry(one.client).or_default();
        if answer.status == 404 {
            fared.served += 1;
            fared.waited += now - one.since;
            fared.longest = fared.longest.max(now - one.since);
        } else {
            assert_eq!(answer.status, 503);
        }
    }
    *running = rest;
}

fn table(title: &str, fared: &BTreeMap<&'static str, Fared>) {
    println!("{title}\nclient   asked served mean-wait longest");
    for (client, of) in fared {
        let mean = (of.waited / u32::try_from(of.served.max(1)).unwrap()).as_secs_f64();
        let longest = of.longest.as_secs_f64();
        println!("{client:8} {:>5} {:>6} {mean:>8.2}s {longest:>6.2}s", of.asked, of.served);
    }
}

/// Once every five seconds, one after the other: 12 a minute, which is within their share.
fn steady(client: &str, step: u32) -> usize {
    let place = OTHERS.iter().zip(0..).find(|(other, _)| **other == client).unwrap().1;
    usize::from(step % 20 == place * 6)
}

#[tokio::test]
async fn one_client_at_a_hundred_times_its_share_does_not_slow_the_others_to_more_than_twice() {
    let alone = run(2, &OTHERS, steady).await;
    table("without the greedy one", &alone);
    // A hundred times 13 a minute are 5.4 in a quarter of a second.
    let asks = |client: &str, step: u32| match client {
        GREEDY => 5 + usize::from(step % 5 < 2),
        other => steady(other, step),
    };
    let crowded = run(2, &["a", "b", "c", "d"], asks).await;
    table("with it", &crowded);
    for other in OTHERS {
        let (without, with) = (&alone[other], &crowded[other]);
        assert_eq!(with.served, with.asked, "{other}: all of its misses are served");
        let mean = |of: &Fared| of.waited / u32::try_from(of.served).unwrap();
        assert!(mean(with) <= mean(without) * 2 + STEP, "{other}: {:?}, {:?}", mean(with), mean(without));
        assert!(with.longest <= without.longest * 2 + Duration::from_secs(1), "{other}: {:?}", with.longest);
    }
    // And what the others leave, the greedy one gets.
    assert!(crowded[GREEDY].served >= 2 * 13, "{:?}", crowded[GREEDY]);
}

#[tokio::test]
async fn when_all_want_more_than_there_is_each_gets_its_share_and_the_background_its_minimum() {
    const MINUTES: u32 = 2;
    let asks = |client: &str, _: u32| match client {
        GREEDY => 3,
        _ => 1,
    };
    let alone = run(MINUTES, &["b", "c", "d", "export"], asks).await;
    table("without the greedy one", &alone);
    let crowded = run(MINUTES, &["a", "b", "c", "d", "export"], asks).await;
    table("with it", &crowded);
    for other in OTHERS {
        let (without, with) = (alone[other].served, crowded[other].served);
        assert!(with * 2 >= without, "{other}: {with} of {without}");
        assert!(with >= 13 * MINUTES as usize, "{other}: {with}");
    }
    assert!(crowded["export"].served >= 6 * MINUTES as usize, "{:?}", crowded["export"]);
    let sum: usize = crowded.values().map(|of| of.served).sum();
    assert!(sum >= 54 * MINUTES as usize, "the quota lies idle: {sum}");
}

/// All of a share at once, after a silence: in each window somebody else's, and one comes again.
fn bursts(client: &str, step: u32) -> usize {
    match (client, step / 4, step % 4) {
        ("b", 60 | 190, 0) | ("c", 125, 0) => 13,
        ("export", 160, 0) => 6,
        _ => 0,
    }
}

#[tokio::test]
async fn a_burst_after_a_silence_finds_its_share_however_much_another_client_asks_for() {
    let neighbours = ["b", "c", "export"];
    let alone = run(4, &neighbours, bursts).await;
    table("bursts after a silence, without the greedy one", &alone);
    let asks = |client: &str, step: u32| match client {
        GREEDY => 5 + usize::from(step % 5 < 2),
        other => bursts(other, step),
    };
    let crowded = run(4, &["a", "b", "c", "export"], asks).await;
    table("with it", &crowded);
    for other in neighbours {
        let (without, with) = (&alone[other], &crowded[other]);
        assert_eq!(with.served, with.asked, "{other}: all of its misses are served");
        assert!(with.longest <= without.longest * 2, "{other}: {:?}", with.longest);
    }
    assert!(crowded[GREEDY].served >= 4 * 27, "what nobody may come for is the greedy one's");
}

#[tokio::test]
async fn who_is_in_a_hurry_and_joins_a_call_of_the_background_has_it_made_in_his_own_turn() {
    let world = world().await;
    let ask = |n: u32, client: &str| {
        let path = conversation_path(&format!("c-{n}"));
        tokio::spawn(got(world.request(Method::GET, &path, &key(client))))
    };
    let waiting = || world.app.snapshot().upstream.waiting();
    // Until the background has used what it may use of this moment, which stands still from here on.
    let mut n = 0;
    let exported = loop {
        let task = ask(n, "export");
        until("it is made, or it waits", || task.is_finished() || waiting() == 1).await;
        if waiting() == 1 {
            break task;
        }
        n += 1;
    };
    let another = ask(n + 1, "export");
    until("another one waits", || waiting() == 2).await;
    let calls = world.standin.count();

    let hurried = ask(n, "b");
    until("it is made", || hurried.is_finished() && exported.is_finished()).await;
    let (hurried, exported) = (hurried.await.unwrap(), exported.await.unwrap());
    assert_eq!((hurried.status.as_u16(), exported.status.as_u16()), (404, 404));
    assert!(hurried.cache_status().contains("; collapsed"), "{}", hurried.cache_status());
    assert_eq!(world.standin.count(), calls + 1, "one call for both");
    assert_eq!(waiting(), 1, "the other one waits as before");
    another.abort();
    world.assert_no_violations();
}
