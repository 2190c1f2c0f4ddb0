//! How an issuer's keys are fetched: over https from who is vouched for, never from anybody else; by
//! the gateway's own turns, which no caller can put off or break off.

use std::time::Duration;

use http::{Method, StatusCode};
use jsonwebtoken::Algorithm;
use kore_standin::{Conversation, EXAMPLE_STREAM};
use serde_json::{Value, json};

use crate::issuer::{Issuer, NOW, Signer};
use crate::tls::{Front, Trust};
use crate::world::{
    DAY, MINUTE, SECOND, World, before, change_config, client, conversation_path, got, reload, until,
    with_ops_token,
};

/// A world with one client, known by tokens of an issuer.
struct Fetching {
    world: World,
    issuer: Issuer,
    path: String,
    /// Where the gateway finds whom to trust.
    ca: std::path::PathBuf,
}

impl Fetching {
    /// Keys are fetched by way of `front`, or straight from the issuer.
    async fn by_way_of(front: Option<&Front>, issuer: Issuer, trusted: String) -> Self {
        let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
        let path = conversation_path(&conversation.conversation_id);
        let mut ca = std::path::PathBuf::new();
        let world = World::with(|setup| {
            with_ops_token(setup);
            ca = setup.secrets.path().join("issuers.pem");
            if let Some(front) = front {
                std::fs::write(&ca, trusted).unwrap();
                setup.config.push_str(&format!("oidc.ca_file = \"{}\"\n", ca.display()));
                setup.clients = without_key(&issuer.rule_at(&front.url(), ""));
            } else {
                setup.clients = without_key(&issuer.rule(""));
            }
            setup.config.push_str("oidc.max_size = \"4KiB\"\n");
            setup.standin.conversations = vec![conversation];
        })
        .await;
        Self { world, issuer, path, ca }
    }

    fn request(&self, signer: &Signer) -> reqwest::RequestBuilder {
        let mut claims = self.issuer.claims("asha");
        claims["exp"] = json!(NOW + 86_400);
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let url = format!("http://{}{}", self.world.address, self.path);
        http.request(Method::GET, url).bearer_auth(signer.token(&claims))
    }

    async fn status(&self, signer: &Signer) -> u16 {
        got(self.request(signer)).await.status.as_u16()
    }

    async fn fetches(&self, result: &str) -> f64 {
        let url = self.issuer.url();
        self.world
            .metric(&format!("kore_gateway_jwks_fetches_total{{issuer=\"{url}\",result=\"{result}\"}}"))
            .await
    }

    /// Lets time go by, until there have been so many fetches; says how long it took.
    async fn time_until_fetched(&self, times: usize) -> Duration {
        let mut gone = Duration::ZERO;
        while self.issuer.fetches() < times && gone < 20 * MINUTE {
            self.world.advance(SECOND);
            gone += SECOND;
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        gone
    }
}

fn without_key(rule: &str) -> String {
    let block = client("desk", "").toml();
    let key = block.lines().find(|line| line.starts_with("api_key_sha256")).unwrap().to_owned();
    block.replace(&key, rule)
}

#[tokio::test]
async fn keys_come_over_https_change_without_a_gap_and_stay_through_an_outage() {
    let (old, new) = (Signer::new("old", Algorithm::ES256), Signer::new("new", Algorithm::EdDSA));
    let issuer = Issuer::publishing(&[&old]).await;
    let front = Front::before(issuer.address()).await;
    let trusted = front.certificate(Trust::Upstream);
    let fetching = Fetching::by_way_of(Some(&front), issuer, trusted).await;
    assert_eq!(fetching.status(&old).await, 200);
    assert_eq!((fetching.issuer.fetches(), fetching.fetches("success").await), (1, 1.0));

    fetching.issuer.publish(&[&old, &new]);
    fetching.world.advance(30 * SECOND);
    assert_eq!((fetching.status(&new).await, fetching.status(&old).await), (200, 200));
    assert_eq!(fetching.issuer.fetches(), 2);

    let padded = json!({ "keys": [old.jwk()], "x": "x".repeat(4096) }).to_string();
    let mut failed = 0.0;
    for (status, body) in [(StatusCode::BAD_GATEWAY, String::new()), (StatusCode::OK, padded)] {
        fetching.issuer.answer(status, body);
        let fetches = fetching.issuer.fetches();
        fetching.world.advance(10 * MINUTE);
        until("another fetch", || fetching.issuer.fetches() > fetches).await;
        failed += 1.0;
        while fetching.fetches("failure").await < failed {}
        assert_eq!((fetching.status(&new).await, fetching.status(&old).await), (200, 200), "{status}");
    }
    // The place itself is gone.
    drop(front);
    fetching.world.advance(30 * SECOND);
    while fetching.fetches("failure").await < failed + 1.0 {}
    assert_eq!((fetching.status(&new).await, fetching.status(&old).await), (200, 200));
}

#[tokio::test]
async fn who_is_not_vouched_for_gives_no_keys_until_he_is() {
    let signer = Signer::new("ed", Algorithm::EdDSA);
    for name in ["127.0.0.1", "login.example.com"] {
        let issuer = Issuer::publishing(&[&signer]).await;
        let front = Front::named(name, issuer.address()).await;
        // Somebody else's certificate is trusted, or this one, but it is made out to another name.
        let trust = if name == "127.0.0.1" { Trust::SomebodyElse } else { Trust::Upstream };
        let fetching = Fetching::by_way_of(Some(&front), issuer, front.certificate(trust)).await;
        let refused = got(fetching.request(&signer)).await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (503, "identity-unavailable".to_owned()));
        assert_eq!(refused.header("retry-after"), "30");
        assert_eq!(fetching.issuer.fetches(), 0, "nothing was asked of whoever it is");
        assert_eq!(fetching.fetches("failure").await, 1.0);
        if name == "127.0.0.1" {
            std::fs::write(&fetching.ca, front.certificate(Trust::Upstream)).unwrap();
            assert_eq!(reload(&fetching.world).await.status, 200);
            assert_eq!(fetching.status(&signer).await, 200);
        }
    }
}

