//! A good configuration is swapped whole while requests go on; a bad one is refused with all its
//! faults, and the old one stays.

use http::{Method, StatusCode};
use kore_gateway::standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM};

use crate::world::{
    DAY, OPS_TOKEN, REPORTING, World, admin, before, change_config, client, conversation_path, got, reload,
    with_ops_token,
};

async fn world() -> World {
    World::with(|setup| {
        with_ops_token(setup);
        setup.standin.conversations = vec![Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY))];
    })
    .await
}

#[tokio::test]
async fn a_client_comes_and_goes_by_reload_also_for_hits() {
    let world = world().await;
    let path = conversation_path(&Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).conversation_id);
    let status = async |key: &str| got(world.request(Method::GET, &path, key)).await.status;
    assert_eq!(status(REPORTING).await, StatusCode::OK);
    assert_eq!(status("kg_new").await, StatusCode::UNAUTHORIZED);

    change_config(&world, |written| {
        written.replace("name = \"reporting\"", "name = \"renamed\"")
            + &client("new", "kg_new", EXAMPLE_ACCOUNT, "*", "10/s")
    });
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    assert_eq!(status("kg_new").await, StatusCode::OK);

    change_config(&world, |written| {
        written.split("\n[[clients]]\nname = \"new\"").next().unwrap().to_owned()
    });
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    assert_eq!(status("kg_new").await, StatusCode::UNAUTHORIZED);
    assert_eq!(world.standin.count(), 1, "the store outlives a reload");
    assert_eq!(world.metric(r#"kore_gateway_config_reloads_total{result="success"}"#).await, 3.0);
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_its_faults_and_the_old_one_stays() {
    let world = world().await;
    change_config(&world, |written| {
        written.replace("listen = \"127.0.0.1:0\"", "listen = 5") + "\n[cache]\nx = 1\n"
    });
    let refused = reload(&world).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    let faults = refused.json()["errors"].as_array().unwrap().clone();
    let paths: Vec<_> = faults.iter().map(|fault| fault["path"].as_str().unwrap()).collect();
    for path in ["server.listen", "ops.listen", "cache.x"] {
        assert!(paths.contains(&path), "{paths:?}");
    }
    assert_eq!(got(world.request(Method::GET, &conversation_path("c-2"), REPORTING)).await.status, 404);
    assert_eq!(world.metric(r#"kore_gateway_config_reloads_total{result="failure"}"#).await, 1.0);
}

#[tokio::test]
async fn what_only_a_restart_can_change_is_said_so() {
    let world = world().await;
    change_config(&world, |written| written + "\n[cache]\ncapacity = \"1MiB\"\n");
    let refused = reload(&world).await;
    assert_eq!(refused.json()["errors"][0]["path"], "cache.capacity");
    assert!(refused.json()["errors"][0]["msg"].as_str().unwrap().contains("restart"));
}

#[tokio::test]
async fn admin_asks_for_the_ops_token_and_shows_no_secret() {
    let world = world().await;
    for token in ["", "ops-token-canarz", "ops-token-canary2"] {
        let answer = got(admin(&world, Method::GET, "/admin/config", token)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{token}");
    }
    let shown = got(admin(&world, Method::GET, "/admin/config", OPS_TOKEN)).await;
    let shown = String::from_utf8(shown.body.to_vec()).unwrap();
    assert!(shown.contains(EXAMPLE_ACCOUNT));
    for canary in [OPS_TOKEN, kore_gateway::standin::example_secret(), REPORTING] {
        assert!(!shown.contains(canary));
    }
}
