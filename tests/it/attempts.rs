//! What failed is tried again, and a hundred requests never cost more than a hundred and ten calls;
//! a base URL that keeps failing is left alone, and one probe finds out when it is well again.

use http::Method;
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault, KeepAlive};

use crate::world::{DAY, REPORTING, SECOND, World, before, conversation_path, got, until};

const REQUESTS: u32 = 200;

/// Retries on, and nothing else in the way: plenty of quota, no breaker, next to no waits.
fn config(breaker_failures: u32) -> String {
    format!(
        "upstream.retry = {{ budget = 10, first_wait = \"1ms\", longest_wait = \"2ms\" }}\n\
         upstream.breaker.failures = {breaker_failures}\n"
    )
}

async fn world_with(breaker_failures: u32) -> World {
    World::with(|setup| {
        setup.config = config(breaker_failures);
        setup.standin.switches.enforce_quota = false;
        setup.credentials = "[accounts.quota]\naccount = [\"100000/s\"]\nbot = [\"100000/s\"]".to_owned();
    })
    .await
}

/// Calls for so many requests, each for something else, of which `percent` fail; and how many
/// requests got an answer of the upstream's that is no failure.
async fn calls(world: &World, fault: &Fault, percent: u32) -> (u32, u32) {
    let mut good = 0;
    for n in 0..REQUESTS {
        // Spread evenly: of any hundred in a row, `percent` fail.
        let fails = (n + 1) * percent / 100 > n * percent / 100;
        world.standin.clear_faults();
        if fails && percent == 100 {
            world.standin.fault(Some(fault.clone()));
        } else if fails {
            world.standin.fault_next(1, fault.clone());
        }
        let answer = world.get(&conversation_path(&format!("c-{n}"))).await;
        good += u32::from(answer.status == 404);
    }
    (count(world), good)
}

fn count(world: &World) -> u32 {
    u32::try_from(world.standin.count()).unwrap()
}

#[tokio::test]
async fn a_hundred_requests_never_cost_more_than_a_hundred_and_ten_calls() {
    let faults = [
        ("503", Fault::Status(503)),
        ("cut body", Fault::CutBody),
        ("reset", Fault::ResetInBody),
        // Over a connection that was used before it looks as if that had been closed while it lay idle.
        ("no answer", Fault::Reset),
    ];
    let mut rows = Vec::new();
    for (name, fault) in &faults {
        for percent in [0, 10, 50, 100] {
            rows.extend([("off", 1_000_000), ("on", 5)].map(|breaker| (*name, fault, percent, breaker)));
        }
    }
    // All at once, each in a world of its own: most of the time is spent on waiting for sockets.
    let rows = rows.into_iter().map(|(name, fault, percent, (breaker, failures))| async move {
        let world = world_with(failures).await;
        let (calls, good) = calls(&world, fault, percent).await;
        (name, percent, breaker, calls, good)
    });
    println!("{REQUESTS} requests\nfault       failing  breaker  calls  per request  answered");
    for (name, percent, breaker, calls, good) in futures_util::future::join_all(rows).await {
        let ratio = f64::from(calls) / f64::from(REQUESTS);
        println!("{name:10} {percent:>7}% {breaker:>8} {calls:>6} {ratio:>12.3} {good:>9}");
        assert!(calls * 100 <= REQUESTS * 110, "{name}, {percent} %: {calls} calls");
        match (percent, breaker) {
            (0, _) => assert_eq!((calls, good), (REQUESTS, REQUESTS)),
            // The budget is spent, not hoarded: ten in a hundred fail, nearly all are saved.
            (10, "off") => assert!(good >= REQUESTS - 2, "{good}"),
            (50, "off") => assert!(good >= REQUESTS * 59 / 100, "{good}"),
            (100, "off") => assert!(calls > REQUESTS, "{calls}"),
            (100, _) => assert!(calls <= 6, "{calls} calls to an upstream that is down"),
            _ => {}
        }
    }
}

