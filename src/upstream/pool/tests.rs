use super::*;
use crate::clock::UnixMillis;
use crate::config::{Fairness, Lane};

const RATE: Rate = Rate { amount: 2, window: Duration::from_secs(60) };

fn payer(client: &str, lane: Lane) -> Payer {
    Payer { client: client.into(), lane, weight: 1 }
}

fn pool() -> (Arc<Pool>, Clock, Payers) {
    let clock = Clock::manual(UnixMillis(0));
    let fairness = Fairness { headroom: 0, reserve: 0, background_minimum: 0 };
    let shares = QuotaShares { interactive: 1, background: 0, heaviest: 1, fairness };
    let payers = Payers::of(payer("one", Lane::Interactive));
    (Pool::new(&[RATE], shares, 10, clock.clone()), clock, payers)
}

#[tokio::test]
async fn where_it_stands_is_told_while_somebody_else_is_at_work_on_it() {
    let (pool, clock, payers) = pool();
    let mut call = pool.reserve(&payers, Duration::ZERO).await.expect("room");
    call.mark_sent();
    call.mark_done();
    drop(call);
    let held = pool.state.lock().expect("nobody panicked");
    assert_eq!(pool.available(), (1, Duration::from_secs(60)));
    clock.advance(RATE.window);
    assert_eq!(pool.available(), (1, Duration::ZERO), "what was so before");
    drop(held);
    assert_eq!(pool.available(), (2, Duration::ZERO));
}

#[tokio::test]
async fn with_nothing_left_it_says_when_something_will_be() {
    let (pool, clock, payers) = pool();
    let under_way = pool.reserve(&payers, Duration::ZERO).await.expect("room");
    let mut first = pool.reserve(&payers, Duration::ZERO).await.expect("room");
    assert_eq!(pool.available(), (0, Duration::from_secs(60)), "if both end at once");
    first.mark_sent();
    first.mark_done();
    clock.advance(Duration::from_secs(10));
    drop(first);
    clock.advance(Duration::from_secs(20));
    assert_eq!(pool.available(), (0, Duration::from_secs(40)));
    drop(under_way);
    assert_eq!(pool.available(), (1, Duration::from_secs(40)), "it was never made");
}

/// Moves the clock by steps of a second, letting the others run, until a task is over.
async fn seconds_until(clock: &Clock, task: &tokio::task::JoinHandle<ReservationResult>) -> u64 {
    for second in 0..200 {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        if task.is_finished() {
            return second;
        }
        clock.advance(Duration::from_secs(1));
    }
    panic!("never");
}

fn asks(pool: &Arc<Pool>, payers: &Payers, deadline: u64) -> tokio::task::JoinHandle<ReservationResult> {
    let (pool, payers) = (pool.clone(), payers.clone());
    tokio::spawn(async move { pool.reserve(&payers, Duration::from_secs(deadline)).await })
}

#[tokio::test]
async fn who_cannot_be_served_in_time_any_more_because_a_call_drags_on_is_told_within_a_second() {
    let (pool, clock, payers) = pool();
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut call = pool.reserve(&payers, Duration::ZERO).await.expect("room");
        call.mark_sent();
        slow.push(call);
    }
    // If they ended at once, there would be room at 60 s.
    let waiting = asks(&pool, &payers, 65);
    let told = seconds_until(&clock, &waiting).await;
    assert!((6..=7).contains(&told), "{told} s");
    let told = waiting.await.expect("no panic").err();
    assert_eq!(told, Some(Exhausted(Duration::from_secs(60))));
}

#[tokio::test]
async fn a_call_that_was_given_up_counts_for_as_long_as_it_may_lie_unread() {
    let (pool, clock, payers) = pool();
    for _ in 0..2 {
        pool.reserve(&payers, Duration::ZERO).await.expect("room").mark_sent();
    }
    clock.advance(MAY_LIE_UNREAD + RATE.window - Duration::from_millis(1));
    assert_eq!(pool.available().0, 0);
    clock.advance(Duration::from_millis(1));
    assert_eq!(pool.available().0, 2);
}

#[tokio::test]
async fn a_call_of_the_background_is_made_at_once_when_somebody_in_a_hurry_waits_for_it_too() {
    let clock = Clock::manual(UnixMillis(0));
    let rate = Rate { amount: 10, ..RATE };
    let fairness = Fairness { headroom: 50, reserve: 0, background_minimum: 10 };
    let shares = QuotaShares { interactive: 1, background: 1, heaviest: 1, fairness };
    let pool = Pool::new(&[rate], shares, 10, clock.clone());
    let export = || Payers::of(payer("export", Lane::Background));
    let desk = payer("desk", Lane::Interactive);
    let mut held = Vec::new();
    for payers in [Payers::of(desk.clone()), export()] {
        let mut call = pool.reserve(&payers, Duration::ZERO).await.expect("within its share");
        call.mark_sent();
        held.push(call);
    }
    let payers = export();
    let first = asks(&pool, &payers, 1000);
    let second = asks(&pool, &export(), 1000);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!first.is_finished() && !second.is_finished(), "beyond the minimum, it waits");
    payers.join(&desk);
    held.push(first.await.expect("no panic").expect("the desk's share"));
    assert_eq!(pool.waiting(), 1, "the other one waits");
    second.abort();
}
