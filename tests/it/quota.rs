//! The upstream's quota is never exceeded by one call, whatever comes; what is not used is given
//! back, a refusal is believed, and nobody waits for what cannot come in time.

use std::time::Duration;

use http::Method;
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault, Gate, QuotaRefusal};

use crate::world::{
    DAY, Got, MINUTE, REPORTING, SECOND, World, before, client, conversation_path, got, transcript_path,
    until,
};

const OTHER_KEY: &str = "kg_other";

fn closed(n: u64) -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, n, before(DAY))
}

fn ask(world: &World, path: &str, key: &str) -> tokio::task::JoinHandle<Got> {
    let request = world.request(Method::GET, path, key);
    tokio::spawn(got(request))
}

/// The answer to who is not made to wait for the clock.
async fn at_once(world: &World, asked: tokio::task::JoinHandle<Got>) -> Got {
    let waits = || world.app.snapshot().upstream.waiting() > 0;
    until("it is told, or it waits", || asked.is_finished() || waits()).await;
    assert!(asked.is_finished(), "it waits");
    asked.await.unwrap()
}

fn wait_of(answer: &Got) -> u64 {
    answer.header("retry-after").parse().unwrap()
}

#[tokio::test]
async fn five_minutes_of_mixed_load_never_cost_one_call_too_many_and_waste_next_to_none() {
    let stored = closed(1);
    let hit = conversation_path(&stored.conversation_id);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![stored];
        // For somebody who may come and never does, a part of each minute would be kept.
        setup.without = vec!["one-bot"];
        setup.clients = client("other", OTHER_KEY).toml();
    })
    .await;
    world.get(&hit).await;
    let mut pending = Vec::new();
    let mut n = 0;
    for second in 0..300_u64 {
        // A steady rain, bursts of a hundred, and transcripts, which have two windows of their own.
        let misses = if second % 60 == 7 { 100 } else { 2 };
        for _ in 0..misses {
            n += 1;
            let key = if n % 3 == 0 { OTHER_KEY } else { REPORTING };
            pending.push(ask(&world, &conversation_path(&format!("c-{n}")), key));
        }
        let body = format!(r#"{{"conversationId":"c-{n}"}}"#);
        let key = if second % 2 == 0 { OTHER_KEY } else { REPORTING };
        pending.push(tokio::spawn(got(world.post_request(&transcript_path(), body, key))));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(world.get(&hit).await.is_hit(), "a hit waits for nothing");
        world.advance(SECOND);
    }
    let calls = world.standin.count();
    world.assert_no_violations();
    println!("5 minutes: {} requests, {calls} calls", n + 300);
    // 60 and 60 a minute at most, over five minutes and the burst at the start.
    assert!(calls <= 2 * 360, "{calls}");
    assert!(calls >= 2 * 54 * 5, "the quota lies idle: {calls}");
    for task in pending {
        task.abort();
    }
}