/// A connection that has worked, and is cut where an answer should begin, looks as if it had been closed
/// while it lay idle. The upstream has counted the call all the same.
#[tokio::test]
async fn a_repeat_after_a_connection_that_was_closed_idle_comes_out_of_the_same_budget() {
    let world = world_with(1_000_000).await;
    let (mut requests, mut repeated) = (0, 0);
    // Twenty repeats are saved up; the rounds after that want a hundred.
    for n in 0..REQUESTS {
        world.get(&conversation_path(&format!("c-saved-{n}"))).await;
        requests += 1;
    }
    for n in 0..100 {
        for is_cut in [false, true] {
            world.standin.clear_faults();
            if is_cut {
                world.standin.fault_next(1, Fault::Reset);
            }
            let before = world.standin.count();
            let answer = world.get(&conversation_path(&format!("c-{n}-{is_cut}"))).await;
            requests += 1;
            let calls = count(&world);
            assert!(calls * 100 <= requests * 110, "{calls} calls for {requests} requests");
            let made = world.standin.calls().split_off(before);
            if made.first().is_some_and(|call| call.reused && is_cut) {
                repeated += made.len() - 1;
                assert_eq!(answer.status, 404, "it does not show");
            }
        }
        // After one such connection none is used again for a minute.
        world.advance(SECOND * 61);
    }
    assert!(repeated >= 20, "{repeated}: that is what is tried here");
}

