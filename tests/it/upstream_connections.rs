//! Connections to the upstream are kept for a time and no longer, and one that the upstream was just
//! closing does not show.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::client::legacy::connect::dns::Name;
use kore_gateway::upstream::Resolver;
use kore_standin::Fault;
use tower::service_fn;

use crate::world::{MINUTE, SECOND, World, conversation_path};

/// Without a budget for repeats no connection would be kept.
const RETRY: &str = r#"upstream.retry = { budget = 100, first_wait = "1ms", longest_wait = "2ms" }
upstream.max_connection_age = "5m"
upstream.allow_plain_http = true
"#;

async fn ask(world: &World, n: u32) -> u16 {
    world.get(&conversation_path(&format!("c-{n}"))).await.status.as_u16()
}

#[tokio::test]
async fn a_name_that_has_moved_is_followed_once_its_connections_have_had_their_time() {
    let looked_up = Arc::new(Mutex::new(0));
    let counted = looked_up.clone();
    let world = World::with(|setup| {
        setup.config = RETRY.to_owned();
        setup.named = Some("kore.test");
        setup.resolver = Some(Resolver::new(service_fn(move |_: Name| {
            *counted.lock().unwrap() += 1;
            async { Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()].into_iter()) }
        })));
    })
    .await;
    assert_eq!(ask(&world, 0).await, 404);
    // Jitter takes a fifth off at most, and adds nothing.
    world.advance(MINUTE * 4 - SECOND);
    for n in 1..5 {
        assert_eq!(ask(&world, n).await, 404);
    }
    assert_eq!(*looked_up.lock().unwrap(), 1);
    world.advance(MINUTE + SECOND);
    // The exchange after which it is closed, and the first one over the next.
    for n in 5..7 {
        assert_eq!(ask(&world, n).await, 404);
    }
    assert_eq!(*looked_up.lock().unwrap(), 2);
    let reused: Vec<_> = world.standin.calls().iter().map(|call| call.reused).collect();
    assert_eq!(reused, [false, true, true, true, true, true, false]);
    world.assert_no_violations();
}

#[tokio::test]
async fn connections_that_were_made_together_do_not_end_together() {
    let world = World::with(|setup| {
        setup.config = RETRY.to_owned();
        setup.without_quota = true;
    })
    .await;
    // Repeats are saved up, so that all of them are kept.
    for n in 0..60 {
        ask(&world, n).await;
    }
    world.standin.set(|switches| switches.latency = Duration::from_millis(300));
    let asked = (0..40).map(|n| ask(&world, 100 + n));
    futures_util::future::join_all(asked).await;
    world.standin.forget();
    world.advance(MINUTE * 9 / 2);
    futures_util::future::join_all((0..40).map(|n| ask(&world, 200 + n))).await;
    futures_util::future::join_all((0..40).map(|n| ask(&world, 300 + n))).await;
    let new = world.standin.calls().iter().filter(|call| !call.reused).count();
    assert!((1..40).contains(&new), "{new} of 40 were made anew");
}

const TIMED_OUT: Fault = Fault::Raw(bytes::Bytes::from_static(
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
));

#[tokio::test]
async fn a_408_over_a_connection_that_was_used_before_is_asked_for_again() {
    let world = World::with(|setup| setup.config = RETRY.to_owned()).await;
    for n in 0..5 {
        assert_eq!(ask(&world, n).await, 404);
    }
    world.standin.fault_next(1, TIMED_OUT);
    assert_eq!(ask(&world, 5).await, 404, "it does not show");
    let calls = world.standin.calls();
    assert_eq!((calls.len(), calls[5].reused, calls[6].reused), (7, true, false));
    // Over a new one it is an answer like any other.
    world.standin.fault_next(1, TIMED_OUT);
    assert_eq!(ask(&world, 6).await, 408);
    assert_eq!(world.standin.count(), 8);
    world.assert_no_violations();
}
