//! Whoever brings an issuer's token is the client that its claims make them. The issuer's keys come
//! from one place, are kept through an outage, and change without anybody noticing; made-up key
//! names cost next to nothing.

use std::time::Duration;

use http::{Method, StatusCode};
use jsonwebtoken::Algorithm;
use kore_standin::{Conversation, EXAMPLE_STREAM};
use serde_json::{Value, json};

use crate::issuer::{AUDIENCE, Issuer, NOW, Signer};
use crate::world::{
    DAY, Got, MINUTE, SECOND, World, before, change_config, client, conversation_path, got, reload, until,
    window_path, with_ops_token,
};

/// A client without a key: it is known by its tokens.
fn token_client(name: &str, rule: &str) -> String {
    let block = client(name, name).toml();
    let key = block.lines().find(|line| line.starts_with("api_key_sha256")).unwrap().to_owned();
    block.replace(&key, rule)
}

struct Tokens {
    world: World,
    issuer: Issuer,
    path: String,
}

impl Tokens {
    async fn with(signers: &[&Signer], clients: impl FnOnce(&Issuer) -> String, config: &str) -> Self {
        let issuer = Issuer::publishing(signers).await;
        let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
        let path = conversation_path(&conversation.conversation_id);
        let clients = clients(&issuer);
        let world = World::with(|setup| {
            with_ops_token(setup);
            setup.config.push_str(config);
            setup.standin.conversations = vec![conversation];
            setup.clients = clients;
        })
        .await;
        Self { world, issuer, path }
    }

    async fn new(signers: &[&Signer]) -> Self {
        Self::with(signers, |issuer| token_client("desk", &issuer.rule("")), "").await
    }

    async fn ask(&self, token: &str) -> Got {
        ask(&self.world, Method::GET, &self.path, token).await
    }

    async fn status(&self, token: &str) -> u16 {
        self.ask(token).await.status.as_u16()
    }

    /// With one claim set, or taken out.
    fn claims(&self, name: &str, value: Option<Value>) -> Value {
        let mut claims = self.issuer.claims("asha");
        match value {
            Some(value) => claims[name] = value,
            None => drop(claims.as_object_mut().unwrap().remove(name)),
        }
        claims
    }

    async fn fetches_failed(&self) -> f64 {
        let url = self.issuer.url();
        let series = format!("kore_gateway_jwks_fetches_total{{issuer=\"{url}\",result=\"failure\"}}");
        self.world.metric(&series).await
    }
}

async fn ask(world: &World, method: Method, path: &str, token: &str) -> Got {
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    got(http.request(method, format!("http://{}{path}", world.address)).bearer_auth(token)).await
}

#[tokio::test]
async fn tokens_are_accepted_by_the_algorithm_of_their_key() {
    let signers = [
        Signer::new("rsa", Algorithm::RS256),
        Signer::new("pss", Algorithm::PS256),
        Signer::new("ec", Algorithm::ES256),
        Signer::new("ed", Algorithm::EdDSA),
    ];
    let all = signers.iter().collect::<Vec<_>>();
    let tokens = Tokens::new(&all).await;
    for signer in &signers {
        let token = signer.token(&tokens.issuer.claims("asha"));
        let answer = tokens.ask(&token).await;
        assert_eq!(answer.status, 200, "{}: {answer:?}", signer.kid);
        // Only as a bearer token: the other two headers are for keys.
        let request = tokens.world.request(Method::GET, &tokens.path, &token);
        assert_eq!(got(request).await.status, 401);
    }
    assert_eq!(tokens.issuer.fetches(), 1);
    assert_eq!(tokens.world.standin.count(), 1, "one stored answer");
}

#[tokio::test]
async fn what_a_good_token_may_look_like() {
    let signer = Signer::new("ed", Algorithm::EdDSA);
    let tokens = Tokens::new(&[&signer]).await;
    for (name, value) in [
        ("aud", json!([AUDIENCE, "another"])),
        ("exp", json!(1_772_452_800.5)),
        ("exp", json!(NOW - 29)),
        ("nbf", json!(NOW + 30)),
        ("iat", json!(NOW + 30)),
        ("groups", json!(5)),
        ("sub", json!("x".repeat(255))),
    ] {
        let token = signer.token(&tokens.claims(name, Some(value.clone())));
        assert_eq!(tokens.status(&token).await, 200, "{name}: {value}");
    }
    assert_eq!(tokens.status(&signer.token(&tokens.claims("nbf", None))).await, 200);
    assert_eq!(tokens.status(&signer.token(&tokens.claims("iat", None))).await, 200);
    let claims = tokens.issuer.claims("asha").to_string();
    for more in [
        json!({ "typ": "at+JWT" }),
        json!({ "jku": "https://evil.example/jwks", "x5u": "https://evil.example/cert" }),
        json!({ "x5t": "abc", "cty": "x" }),
    ] {
        let mut header = signer.header();
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(tokens.status(&signer.sign(&header.to_string(), &claims)).await, 200, "{header}");
    }
    let mut bare = signer.header();
    bare.as_object_mut().unwrap().remove("typ");
    assert_eq!(tokens.status(&signer.sign(&bare.to_string(), &claims)).await, 200);
}

