//! A caller who asks for an answer made anew gets one if its client may, and what is stored if not:
//! nobody spends at will the quota that all share.

use http::Method;
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault};

use crate::world::{DAY, REPORTING, World, before, client, conversation_path, got};

const FRESH: &str = "kg_fresh";

async fn world() -> (World, String) {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation];
        setup.clients = client("fresh", FRESH).rate_limit("5/min").toml() + "may_refresh = true\n";
    })
    .await;
    (world, path)
}

#[tokio::test]
async fn who_may_refresh_gets_a_new_answer_and_everybody_gets_it_from_then_on() {
    let (world, path) = world().await;
    got(world.request(Method::GET, &path, REPORTING)).await;
    for (calls, value) in [(2, "no-cache"), (3, "max-age=0")] {
        let anew = got(world.request(Method::GET, &path, FRESH).header("cache-control", value)).await;
        assert_eq!(anew.cache_status(), "kore-gateway; fwd=request; fwd-status=200; stored");
        assert_eq!(world.standin.count(), calls);
    }
    let plain = got(world.request(Method::GET, &path, FRESH)).await;
    assert!(plain.is_hit());
    assert_eq!(plain.own_limits(), r#""client";r=2;t=36"#, "each is counted against its limit");
    let others = got(world.request(Method::GET, &path, REPORTING).header("cache-control", "no-cache")).await;
    assert!(others.is_hit(), "who may not is answered as if it had not asked");
    assert_eq!(world.standin.count(), 3);
}

#[tokio::test]
async fn what_is_stored_is_better_than_an_error_also_for_who_asked_anew() {
    let (world, path) = world().await;
    let stored = got(world.request(Method::GET, &path, REPORTING)).await;
    world.standin.fault(Some(Fault::Status(500)));
    let anew = got(world.request(Method::GET, &path, FRESH).header("cache-control", "no-cache")).await;
    assert_eq!((anew.status, &anew.body), (stored.status, &stored.body));
    assert!(anew.is_hit());
}
