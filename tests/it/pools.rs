//! The pools of the quota belong to the process: no reload and no made-up bot makes a call too many, and
//! nobody's bots are in anybody else's way.

use kore_standin::{Account, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault};

use crate::process::{own_process, up_to};
use crate::world::{
    Got, HOUR, ONE_BOT, REPORTING, SECOND, World, change_config, client, conversation_path, got,
    transcript_path, until,
};

const SECOND_KEY: &str = "kg_second";

fn stream(n: u32) -> String {
    format!("st-24ccdea9-de4e-5139-923f-{n:012x}")
}

/// A transcript of the `n`th session of a bot.
async fn transcript(world: &World, bot: &str, n: u32, key: &str) -> Got {
    let path = transcript_path().replace(EXAMPLE_STREAM, bot);
    got(world.post_request(&path, format!(r#"{{"sessionId":"s-{n}"}}"#), key)).await
}

#[tokio::test]
async fn bots_that_are_made_up_take_no_pool_from_any_other() {
    let world = World::with(|setup| {
        setup.config = "upstream.max_bots = 20".to_owned();
        setup.clients = client("second", SECOND_KEY).toml();
        let streams: Vec<_> = (100..130).map(stream).chain([EXAMPLE_STREAM.to_owned()]).collect();
        let streams: Vec<_> = streams.iter().map(String::as_str).collect();
        let apps = setup.standin.accounts[0].apps.clone();
        setup.standin.accounts[0] = Account::new(EXAMPLE_ACCOUNT, &streams, apps);
    })
    .await;
    // Ten each.
    for n in 0..60 {
        assert_eq!(transcript(&world, &stream(n), n, REPORTING).await.status, 400, "{n}: nobody's");
    }
    for n in 100..110 {
        assert_eq!(transcript(&world, &stream(n), n, REPORTING).await.status, 200, "{n}");
    }
    let refused = transcript(&world, &stream(110), 110, REPORTING).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (503, "temporary-reduced-capacity".to_owned()));
    let calls = world.standin.count();
    assert_eq!(transcript(&world, &stream(110), 110, SECOND_KEY).await.status, 200, "another's share");
    // One that the configuration names, for one of the clients at least.
    for key in [ONE_BOT, REPORTING] {
        let answer = transcript(&world, EXAMPLE_STREAM, 0, key).await;
        assert_ne!(answer.status, 503, "{answer:?}");
    }
    assert!(world.standin.count() > calls);
    world.advance(HOUR);
    until("they are forgotten", || !world.app.snapshot().upstream.counts_bots()).await;
    assert_eq!(transcript(&world, &stream(110), 110, REPORTING).await.status, 200);
}

/// The same of the gateway as a process: by its own clock, and many at once.
#[tokio::test]
async fn made_up_bots_leave_a_process_its_pools() {
    let world = World::new().await;
    change_config(&world, |written| format!("upstream.max_bots = 20\n{written}"));
    let (_gateway, url) = own_process(&world, &up_to("32MiB")).await;
    let ask = async |bot: String, n: u32| {
        let url = format!("{url}{}", transcript_path().replace(EXAMPLE_STREAM, &bot));
        let request = world.http.post(url).header("x-api-key", REPORTING);
        let body = format!(r#"{{"sessionId":"s-{n}"}}"#);
        got(request.header("content-type", "application/json").body(body)).await
    };
    for first in (0..200).step_by(10) {
        let asked = (first..first + 10).map(|n| ask(stream(n), n));
        for answer in futures_util::future::join_all(asked).await {
            assert_eq!(answer.status, 400, "nobody's: {answer:?}");
        }
    }
    let named = ask(EXAMPLE_STREAM.to_owned(), 0).await;
    assert!(![503, 400].contains(&named.status.as_u16()), "{named:?}");
    // Each of them, and some once more until the token's clock was right.
    assert!(world.standin.count() > 200);
}

#[tokio::test]
async fn a_call_of_before_a_reload_makes_its_pool_as_the_new_configuration_has_it() {
    let bots = |amount: u32| format!("[accounts.quota]\nbot = [\"{amount}/min\"]\n");
    let world = World::with(|setup| {
        setup.credentials = bots(60);
        setup.config = "cache.back_off = \"10m\"".to_owned();
    })
    .await;
    world.standin.fault_next(1, Fault::Status(500));
    assert_eq!(transcript(&world, EXAMPLE_STREAM, 1, REPORTING).await.status, 500);
    world.advance(SECOND * 120);
    until("its pool is forgotten", || !world.app.snapshot().upstream.counts_bots()).await;
    // It waits for the back-off to end.
    let request = world.post_request(&transcript_path(), r#"{"sessionId":"s-1"}"#, REPORTING);
    let waiting = tokio::spawn(got(request));
    until("it is under way", || world.app.metrics.http.active_requests.get() == 1).await;
    change_config(&world, |written| written.replace(&bots(60), &bots(2)));
    world.app.reload().await.unwrap();
    world.advance(SECOND * 481);
    until("it is made", || world.standin.count() == 2).await;
    assert_eq!(waiting.await.unwrap().status, 200);
    // Two a minute: one is left.
    assert_eq!(transcript(&world, EXAMPLE_STREAM, 2, REPORTING).await.status, 200);
    assert_eq!(transcript(&world, EXAMPLE_STREAM, 3, REPORTING).await.status, 503);
    assert_eq!(world.standin.count(), 3);
}

#[tokio::test]
async fn an_account_that_comes_back_has_spent_what_it_had_spent() {
    let world = World::with(|setup| setup.without = vec!["one-bot"]).await;
    for n in 0..60 {
        world.get(&conversation_path(&format!("c-{n}"))).await;
    }
    let whole = std::fs::read_to_string(&world.config_file).unwrap();
    let mut without: toml::Table = whole.parse().unwrap();
    for (list, key) in [("accounts", "id"), ("clients", "name")] {
        let entries = without[list].as_array_mut().unwrap();
        entries.retain(|entry| ![EXAMPLE_ACCOUNT, "reporting"].contains(&entry[key].as_str().unwrap()));
    }
    change_config(&world, |_| without.to_string());
    world.app.reload().await.unwrap();
    assert_eq!(world.get(&conversation_path("c-1")).await.status, 401);
    change_config(&world, |_| whole);
    world.app.reload().await.unwrap();
    assert_eq!(world.get(&conversation_path("c-61")).await.status, 503);
    assert_eq!(world.standin.count(), 60);
    world.assert_no_violations();
}