#[tokio::test]
async fn a_token_is_good_until_it_expires_and_the_leeway_is_over() {
    let signer = Signer::new("ed", Algorithm::EdDSA);
    let tokens = Tokens::new(&[&signer]).await;
    let token = signer.token(&tokens.issuer.claims("asha"));
    tokens.world.advance(5 * MINUTE + 30 * SECOND - Duration::from_millis(1));
    assert_eq!(tokens.status(&token).await, 200);
    tokens.world.advance(Duration::from_millis(1));
    assert_eq!(tokens.status(&token).await, 401);
}

#[tokio::test]
async fn groups_make_the_bearers_of_one_issuer_several_clients() {
    let signer = Signer::new("ed", Algorithm::EdDSA);
    let clients = |issuer: &Issuer| {
        let only = |name: &str, route: &str, more: &str| {
            let all = r#"routes = ["conversation", "interaction_details", "conversation_details"]"#;
            token_client(name, &issuer.rule(more)).replace(all, &format!("routes = [\"{route}\"]"))
        };
        only("agents", "conversation", ", groups = [\"agents\", \"leads\"]")
            + &only(
                "analysts",
                "interaction_details",
                ", groups = [\"analysts\"], groups_claim = \"https://x/roles\"",
            )
            + &only("strict", "conversation", ", groups = [\"strict\"], require_nbf = true")
    };
    let tokens = Tokens::with(&[&signer], clients, "").await;
    let window = async |token: &str| {
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let url = format!("http://{}{}", tokens.world.address, window_path());
        got(http.post(url).bearer_auth(token).body("{}")).await.status.as_u16()
    };
    let bearer = |name: &str, groups: Value| signer.token(&tokens.claims(name, Some(groups)));
    for (token, conversation, windows) in [
        (bearer("groups", json!(["x", "leads"])), 200, 403),
        (bearer("groups", json!("agents")), 200, 403),
        (bearer("https://x/roles", json!(["analysts"])), 403, 400),
        (bearer("groups", json!(["analysts"])), 401, 401),
        (bearer("groups", json!([])), 401, 401),
        (bearer("groups", json!({ "agents": true })), 401, 401),
        (bearer("groups", json!(["agent"])), 401, 401),
        (bearer("x", json!(1)), 401, 401),
    ] {
        assert_eq!((tokens.status(&token).await, window(&token).await), (conversation, windows), "{token}");
    }
    let mut claims = tokens.claims("groups", Some(json!(["strict"])));
    assert_eq!(tokens.status(&signer.token(&claims)).await, 200);
    claims.as_object_mut().unwrap().remove("nbf");
    assert_eq!(tokens.status(&signer.token(&claims)).await, 401, "nbf is required of this client");
}

#[tokio::test]
async fn keys_change_without_a_gap_and_the_old_one_goes() {
    let (old, new) = (Signer::new("old", Algorithm::ES256), Signer::new("new", Algorithm::EdDSA));
    let tokens = Tokens::new(&[&old]).await;
    let claims = tokens.issuer.claims("asha");
    assert_eq!(tokens.status(&old.token(&claims)).await, 200);
    tokens.issuer.publish(&[&old, &new]);
    tokens.world.advance(30 * SECOND);
    assert_eq!(tokens.status(&new.token(&claims)).await, 200, "fetched because its name was unknown");
    assert_eq!(tokens.status(&old.token(&claims)).await, 200);
    assert_eq!(tokens.issuer.fetches(), 2);

    tokens.issuer.publish(&[&new]);
    // The background's turn; nobody asks.
    tokens.world.advance(10 * MINUTE);
    until("a third fetch", || tokens.issuer.fetches() == 3).await;
    let claims = {
        let mut later = claims;
        later["exp"] = json!(NOW + 3600);
        later
    };
    assert_eq!(tokens.status(&new.token(&claims)).await, 200);
    assert_eq!(tokens.status(&old.token(&claims)).await, 401);
}