/// A new key's first user hangs up while it is fetched: the next one gets in all the same.
#[tokio::test]
async fn a_caller_who_hangs_up_does_not_take_the_fetch_with_him() {
    let (old, new) = (Signer::new("old", Algorithm::EdDSA), Signer::new("new", Algorithm::EdDSA));
    let issuer = Issuer::publishing(&[&old]).await;
    let fetching = Fetching::by_way_of(None, issuer, String::new()).await;
    assert_eq!(fetching.status(&old).await, 200);
    fetching.issuer.publish(&[&old, &new]);
    fetching.world.advance(30 * SECOND);
    fetching.issuer.hold(true);
    let impatient = tokio::spawn(got(fetching.request(&new)));
    until("a second fetch", || fetching.issuer.fetches() == 2).await;
    impatient.abort();
    assert!(impatient.await.unwrap_err().is_cancelled());
    fetching.issuer.hold(false);
    assert_eq!(fetching.status(&new).await, 200);
    assert_eq!(fetching.issuer.fetches(), 2);
}

/// Anybody can have the keys fetched with a made-up name, also just before the background's turn.
#[tokio::test]
async fn a_fetch_that_a_caller_made_and_that_failed_does_not_put_off_the_next() {
    let (old, next) = (Signer::new("old", Algorithm::EdDSA), Signer::new("next", Algorithm::EdDSA));
    let issuer = Issuer::publishing(&[&old]).await;
    let fetching = Fetching::by_way_of(None, issuer, String::new()).await;
    assert_eq!(fetching.status(&old).await, 200);
    fetching.issuer.answer(StatusCode::INTERNAL_SERVER_ERROR, "");
    fetching.world.advance(10 * MINUTE - 10 * SECOND);
    assert_eq!(fetching.status(&next).await, 401);
    assert_eq!(fetching.issuer.fetches(), 2);
    fetching.issuer.publish(&[&next]);
    let gone = fetching.time_until_fetched(3).await;
    assert!(gone <= 45 * SECOND, "{gone:?}");
    // The old key was taken back: from the fetch on it opens nothing.
    while fetching.fetches("success").await < 2.0 {}
    assert_eq!((fetching.status(&next).await, fetching.status(&old).await), (200, 401));
}

/// The knobs of fetching change in the middle of an outage.
#[tokio::test]
async fn a_reload_that_fetches_otherwise_keeps_the_last_good_keys() {
    let signer = Signer::new("ed", Algorithm::EdDSA);
    let issuer = Issuer::publishing(&[&signer]).await;
    let fetching = Fetching::by_way_of(None, issuer, String::new()).await;
    assert_eq!(fetching.status(&signer).await, 200);
    fetching.issuer.answer(StatusCode::INTERNAL_SERVER_ERROR, Value::Null.to_string());
    change_config(&fetching.world, |written| format!("oidc.timeout = \"4s\"\n{written}"));
    assert_eq!(reload(&fetching.world).await.status, 200);
    while fetching.fetches("failure").await < 1.0 {}
    assert_eq!(fetching.status(&signer).await, 200);
}
