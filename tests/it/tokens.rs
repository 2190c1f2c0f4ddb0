//! The upstream's token names whom the credential says, is renewed before its time, fits the
//! upstream's clock, and follows its secret when that changes, without a caller noticing.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use http::Method;
use kore_standin::{Conversation, EXAMPLE_CLIENT_ID, EXAMPLE_STREAM, Fault, Standin, example_secret};

use crate::world::{DAY, HOUR, NOON, REPORTING, SECOND, World, before, conversation_path, got, until};

const NEW_SECRET: &str = "not-a-secret-example-only-rotated-00000000cccc";

fn minted() -> String {
    format!(r#"kore_gateway_tokens_minted_total{{credential="{EXAMPLE_CLIENT_ID}"}}"#)
}

fn tokens(standin: &Standin) -> usize {
    standin.calls().into_iter().map(|call| call.token_id).collect::<HashSet<_>>().len()
}

fn change_secret_of_upstream(world: &World, secret: &str) {
    world.standin.set_accounts(|accounts| secret.clone_into(&mut accounts[0].apps[0].client_secret));
}

fn change_file(world: &World, secret: &str) {
    std::fs::write(world.secrets.path().join(EXAMPLE_CLIENT_ID), format!("{secret}\n")).unwrap();
}

#[tokio::test]
async fn a_token_carries_the_claims_that_its_credential_names() {
    // The stand-in takes `iss` where there is no `appId`, and nothing else.
    let world = World::with(|setup| {
        setup.credentials =
            format!(r#"claims = {{ iss = "{EXAMPLE_CLIENT_ID}", sub = "st-1", aud = "kore" }}"#);
        setup.without = vec!["neighbour"];
    })
    .await;
    assert_eq!(world.get(&conversation_path("c-1")).await.status, 404);
    assert_eq!(world.standin.calls()[0].app_id.as_deref(), Some(EXAMPLE_CLIENT_ID));
    world.assert_no_violations();

    let world =
        World::with(|setup| setup.credentials = r#"claims = { appId = "cs-nobody" }"#.to_owned()).await;
    assert_eq!(world.get(&conversation_path("c-1")).await.problem(), "upstream-refused");
}

#[tokio::test]
async fn however_many_ask_at_once_one_token_is_minted() {
    let world = World::with(|setup| {
        setup.credentials = "[accounts.quota]\naccount = [\"1000/s\"]".to_owned();
        setup.standin.switches.enforce_quota = false;
    })
    .await;
    let paths: Vec<_> = (0..25).map(|n| conversation_path(&format!("c-{n}"))).collect();
    let all = || futures_util::future::join_all(paths.iter().map(|path| world.get(path)));
    all().await;
    assert_eq!(world.metric(&minted()).await, 1.0);
    // And when it is refused to all of them, one more.
    change_secret_of_upstream(&world, NEW_SECRET);
    change_file(&world, NEW_SECRET);
    let answers = all().await;
    assert!(answers.iter().all(|answer| answer.status == 404));
    assert_eq!(world.metric(&minted()).await, 2.0);
    assert_eq!((world.standin.count(), tokens(&world.standin)), (75, 2));
}

#[tokio::test]
async fn a_token_is_renewed_at_four_fifths_of_its_life_while_nobody_asks() {
    let world = World::new().await;
    world.get(&conversation_path("c-1")).await;
    let expiry =
        format!(r#"kore_gateway_token_expiry_timestamp_seconds{{credential="{EXAMPLE_CLIENT_ID}"}}"#);
    let first = world.metric(&expiry).await;
    let since_noon = first - f64::from(u32::try_from(NOON / 1000).unwrap());
    assert_eq!(since_noon, 3570.0, "iat lies thirty seconds back");
    world.advance(HOUR * 4 / 5);
    let metrics = &world.app.metrics;
    let renewed = format!("{} 2\n", minted());
    until("a new token", || metrics.open_metrics().unwrap().contains(&renewed)).await;
    assert_eq!(world.metric(&expiry).await, first + 48.0 * 60.0);
    assert_eq!(world.standin.count(), 1);
}

#[tokio::test]
async fn an_upstream_whose_clock_is_off_is_learnt_from_its_date_with_one_repeat() {
    for ahead in [-7 * 3600, -120, 7200] {
        let world = World::new().await;
        world.standin.clock().set_ms(NOON + ahead * 1000);
        assert_eq!(world.get(&conversation_path("c-1")).await.status, 404, "{ahead} s");
        let learnt_by = world.standin.count();
        assert!(learnt_by <= 2, "{ahead} s: {learnt_by} calls");
        for n in 2..10 {
            assert_eq!(world.get(&conversation_path(&format!("c-{n}"))).await.status, 404);
        }
        assert_eq!(world.standin.count(), learnt_by + 8);
    }
}

#[tokio::test]
async fn a_refused_credential_is_not_named_to_callers_and_not_tried_twice_again_until_it_is_taken() {
    let world = World::new().await;
    world.standin.fault(Some(Fault::Unauthorized401));
    for (n, calls) in [(1, 2), (2, 3), (3, 4)] {
        let refused = world.get(&conversation_path(&format!("c-{n}"))).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (502, "upstream-refused".to_owned()));
        let detail = refused.json()["detail"].to_string();
        assert!(!detail.contains(EXAMPLE_CLIENT_ID) && !detail.contains(example_secret()), "{detail}");
        assert_eq!(world.standin.count(), calls);
    }
    world.standin.clear_faults();
    assert_eq!(world.get(&conversation_path("c-4")).await.status, 404);
    world.standin.fault_next(1, Fault::Unauthorized401);
    assert_eq!(world.get(&conversation_path("c-5")).await.status, 404, "and again with a repeat");
}

#[tokio::test]
async fn a_changed_secret_is_taken_up_without_a_restart_and_without_a_failed_request() {
    // In whatever order the file, the upstream and the gateway's look at the file come.
    let orders = [
        ["file", "upstream", "look"],
        ["upstream", "file", "look"],
        ["file", "look", "upstream"],
        ["look", "file", "upstream"],
    ];
    for order in orders {
        let conversations = (0..40).map(|n| Conversation::closed_at(EXAMPLE_STREAM, n, before(DAY)));
        let conversations: Vec<_> = conversations.collect();
        let mut paths: Vec<_> =
            conversations.iter().map(|one| conversation_path(&one.conversation_id)).collect();
        let world = World::with(|setup| setup.standin.conversations = conversations).await;
        assert_eq!(world.get(&paths.pop().unwrap()).await.status, 200);
        for step in order {
            match step {
                "file" => change_file(&world, NEW_SECRET),
                "upstream" => change_secret_of_upstream(&world, NEW_SECRET),
                _ => world.advance(SECOND * 5),
            }
            // With the upstream changed first, its new secret is not yet in our hands.
            if order[0] == "upstream" && step == "upstream" {
                continue;
            }
            let three: Vec<_> = (0..3).map(|_| paths.pop().unwrap()).collect();
            let requests = three.iter().map(|path| got(world.request(Method::GET, path, REPORTING)));
            for answer in futures_util::future::join_all(requests).await {
                assert_eq!(answer.status, 200, "{order:?} after {step}: {answer:?}");
            }
        }
        assert_eq!(world.get(&paths.pop().unwrap()).await.status, 200, "{order:?}");
    }
}

#[tokio::test]
async fn an_unusable_secret_file_leaves_the_old_secret_in_place() {
    let world = World::new().await;
    world.get(&conversation_path("c-1")).await;
    std::fs::write(world.secrets.path().join(EXAMPLE_CLIENT_ID), "\n").unwrap();
    world.advance(HOUR);
    assert_eq!(world.get(&conversation_path("c-2")).await.status, 404);
    std::fs::remove_file(world.secrets.path().join(EXAMPLE_CLIENT_ID)).unwrap();
    world.advance(HOUR);
    assert_eq!(world.get(&conversation_path("c-3")).await.status, 404);
    world.assert_no_violations();
}

async fn without_quota() -> World {
    World::with(|setup| setup.without_quota = true).await
}

/// As many misses at once.
async fn misses(world: &World, name: &str, count: usize) -> Vec<u16> {
    let paths: Vec<_> = (0..count).map(|n| conversation_path(&format!("c-{name}-{n}"))).collect();
    let answers = futures_util::future::join_all(paths.iter().map(|path| world.get(path))).await;
    answers.iter().map(|answer| answer.status.as_u16()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn secrets_that_change_under_load_fail_nobody() {
    let world = without_quota().await;
    for round in 0..20 {
        let secret = format!("{NEW_SECRET}-{round}");
        change_file(&world, &secret);
        world.advance(SECOND * 5);
        assert_eq!(misses(&world, &format!("{round}-before"), 12).await, [404; 12], "{round}");
        change_secret_of_upstream(&world, &secret);
        assert_eq!(misses(&world, &format!("{round}-after"), 12).await, [404; 12], "{round}");
    }
}

#[tokio::test]
async fn a_bot_that_is_refused_costs_one_call_each_and_the_others_nothing() {
    let world = without_quota().await;
    let bad = "st-24ccdea9-de4e-5139-923f-883c53ffcccc";
    world.standin.fault_where(bad, Fault::Unauthorized401);
    for n in 0..6 {
        assert_eq!(world.get(&conversation_path(&format!("c-{n}"))).await.status, 404);
        let path = conversation_path(&format!("c-{n}")).replace(EXAMPLE_STREAM, bad);
        assert_eq!(world.get(&path).await.problem(), "upstream-refused");
    }
    // Of the bad bot's first request there is a repeat; what comes of it is forgotten by the next.
    assert_eq!((world.standin.count(), world.metric(&minted()).await), (6 + 7, 3.0));
}

#[tokio::test]
async fn an_app_that_enforces_jti_is_not_asked_twice_for_each_of_many_refused_requests() {
    let world = World::with(|setup| {
        setup.without_quota = true;
        setup.credentials = "jti = true\n".to_owned();
    })
    .await;
    world.standin.fault(Some(Fault::Unauthorized401));
    assert_eq!(misses(&world, "first", 1).await, [502]);
    world.standin.forget();
    assert_eq!(misses(&world, "then", 25).await, [502; 25]);
    assert_eq!(world.standin.count(), 25);
}

#[tokio::test]
async fn a_secret_file_that_is_ahead_of_the_upstream_costs_one_call_in_all() {
    let world = without_quota().await;
    change_file(&world, NEW_SECRET);
    // The look happens on another task, which a busy machine lets wait.
    let mut asked = 0;
    while world.standin.count() == asked {
        assert!(asked < 1_000, "nobody has looked at the file");
        world.advance(SECOND * 5);
        assert_eq!(misses(&world, &format!("until-{asked}"), 1).await, [404]);
        asked += 1;
    }
    for n in 0..5 {
        world.advance(SECOND * 5);
        assert_eq!(misses(&world, &format!("before-{n}"), 4).await, [404; 4]);
    }
    let calls = world.standin.count();
    assert_eq!(calls, asked + 1 + 5 * 4);
    change_secret_of_upstream(&world, NEW_SECRET);
    assert_eq!(misses(&world, "after", 1).await, [404]);
    assert_eq!(misses(&world, "and", 1).await, [404]);
    assert_eq!(world.standin.count(), calls + 3);
}

#[tokio::test]
async fn an_answer_of_an_upstream_that_is_unwell_says_nothing_of_the_secret() {
    let world = without_quota().await;
    assert_eq!(misses(&world, "first", 1).await, [404]);
    change_file(&world, NEW_SECRET);
    // The refused token makes for a look at the file, and the repeat is signed with what is there.
    world.standin.fault_next(2, Fault::Unauthorized401);
    world.standin.fault_where("c-unwell", Fault::Status(500));
    assert_eq!(misses(&world, "refused", 1).await, [502]);
    assert_eq!(misses(&world, "unwell", 2).await, [500; 2]);
    assert_eq!(misses(&world, "then", 1).await, [404]);
    assert_eq!(misses(&world, "and", 1).await, [404]);
}

#[tokio::test]
async fn a_refused_token_without_quota_for_another_is_no_fault_of_the_credential() {
    let world = World::with(|setup| setup.without = vec!["one-bot"]).await;
    for n in 0..59 {
        assert_eq!(world.get(&conversation_path(&format!("c-{n}"))).await.status, 404);
    }
    world.standin.fault_next(1, Fault::Unauthorized401);
    let answer = world.get(&conversation_path("c-59")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.problem()),
        (503, "temporary-reduced-capacity".to_owned()),
        "{answer:?}"
    );
    assert_eq!(world.standin.count(), 60);
}

#[tokio::test]
async fn a_reload_does_not_forget_how_the_upstreams_clock_goes() {
    let world = World::new().await;
    world.standin.clock().set_ms(NOON - 7 * 3_600_000);
    assert_eq!(world.get(&conversation_path("c-1")).await.status, 404);
    world.app.reload().await.unwrap();
    let calls = world.standin.count();
    assert_eq!(world.get(&conversation_path("c-2")).await.status, 404);
    assert_eq!(world.standin.count(), calls + 1, "no repeat: the first token is right");
}

#[tokio::test]
async fn a_reload_with_the_new_secret_in_the_file_does_not_forget_the_one_the_upstream_still_takes() {
    let world = World::new().await;
    assert_eq!(world.get(&conversation_path("c-1")).await.status, 404);
    change_file(&world, NEW_SECRET);
    world.app.reload().await.unwrap();
    assert_eq!(world.get(&conversation_path("c-2")).await.status, 404, "the upstream has the old one");
    change_secret_of_upstream(&world, NEW_SECRET);
    assert_eq!(world.get(&conversation_path("c-3")).await.status, 404, "and now the new one");
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines_with(&self, words: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().filter(|line| line.contains(words)).count()
    }
}

#[tokio::test]
async fn a_missing_secret_file_is_told_of_once_and_so_is_its_return() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let world = World::new().await;
    let file = world.secrets.path().join(EXAMPLE_CLIENT_ID);
    let of_it = format!("credential=\"{EXAMPLE_CLIENT_ID}\"");
    let looks = async || {
        for _ in 0..10 {
            world.have_looked(SECOND * 5, 1).await;
            world.get(&conversation_path("c-1")).await;
        }
    };
    std::fs::remove_file(&file).unwrap();
    looks().await;
    assert_eq!((log.lines_with("cannot be used"), log.lines_with("can be used again")), (1, 0));
    change_file(&world, example_secret());
    looks().await;
    std::fs::write(&file, "\n").unwrap();
    looks().await;
    assert_eq!((log.lines_with("cannot be used"), log.lines_with("can be used again")), (2, 1));
    assert_eq!(log.lines_with(&of_it), 3);
    assert_eq!(log.lines_with(example_secret()), 0);
}