/// A budget that has something in it.
async fn saved_up(world: &World) {
    for n in 0..10 {
        world.get(&conversation_path(&format!("c-saved-{n}"))).await;
    }
    world.standin.forget();
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    let cases = [
        (Fault::Status(502), 2, 404),
        (Fault::Status(503), 2, 404),
        (Fault::Status(504), 2, 404),
        (Fault::CutBody, 2, 404),
        (Fault::ResetInBody, 2, 404),
        (Fault::Reset, 2, 404),
        (Fault::Status(500), 1, 500),
        (Fault::Status(412), 1, 412),
        (Fault::Redirect("http://127.0.0.1:1/".to_owned()), 1, 502),
        (Fault::LengthAndChunked, 1, 502),
    ];
    for (fault, calls, status) in cases {
        let world = world_with(5).await;
        saved_up(&world).await;
        world.standin.fault_next(1, fault.clone());
        let answer = world.get(&conversation_path("c-1")).await;
        assert_eq!((count(&world), answer.status.as_u16()), (calls, status), "{fault:?}");
        let retries = world.metric(r#"kore_gateway_upstream_retries_total{route="conversation"}"#).await;
        // A connection that was cut before an answer began may be repeated outside of the budget.
        assert!(retries <= f64::from(calls - 1), "{fault:?}");
    }
}

#[tokio::test]
async fn nothing_is_tried_again_out_of_an_empty_quota() {
    let world = World::with(|setup| {
        setup.config = config(1000);
        setup.without = vec!["one-bot"];
    })
    .await;
    for n in 0..59 {
        world.get(&conversation_path(&format!("c-{n}"))).await;
    }
    // There would be room again before the deadline; but a retry is not worth waiting for it.
    world.advance(SECOND * 40);
    world.standin.fault(Some(Fault::Status(503)));
    let asked = tokio::spawn(got(world.request(Method::GET, &conversation_path("c-60"), REPORTING)));
    let waits = || world.app.snapshot().upstream.waiting() > 0;
    until("it is told, or it waits", || asked.is_finished() || waits()).await;
    assert!(!waits());
    let answer = asked.await.unwrap();
    assert_eq!(answer.status, 503);
    assert_ne!(answer.header("content-type"), "application/problem+json", "the upstream's own words");
    assert_eq!(world.standin.count(), 60);
    world.assert_no_violations();
}

#[tokio::test]
async fn the_breaker_opens_lets_one_probe_through_and_closes_within_two_seconds_of_healing() {
    let world = World::with(|setup| setup.config = "upstream.retry.budget = 0".to_owned()).await;
    world.standin.fault(Some(Fault::Status(500)));
    for n in 0..5 {
        assert_eq!(world.get(&conversation_path(&format!("c-{n}"))).await.status, 500);
    }
    let open = world.get(&conversation_path("c-5")).await;
    assert_eq!((open.status.as_u16(), open.problem()), (503, "temporary-reduced-capacity".to_owned()));
    assert_eq!(open.header("retry-after"), "2");
    assert!(open.header("proxy-status").contains("destination_unavailable"));
    assert_eq!(world.standin.count(), 5);
    // One probe, and only one, though ten ask; it fails.
    world.advance(SECOND * 2);
    world.standin.set(|switches| switches.latency = SECOND / 10);
    let paths: Vec<_> = (0..10).map(|n| conversation_path(&format!("c-1{n}"))).collect();
    let statuses: Vec<_> = futures_util::future::join_all(paths.iter().map(|path| world.get(path))).await;
    assert_eq!(statuses.iter().filter(|answer| answer.status == 500).count(), 1);
    assert_eq!(statuses.iter().filter(|answer| answer.status == 503).count(), 9);
    assert_eq!(world.standin.count(), 6);
    // Healed: two seconds later all is well, for everybody.
    world.standin.clear_faults();
    world.standin.set(|switches| switches.latency = std::time::Duration::ZERO);
    world.advance(SECOND * 2);
    for n in 0..10 {
        assert_eq!(world.get(&conversation_path(&format!("c-2{n}"))).await.status, 404);
    }
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_never_shows() {
    for keep_alive in [KeepAlive::ClosedWhenIdle, KeepAlive::ClosedWhenReused] {
        let world = world_with(5).await;
        world.standin.set(|switches| switches.keep_alive = keep_alive);
        for round in 0..5 {
            for n in 0..20 {
                let answer = world.get(&conversation_path(&format!("c-{round}-{n}"))).await;
                assert_eq!(answer.status, 404, "{keep_alive:?}, {round}, {n}: {answer:?}");
            }
            world.advance(SECOND * 61);
        }
        assert_eq!(count(&world), 100, "what was sent into a closed connection never came to be a call");
        let failed = r#"kore_gateway_upstream_attempts_total{route="conversation",result="failed"}"#;
        let stale = world.metric(failed).await;
        if keep_alive == KeepAlive::ClosedWhenReused {
            assert!(stale >= 4.0, "{stale}: that is what is tried here");
        }
        // One a minute: after it, none is used again for so long.
        assert!(stale <= 5.0, "{stale} of 100");
        world.assert_no_violations();
    }
}

#[tokio::test]
async fn one_bad_record_does_not_take_the_upstream_away_from_everybody() {
    let stored = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let good = conversation_path(&stored.conversation_id);
    let world = World::of(vec![stored]).await;
    world.standin.fault_where("c-bad", Fault::LengthAndChunked);
    for _ in 0..10 {
        assert_eq!(world.get(&conversation_path("c-bad")).await.problem(), "upstream-invalid");
    }
    assert_eq!(world.get(&good).await.status, 200);
}

#[tokio::test]
async fn a_request_is_tried_three_times_at_most_and_counts_once_against_its_upstream() {
    let world = world_with(3).await;
    // Ten retries are saved up.
    for n in 0..100 {
        world.get(&conversation_path(&format!("c-saved-{n}"))).await;
    }
    world.standin.forget();
    world.standin.fault_where("c-bad", Fault::Status(503));
    for n in 1..=2 {
        assert_eq!(world.get(&conversation_path("c-bad")).await.status, 503);
        assert_eq!(world.standin.count(), 3 * n);
    }
    assert_eq!(world.get(&conversation_path("c-1")).await.status, 404, "the upstream is not left alone");
}

#[tokio::test]
async fn a_reload_does_not_forget_that_the_upstream_is_left_alone() {
    let world = world_with(5).await;
    world.standin.fault(Some(Fault::Status(500)));
    for n in 0..5 {
        assert_eq!(world.get(&conversation_path(&format!("c-{n}"))).await.status, 500);
    }
    world.app.reload().await.unwrap();
    assert_eq!(world.get(&conversation_path("c-5")).await.status, 503);
    assert_eq!(count(&world), 5);
    world.standin.clear_faults();
    world.advance(SECOND * 2);
    assert_eq!(world.get(&conversation_path("c-6")).await.status, 404);
}