#[tokio::test]
async fn made_up_key_names_cost_one_fetch_in_thirty_seconds() {
    let signer = Signer::new("ed", Algorithm::EdDSA);
    let tokens = Tokens::new(&[&signer]).await;
    let good = signer.token(&tokens.issuer.claims("asha"));
    assert_eq!(tokens.status(&good).await, 200);
    let made_up = async |n: usize| {
        let mut header = signer.header();
        header["kid"] = format!("made-up-{n}").into();
        let token = signer.sign(&header.to_string(), &tokens.issuer.claims("asha").to_string());
        tokens.status(&token).await
    };
    for n in 0..50 {
        assert_eq!(made_up(n).await, 401);
    }
    assert_eq!(tokens.issuer.fetches(), 1, "the keys had just been fetched");
    tokens.world.advance(30 * SECOND);
    let at_once = futures_util::future::join_all((100..150).map(made_up)).await;
    // Those for whom there is no place to wait are sent away.
    assert!(at_once.iter().all(|status| matches!(status, 401 | 503)), "{at_once:?}");
    assert_eq!(tokens.issuer.fetches(), 2);
    assert_eq!(tokens.status(&good).await, 200, "who has a good token does not notice");
}

#[tokio::test]
async fn the_last_good_keys_stay_through_an_outage() {
    let signer = Signer::new("ed", Algorithm::EdDSA);
    let tokens = Tokens::with(
        &[&signer],
        |issuer| token_client("desk", &issuer.rule("")),
        "oidc.max_size = \"4KiB\"\noidc.max_keys = 3\n",
    )
    .await;
    let mut claims = tokens.issuer.claims("asha");
    claims["exp"] = json!(NOW + 7200);
    let token = signer.token(&claims);
    assert_eq!(tokens.status(&token).await, 200);
    let many = (0..4).map(|n| Signer::new(&n.to_string(), Algorithm::EdDSA).jwk()).collect::<Vec<_>>();
    let mut failures = 0.0;
    for (status, body) in [
        (StatusCode::SERVICE_UNAVAILABLE, "{}".to_owned()),
        (StatusCode::FOUND, String::new()),
        (StatusCode::OK, "<html>".to_owned()),
        (StatusCode::OK, json!({ "keys": [] }).to_string()),
        (StatusCode::OK, json!({ "keys": many }).to_string()),
        (StatusCode::OK, json!({ "keys": [signer.jwk()], "x": "x".repeat(4096) }).to_string()),
        // Nothing to sign with, or not to be told apart.
        (
            StatusCode::OK,
            json!({ "keys": [{ "kty": "oct", "kid": "ed", "k": "c2VjcmV0", "alg": "HS256" }] }).to_string(),
        ),
        (
            StatusCode::OK,
            json!({ "keys": [signer.jwk(), Signer::new("ed", Algorithm::ES256).jwk()] }).to_string(),
        ),
    ] {
        tokens.issuer.answer(status, body.clone());
        let fetches = tokens.issuer.fetches();
        tokens.world.advance(10 * MINUTE);
        until("another fetch", || tokens.issuer.fetches() > fetches).await;
        failures += 1.0;
        while tokens.fetches_failed().await < failures {}
        assert_eq!(tokens.status(&token).await, 200, "{status} {body}");
    }
    tokens.issuer.publish(&[&Signer::new("next", Algorithm::EdDSA)]);
    let fetches = tokens.issuer.fetches();
    tokens.world.advance(30 * SECOND);
    until("another fetch", || tokens.issuer.fetches() > fetches).await;
    let is_replaced = async || tokens.status(&token).await == 401;
    while !is_replaced().await {}
}

#[tokio::test]
async fn where_the_keys_were_never_seen_it_is_a_503_and_waiting_as_told_works() {
    let signer = Signer::new("ed", Algorithm::EdDSA);
    let tokens = Tokens::new(&[&signer]).await;
    tokens.issuer.answer(StatusCode::INTERNAL_SERVER_ERROR, "");
    // Another issuer that the reload brings, so that its first fetch meets the outage.
    let other = Issuer::publishing(&[&signer]).await;
    other.answer(StatusCode::INTERNAL_SERVER_ERROR, "");
    let block = token_client("other", &other.rule(""));
    change_config(&tokens.world, |written| written + &block);
    assert_eq!(reload(&tokens.world).await.status, 200);
    let token = signer.token(&other.claims("asha"));
    let away = tokens.ask(&token).await;
    assert_eq!((away.status.as_u16(), away.problem()), (503, "identity-unavailable".to_owned()));
    other.publish(&[&signer]);
    let wait: u64 = away.header("retry-after").parse().unwrap();
    tokens.world.advance(Duration::from_secs(wait));
    assert_eq!(tokens.status(&token).await, 200);
}