#[tokio::test]
async fn a_call_that_never_left_is_not_counted() {
    // Bound, so that nobody else gets the port, but nobody listens.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    let world = World::with(|setup| {
        setup.upstream = Some(url);
        setup.config = "upstream.breaker.failures = 1000".to_owned();
    })
    .await;
    for n in 0..100 {
        let answer = world.get(&conversation_path(&format!("c-{n}"))).await;
        assert_eq!(answer.problem(), "upstream-unreachable");
        assert!(answer.header("ratelimit").ends_with(r#""upstream";r=60;t=0"#));
    }
}

#[tokio::test]
async fn a_refusal_in_any_of_the_vendors_ways_closes_the_pool_for_as_long_as_it_says() {
    let ways = [
        (QuotaRefusal::TooManyWithRetryAfter, 60),
        (QuotaRefusal::TooMany, 60),
        (QuotaRefusal::ErrorUnder200, 60),
    ];
    for (way, wait) in ways {
        // The upstream allows less than we think: somebody else calls it too.
        let world = World::with(|setup| {
            setup.standin.switches.quota_refusal = way;
            setup.standin.accounts[0].calls_per_minute = 3;
        })
        .await;
        for n in 0..3 {
            assert_eq!(world.get(&conversation_path(&format!("c-{n}"))).await.status, 404);
        }
        let refused = world.get(&conversation_path("c-3")).await;
        assert_eq!(
            (refused.status.as_u16(), refused.problem()),
            (503, "temporary-reduced-capacity".to_owned())
        );
        assert_eq!(wait_of(&refused), wait, "{way:?}");
        assert!(refused.header("ratelimit").contains(r#""upstream";r=0;t=60"#), "{refused:?}");
        world.get(&conversation_path("c-4")).await;
        assert_eq!(world.standin.count(), 4, "no call into a quota that is used up");
        world.advance(MINUTE);
        assert_eq!(world.get(&conversation_path("c-5")).await.status, 404);
    }
}

#[tokio::test]
async fn a_refusal_that_says_how_long_is_believed() {
    let world = World::new().await;
    world.standin.fault_next(1, Fault::StatusWithRetryAfter(429, 100));
    assert_eq!(wait_of(&world.get(&conversation_path("c-1")).await), 100);
    world.advance(SECOND * 60);
    assert_eq!(wait_of(&world.get(&conversation_path("c-1")).await), 40);
    world.advance(SECOND * 40);
    assert_eq!(world.get(&conversation_path("c-1")).await.status, 404);
    assert_eq!(world.standin.count(), 2);
}

/// Sixty calls, so that nothing is left of the account's minute.
async fn use_up(world: &World) {
    while !world.get(&conversation_path("c-404")).await.header("ratelimit").contains(r#""upstream";r=0"#) {}
}

#[tokio::test]
async fn who_can_be_served_in_time_waits_and_who_cannot_is_told_at_once_for_how_long() {
    let world = World::with(|setup| setup.without = vec!["one-bot"]).await;
    use_up(&world).await;
    world.advance(SECOND * 10);
    let asked = async || at_once(&world, ask(&world, &conversation_path("c-1"), REPORTING)).await;
    let told = asked().await;
    assert_eq!((told.status.as_u16(), wait_of(&told)), (503, 50));
    assert!(told.header("ratelimit").contains(r#""upstream";r=0;t=50"#));

    // Of the thirty seconds a moment is kept for the exchange: 30 are too many, 29 are not.
    world.advance(SECOND * 20);
    assert_eq!(wait_of(&asked().await), 30);
    world.advance(SECOND);
    let waiting = ask(&world, &conversation_path("c-2"), REPORTING);
    until("it waits", || world.app.snapshot().upstream.waiting() == 1).await;
    assert_eq!(world.standin.count(), 60);
    world.advance(SECOND * 29);
    assert_eq!(waiting.await.unwrap().status, 404);
    assert_eq!(world.standin.count(), 61);
    world.assert_no_violations();
}

#[tokio::test]
async fn who_waits_is_told_as_soon_as_the_room_is_gone() {
    let world = World::with(|setup| setup.without = vec!["one-bot"]).await;
    for n in 0..59 {
        world.get(&conversation_path(&format!("c-{n}"))).await;
    }
    world.advance(SECOND * 40);
    world.standin.set(|switches| switches.latency = Duration::from_millis(200));
    world.standin.fault_next(1, Fault::StatusWithRetryAfter(429, 600));
    let refused = ask(&world, &conversation_path("c-60"), REPORTING);
    until("it is under way", || world.standin.count() == 60).await;
    let waiting = ask(&world, &conversation_path("c-61"), REPORTING);
    until("it waits", || world.app.snapshot().upstream.waiting() == 1).await;
    for task in [refused, waiting] {
        let told = task.await.unwrap();
        assert_eq!((told.status.as_u16(), wait_of(&told)), (503, 600));
    }
    assert_eq!(world.standin.count(), 60);
}

#[tokio::test]
async fn without_quota_hits_are_served_and_what_is_past_its_lifetime_is_served_stale() {
    let (a, b) = (closed(1), closed(2));
    let (hit, stale) = (conversation_path(&a.conversation_id), conversation_path(&b.conversation_id));
    let world = World::with(|setup| {
        setup.without = vec!["one-bot"];
        setup.standin.conversations = vec![a, b];
    })
    .await;
    world.get(&stale).await;
    world.advance(DAY + DAY / 5);
    world.get(&hit).await;
    use_up(&world).await;
    let calls = world.standin.count();
    for _ in 0..100 {
        assert!(world.get(&hit).await.is_hit());
    }
    let answer = world.get(&stale).await;
    assert_eq!(answer.status, 200);
    assert!(answer.cache_status().contains("detail=stale-if-error"), "{}", answer.cache_status());
    assert_eq!(world.standin.count(), calls);
}

#[tokio::test]
async fn a_caller_who_leaves_keeps_no_place_and_a_full_queue_turns_the_last_away() {
    let world = World::with(|setup| {
        setup.without = vec!["one-bot"];
        setup.config = "upstream.max_waiting = 5".to_owned();
    })
    .await;
    use_up(&world).await;
    world.advance(SECOND * 40);
    let tasks: Vec<_> =
        (0..8).map(|n| ask(&world, &conversation_path(&format!("c-{n}")), REPORTING)).collect();
    let mut told = 0;
    until("three are told", || tasks.iter().filter(|task| task.is_finished()).count() == 3).await;
    assert_eq!(world.app.snapshot().upstream.waiting(), 5);
    world.advance(SECOND * 20);
    for task in tasks {
        let answer = task.await.unwrap();
        told += u32::from(answer.status == 503);
    }
    assert_eq!(told, 3);
    world.assert_no_violations();
}

#[tokio::test]
async fn a_reload_forgets_no_call() {
    let world = World::with(|setup| setup.without = vec!["one-bot"]).await;
    use_up(&world).await;
    world.app.reload().await.unwrap();
    assert_eq!(world.get(&conversation_path("c-1")).await.status, 503);
    assert_eq!(world.standin.count(), 60);
    world.assert_no_violations();
}

#[tokio::test]
async fn a_request_that_costs_no_call_makes_no_pool_for_its_bot() {
    let world = World::new().await;
    let of_bots =
        format!(r#"kore_gateway_upstream_quota_available{{account="{EXAMPLE_ACCOUNT}",pool="bot"}}"#);
    let has_bots = async || String::from_utf8_lossy(&world.ops("/metrics").await.body).contains(&of_bots);
    let faulty = world.post(&transcript_path(), "{}").await;
    assert_eq!(faulty.status, 400);
    assert!(faulty.header("ratelimit").ends_with(r#""upstream";r=60;t=0"#), "{faulty:?}");
    assert!(!has_bots().await);
    world.post(&transcript_path(), r#"{"conversationId":"c-1"}"#).await;
    assert!(has_bots().await);
    // Once all its windows are empty, a bot is forgotten.
    world.advance(SECOND * 3600);
    until("it is forgotten", || !world.app.snapshot().upstream.counts_bots()).await;
}

#[tokio::test]
async fn a_call_that_was_given_up_and_is_read_later_makes_no_other_one_too_many() {
    let world = World::with(|setup| {
        setup.without = vec!["one-bot"];
        setup.config = "upstream.timeout = \"5s\"\nupstream.breaker.failures = 1000".to_owned();
    })
    .await;
    let gate = Gate::closed();
    world.standin.set(|switches| switches.stalled = Some(gate.clone()));
    let tasks: Vec<_> =
        (0..60).map(|n| ask(&world, &conversation_path(&format!("c-{n}")), REPORTING)).collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().status, 504);
    }
    assert_eq!(world.standin.count(), 0);
    // They lie there for nearly a minute, and then they are read.
    world.standin.set(|switches| switches.stalled = None);
    world.advance(SECOND * 59);
    gate.open();
    until("they are read", || world.standin.count() == 60).await;
    // A minute after the last moment at which they may be read, less what a caller would wait.
    for second in 59..=115 {
        let asked = ask(&world, &conversation_path("c-61"), REPORTING);
        assert_eq!(at_once(&world, asked).await.status, 503, "{second}");
        world.advance(SECOND);
    }
    world.advance(SECOND * 4);
    assert_eq!(world.get(&conversation_path("c-61")).await.status, 404);
    world.assert_no_violations();
}

#[tokio::test]
async fn who_is_overtaken_by_a_better_right_is_told_in_the_same_moment() {
    let world = World::with(|setup| {
        setup.without = vec!["one-bot"];
        setup.clients = client("other", OTHER_KEY).toml();
        setup.credentials = "[accounts.quota]\naccount = [\"4/min\"]\n".to_owned();
        setup.standin.accounts[0].calls_per_minute = 4;
        setup.config = "upstream.timeout = \"60s\"".to_owned();
    })
    .await;
    for n in 0..2 {
        assert_eq!(world.get(&conversation_path(&format!("c-{n}"))).await.status, 404);
    }
    // Its share is used up; there is room, if nobody comes who has used less.
    let overtaken = ask(&world, &conversation_path("c-2"), REPORTING);
    until("it waits", || world.app.snapshot().upstream.waiting() == 1).await;
    for n in 3..5 {
        let other = ask(&world, &conversation_path(&format!("c-{n}")), OTHER_KEY);
        assert_eq!(other.await.unwrap().status, 404);
    }
    until("it is told", || overtaken.is_finished()).await;
    let told = overtaken.await.unwrap();
    assert_eq!((told.status.as_u16(), wait_of(&told)), (503, 60));
    assert_eq!(world.standin.count(), 4);
    world.assert_no_violations();
}

#[tokio::test]
async fn who_may_not_call_a_bot_has_no_share_in_its_quota() {
    let elsewhere = "st-24ccdea9-de4e-5139-923f-883c53ffcccc";
    let world = World::with(|setup| {
        setup.without = vec!["one-bot"];
        setup.clients = client("elsewhere", OTHER_KEY).bots(elsewhere).toml();
    })
    .await;
    for n in 0..60 {
        if n == 30 {
            world.app.reload().await.unwrap();
        }
        let body = format!(r#"{{"conversationId":"c-{n}"}}"#);
        let asked = tokio::spawn(got(world.post_request(&transcript_path(), body, REPORTING)));
        assert_eq!(at_once(&world, asked).await.status, 200, "{n}");
    }
    assert_eq!(world.standin.count(), 60);
    world.assert_no_violations();
}

/// Lets what is on its way arrive, without moving time.
async fn settle() {
    for _ in 0..60 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_quota_takes_no_time_away_from_the_calls_that_are_made() {
    const TICKS_A_SECOND: u32 = 4;
    let world = World::with(|setup| {
        setup.is_simulated = true;
        setup.without = vec!["one-bot"];
        setup.clients = client("other", OTHER_KEY).toml();
        setup.standin.switches.lag = SECOND * 4;
    })
    .await;
    let (mut served, mut pending, mut n) = ([0_u32; 10], Vec::new(), 0);
    for minute in &mut served {
        for tick in 0..60 * TICKS_A_SECOND {
            // Three a second of each: three times what the upstream allows to all.
            for key in [REPORTING, OTHER_KEY].iter().filter(|_| tick % TICKS_A_SECOND != 0) {
                n += 1;
                pending.push(ask(&world, &conversation_path(&format!("c-{n}")), key));
            }
            settle().await;
            let (done, waiting): (Vec<_>, Vec<_>) =
                pending.into_iter().partition(tokio::task::JoinHandle::is_finished);
            pending = waiting;
            for task in done {
                let got = task.await.unwrap();
                assert!(matches!(got.status.as_u16(), 404 | 503), "{got:?}");
                *minute += u32::from(got.status == 404);
            }
            let breaker = format!(r#"kore_gateway_breaker_state{{upstream="{}"}}"#, world.standin.url());
            if tick == 0 {
                assert_eq!(world.metric(&breaker).await, 0.0, "closed");
            }
            world.advance(SECOND / TICKS_A_SECOND);
        }
    }
    println!("{n} requests, {} calls; served in each minute: {served:?}", world.standin.count());
    assert!(served.iter().sum::<u32>() >= 540, "{served:?}");
    world.assert_no_violations();
    pending.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_answer_that_is_late_for_its_caller_is_stored_for_the_next_one_and_no_failure() {
    let wanted = closed(1);
    let path = conversation_path(&wanted.conversation_id);
    let world = World::with(|setup| {
        setup.is_simulated = true;
        setup.without = vec!["one-bot"];
        setup.standin.conversations = vec![wanted];
        setup.config = "upstream.breaker.failures = 1".to_owned();
    })
    .await;
    use_up(&world).await;
    world.advance(SECOND * 40);
    let waiting = ask(&world, &path, REPORTING);
    until("it waits", || world.app.snapshot().upstream.waiting() == 1).await;
    // It takes longer than any call before, and is made when twenty of the thirty seconds are over.
    world.standin.set(|switches| switches.lag = SECOND * 25);
    let calls = world.standin.count();
    world.advance(SECOND * 20);
    until("it is made", || world.standin.count() == calls + 1).await;
    world.advance(SECOND * 10);
    let late = waiting.await.unwrap();
    assert_eq!((late.status.as_u16(), late.problem()), (504, "upstream-timeout".to_owned()));
    world.advance(SECOND * 15);
    let mut answer = world.get(&path).await;
    for _ in 0..100 {
        if answer.is_hit() {
            break;
        }
        answer = world.get(&path).await;
    }
    assert!(answer.is_hit(), "{answer:?}");
    assert_eq!(world.standin.count(), calls + 1);
    let breaker = format!(r#"kore_gateway_breaker_state{{upstream="{}"}}"#, world.standin.url());
    assert_eq!(world.metric(&breaker).await, 0.0, "closed");
    world.assert_no_violations();
}

#[tokio::test]
async fn a_call_that_is_made_has_its_own_time_and_then_counts_as_a_failure() {
    let world = World::with(|setup| {
        setup.is_simulated = true;
        setup.without = vec!["one-bot"];
        setup.config = "upstream.breaker.failures = 1".to_owned();
    })
    .await;
    let breaker = format!(r#"kore_gateway_breaker_state{{upstream="{}"}}"#, world.standin.url());
    use_up(&world).await;
    world.advance(SECOND * 40);
    let waiting = ask(&world, &conversation_path("c-1"), REPORTING);
    until("it waits", || world.app.snapshot().upstream.waiting() == 1).await;
    world.standin.set(|switches| switches.lag = SECOND * 3600);
    let calls = world.standin.count();
    world.advance(SECOND * 20);
    until("it is made", || world.standin.count() == calls + 1).await;
    world.advance(SECOND * 29);
    settle().await;
    assert_eq!(waiting.await.unwrap().status, 504);
    assert_eq!(world.metric(&breaker).await, 0.0, "it may still come");
    world.advance(SECOND * 2);
    for _ in 0..100 {
        settle().await;
    }
    assert_eq!(world.metric(&breaker).await, 2.0, "open");
}
