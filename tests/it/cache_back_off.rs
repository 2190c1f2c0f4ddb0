//! A call that fails is shared by those who wait for it, and not repeated by each in turn: the next
//! one waits out the back-off, and those who come meanwhile wait with it.

use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::future::join_all;
use http::StatusCode;
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault};

use crate::world::{DAY, SECOND, World, before, conversation_path, until};

fn settled() -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY))
}

async fn world(config: &str) -> World {
    World::with(|setup| {
        setup.standin.conversations = vec![settled()];
        setup.config = format!("cache.back_off = \"1s\"\n{config}");
        setup.without_quota = true;
    })
    .await
}

async fn waits_out_the_back_off(world: &World) {
    until("one waits out the back-off", || world.clock.asleep_for(SECOND) == 1).await;
}

#[tokio::test]
async fn five_hundred_at_once_to_a_failing_id_make_at_most_two_calls() {
    for fault in [Fault::Status(500), Fault::TruncatedJson, Fault::Html200, Fault::Status(404)] {
        let world = world("upstream.breaker.failures = 1000").await;
        let path = conversation_path(&settled().conversation_id);
        world.standin.fault(Some(fault));
        let answered = AtomicI64::new(0);
        let active = || world.app.metrics.http.active_requests.get();
        // Three waves: the second and the third come when the first call is known to have failed, and
        // each would make a call of its own.
        let (come_in, arrived) = tokio::sync::watch::channel(0);
        let asking = join_all((0..500).map(|n| {
            let (mut arrived, answered, world, path) = (arrived.clone(), &answered, &world, &path);
            async move {
                arrived.wait_for(|wave| *wave > n % 3).await.unwrap();
                let got = world.get(path).await;
                answered.fetch_add(1, Ordering::SeqCst);
                got
            }
        }));
        let moving = async {
            for wave in 0..3 {
                come_in.send_replace(wave + 1);
                let so_far = i64::try_from((0..500).filter(|n| n % 3 <= wave).count()).unwrap();
                until("they are in", || answered.load(Ordering::SeqCst) + active() == so_far).await;
                until("the first call has failed", || answered.load(Ordering::SeqCst) > 0).await;
                if wave > 0 {
                    waits_out_the_back_off(&world).await;
                }
            }
            loop {
                tokio::task::yield_now().await;
                world.advance(SECOND);
            }
        };
        let all = tokio::select! { all = asking => all, () = moving => unreachable!() };
        assert!(all.iter().all(|got| got.status == all[0].status), "all get the same");
        assert!(world.standin.count() <= 2, "{} calls", world.standin.count());
    }
}

#[tokio::test]
async fn the_next_one_waits_out_the_back_off_and_then_succeeds() {
    let world = world("").await;
    let path = conversation_path(&settled().conversation_id);
    world.standin.fault_next(1, Fault::Status(500));
    assert_eq!(world.get(&path).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    let again = world.get(&path);
    let moving = async {
        waits_out_the_back_off(&world).await;
        assert_eq!(world.standin.count(), 1, "it waits");
        world.advance(SECOND);
    };
    let (again, ()) = tokio::join!(again, moving);
    assert!(again.cache_status().ends_with("; stored"));
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn who_waits_has_a_deadline_of_his_own() {
    let world = world("upstream.timeout = \"200ms\"").await;
    let path = conversation_path(&settled().conversation_id);
    world.standin.fault_next(1, Fault::Status(500));
    world.get(&path).await;
    // The back-off takes longer than that.
    let moving = async {
        waits_out_the_back_off(&world).await;
        world.advance(SECOND / 5);
    };
    let (got, ()) = tokio::join!(world.get(&path), moving);
    assert_eq!((got.status, got.problem().as_str()), (StatusCode::GATEWAY_TIMEOUT, "upstream-timeout"));
    assert_eq!(world.standin.count(), 1);
}