#[tokio::test]
async fn a_reload_keeps_the_keys_and_takes_the_clients() {
    let signer = Signer::new("ed", Algorithm::EdDSA);
    let tokens = Tokens::new(&[&signer]).await;
    let token = signer.token(&tokens.issuer.claims("asha"));
    assert_eq!(tokens.status(&token).await, 200);
    assert_eq!(reload(&tokens.world).await.status, 200);
    assert_eq!(tokens.status(&token).await, 200);
    assert_eq!(tokens.issuer.fetches(), 1);
    let rule = tokens.issuer.rule("");
    let narrower = tokens.issuer.rule(", groups = [\"others\"]");
    change_config(&tokens.world, |written| written.replace(&rule, &narrower));
    assert_eq!(reload(&tokens.world).await.status, 200);
    assert_eq!(tokens.status(&token).await, 401, "also for a hit");
}

/// A key as it is published, with one member changed or taken out.
fn published(signer: &Signer, name: &str, value: Option<Value>) -> Value {
    let mut jwk = signer.jwk();
    match value {
        Some(value) => jwk[name] = value,
        None => drop(jwk.as_object_mut().unwrap().remove(name)),
    }
    jwk
}

fn without_kid(signer: &Signer, claims: &Value) -> String {
    let mut header = signer.header();
    header.as_object_mut().unwrap().remove("kid");
    signer.sign(&header.to_string(), &claims.to_string())
}

#[tokio::test]
async fn a_token_need_not_name_its_key_if_its_issuer_has_one_only() {
    let (one, next) = (Signer::new("one", Algorithm::ES256), Signer::new("next", Algorithm::ES256));
    let tokens = Tokens::new(&[&one]).await;
    let claims = tokens.claims("exp", Some(json!(NOW + 86_400)));
    let token = without_kid(&one, &claims);
    assert_eq!(tokens.status(&token).await, 200);
    assert_eq!(tokens.issuer.fetches(), 1);
    // What is no name, and what is signed with another key, prove nothing.
    for kid in [json!(null), json!(5), json!([]), json!("")] {
        let mut header = one.header();
        header["kid"] = kid;
        assert_eq!(tokens.status(&one.sign(&header.to_string(), &claims.to_string())).await, 401, "{header}");
    }
    assert_eq!(tokens.status(&without_kid(&next, &claims)).await, 401);
    assert_eq!(tokens.issuer.fetches(), 1);

    // The one key is replaced, with a name or without, and one for encryption does not count.
    let encryption = published(&Signer::new("enc", Algorithm::RS256), "use", Some(json!("enc")));
    let set = json!({ "keys": [published(&next, "kid", None), encryption] });
    tokens.issuer.answer(StatusCode::OK, set.to_string());
    tokens.world.advance(30 * SECOND);
    assert_eq!(
        tokens.status(&without_kid(&next, &claims)).await,
        200,
        "fetched because the signature did not fit"
    );
    assert_eq!(tokens.status(&token).await, 401);
    assert_eq!(tokens.status(&next.token(&claims)).await, 401, "a key without a name has none");
    assert_eq!(tokens.issuer.fetches(), 2);

    // Of two it has to be named.
    tokens.issuer.publish(&[&one, &next]);
    tokens.world.advance(30 * SECOND);
    assert_eq!(tokens.status(&next.token(&claims)).await, 200);
    assert_eq!(tokens.status(&token).await, 401);
    assert_eq!(tokens.status(&without_kid(&next, &claims)).await, 401);
}

