//! Rolling windows per account and per bot, and the ways to be refused: contract §1, §7.

use std::time::Duration;

use kore_standin::{Account, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Options, Pool, QuotaRefusal};
use serde_json::json;

use super::{World, error, options};

#[tokio::test]
async fn both_contact_centre_routes_share_a_rolling_minute_of_the_account() {
    let world = World::with(vec![]).await;
    let body = json!({"startDate": "2025-10-09", "endDate": "2025-10-09", "timeZoneOffset": 0});
    world.conversation("c-1").await;
    world.standin.clock().advance(Duration::from_secs(20));
    for _ in 0..59 {
        assert_eq!(world.details("", &body).await.status, 200);
    }
    assert!(world.standin.violations().is_empty());
    let refused = world.conversation("c-1").await;
    let words = "You've exceeded the per-minute rate limit. \
                 Please wait for sometime before retrying.";
    assert_eq!((refused.status, refused.body), (429, error(words, 429)));
    // The first call leaves in 40 s, but the refused one took its place.
    assert_eq!(refused.retry_after.as_deref(), Some("60"));
    let expected = format!("quota: call 61 within 60 s of account {EXAMPLE_ACCOUNT}");
    assert!(world.standin.violations()[0].starts_with(&expected));
    assert_eq!(world.transcript(json!({"callId": "1"})).await.status, 200);
    world.standin.clock().advance(Duration::from_millis(59_999));
    assert_eq!(world.conversation("c-1").await.status, 429);
    world.standin.clock().advance(Duration::from_millis(1));
    assert_eq!(world.conversation("c-1").await.status, 404);
}

#[tokio::test]
async fn a_bot_has_a_minute_and_an_hour_of_its_own() {
    let mut account = Account::example();
    account.bot_calls_per_minute = 2;
    account.bot_calls_per_hour = 3;
    let world = World::new(Options { accounts: vec![account], ..options() }).await;
    let ask = async || world.transcript(json!({"callId": "1"})).await;
    let minute = Duration::from_secs(60);
    assert_eq!([ask().await.status, ask().await.status], [200, 200]);
    world.standin.clock().advance(minute);
    assert_eq!(ask().await.status, 200);
    world.standin.clock().advance(minute);
    let refused = ask().await;
    let words = "You've exceeded the hourly rate limit. Please wait for sometime before retrying.";
    assert_eq!(refused.body, error(words, 429));
    assert_eq!(refused.retry_after.as_deref(), Some("3480"));
    world.standin.clock().advance(58 * minute);
    assert_eq!(ask().await.status, 200);
    let pool = Some(Pool::Bot(EXAMPLE_STREAM.into()));
    assert!(world.standin.calls().iter().all(|call| call.pool == pool));
}

#[tokio::test]
async fn a_full_quota_is_refused_in_three_ways_or_not_at_all() {
    let mut account = Account::example();
    account.calls_per_minute = 1;
    let world = World::new(Options { accounts: vec![account], ..options() }).await;
    world.conversation("c-1").await;
    for (how, status, retry_after) in [
        (QuotaRefusal::TooManyWithRetryAfter, 429, true),
        (QuotaRefusal::TooMany, 429, false),
        (QuotaRefusal::ErrorUnder200, 200, false),
    ] {
        world.standin.set(|switches| switches.quota_refusal = how);
        let answer = world.conversation("c-1").await;
        assert_eq!((answer.status, answer.retry_after.is_some()), (status, retry_after));
        assert_eq!(answer.body["errors"][0]["code"], 429);
    }
    world.standin.set(|switches| switches.enforce_quota = false);
    world.standin.forget();
    assert_eq!(world.conversation("c-1").await.status, 404);
    assert!(world.standin.violations().is_empty());
    world.standin.set(|switches| switches.enforce_quota = true);
    world.standin.reset_quota();
    assert_eq!(world.conversation("c-1").await.status, 404);
}