#[tokio::test]
async fn a_key_that_is_doubled_or_broken_costs_at_most_itself() {
    let (ed, ec) = (Signer::new("ed", Algorithm::EdDSA), Signer::new("ec", Algorithm::ES256));
    let twin = Signer::new("twin", Algorithm::EdDSA);
    let tokens = Tokens::new(&[&ed]).await;
    let claims = tokens.claims("exp", Some(json!(NOW + 86_400)));
    assert_eq!(tokens.status(&ed.token(&claims)).await, 200);
    let mut alone = vec![ed.jwk(), ed.jwk()];
    let more = [
        published(&ed, "alg", None),
        published(&ed, "x", Some(json!("not base64!"))),
        ec.jwk(),
        published(&ec, "x", Some(json!(5))),
        twin.jwk(),
        published(&Signer::new("twin", Algorithm::EdDSA), "use", Some(json!("sig"))),
        json!({ "kty": "oct", "kid": "oct", "k": "c2VjcmV0" }),
        json!({ "kty": "OKP", "crv": "X448", "kid": "x448", "x": "AA" }),
        json!("no key"),
        json!({}),
        json!(null),
    ];
    for (times, with) in [(0, &[][..]), (1, &more[..])] {
        alone.extend(with.iter().cloned());
        tokens.issuer.answer(StatusCode::OK, json!({ "keys": alone }).to_string());
        tokens.world.advance(10 * MINUTE);
        until("another fetch", || tokens.issuer.fetches() == times + 2).await;
        let fetched = async || {
            let url = tokens.issuer.url();
            tokens
                .world
                .metric(&format!("kore_gateway_jwks_fetches_total{{issuer=\"{url}\",result=\"success\"}}"))
                .await
        };
        let expected = f64::from(u32::try_from(times).unwrap() + 2);
        while fetched().await + tokens.fetches_failed().await < expected {}
        assert_eq!(tokens.status(&ed.token(&claims)).await, 200, "{alone:?}");
    }
    assert_eq!(tokens.fetches_failed().await, 0.0);
    assert_eq!(tokens.status(&ec.token(&claims)).await, 200);
    assert_eq!(tokens.status(&twin.token(&claims)).await, 401, "two keys have its name");
}

#[tokio::test]
async fn a_token_may_be_as_long_as_a_head() {
    let signer = Signer::new("ed", Algorithm::EdDSA);
    let tokens = Tokens::new(&[&signer]).await;
    let groups: Vec<String> = (0..500).map(|n| format!("cn=group-{n:04}")).collect();
    let token = signer.token(&tokens.claims("groups", Some(json!(groups))));
    assert!((10_500..12_000).contains(&token.len()), "{}", token.len());
    assert_eq!(tokens.status(&token).await, 200);
    let token = signer.token(&tokens.claims("padding", Some(json!("x".repeat(11_500)))));
    assert!(token.len() > 15_500, "{}", token.len());
    assert_eq!(tokens.status(&token).await, 200);
    let longer = signer.token(&tokens.claims("padding", Some(json!("x".repeat(13_000)))));
    let refused = tokens.ask(&longer).await;
    assert_eq!((refused.status.as_u16(), refused.problem()), (431, "head-too-large".to_owned()));
}

#[tokio::test]
async fn the_log_says_what_is_wrong_with_a_token_and_its_bearer_is_not_told() {
    let signer = Signer::new("ed", Algorithm::EdDSA);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.jsonl");
    let log = format!("log = {{ access = true, access_to = {file:?} }}\n");
    let rule = |issuer: &Issuer| token_client("desk", &issuer.rule(", groups = [\"agents\"]"));
    let tokens = Tokens::with(&[&signer], rule, &log).await;
    let mut claims = tokens.claims("groups", Some(json!(["agents"])));
    let mut expected = Vec::new();
    let mut answers = std::collections::HashSet::new();
    for (name, value, reason) in [
        ("exp", json!(NOW - 60), "expired"),
        ("aud", json!("another"), "audience"),
        ("nbf", json!(NOW + 60), "not-yet"),
        ("sub", json!("x".repeat(256)), "subject"),
        ("groups", json!(["others"]), "groups"),
        ("iss", json!("https://nobody.example"), "issuer"),
    ] {
        let good = claims[name].take();
        claims[name] = value;
        let answer = tokens.ask(&signer.token(&claims)).await;
        claims[name] = good;
        answers.insert((answer.status, answer.json()["detail"].to_string()));
        expected.push(format!("token-{reason}"));
    }
    let token = signer.token(&claims);
    let mut header = signer.header();
    header["kid"] = "unknown".into();
    for (token, reason) in [
        (format!("{}AAAA", &token[..token.len() - 4]), "signature"),
        (signer.sign(&header.to_string(), &claims.to_string()), "unknown-key"),
        ("a.b.c".to_owned(), "malformed"),
    ] {
        let answer = tokens.ask(&token).await;
        answers.insert((answer.status, answer.json()["detail"].to_string()));
        expected.push(format!("token-{reason}"));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(tokens.world.app.snapshot().access_log.flush(MINUTE));
    let lines = std::fs::read_to_string(&file).unwrap();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let causes: Vec<_> = lines.filter_map(|line| Some(line["cause"].as_str()?.to_owned())).collect();
    assert_eq!(causes.len(), expected.len());
    for (cause, expected) in causes.iter().zip(&expected) {
        assert_eq!(cause, expected);
    }
}
