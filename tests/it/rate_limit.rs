//! Each client has a limit of its own, is told where it stands on every answer, and is served again
//! after waiting as long as it was told to (draft-ietf-httpapi-ratelimit-headers-11).

use std::time::Duration;

use http::Method;
use kore_standin::{Conversation, EXAMPLE_STREAM};

use crate::issuer::{Issuer, Signer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::world::{
    DAY, REPORTING, World, before, client, conversation_path, from_address, got, window_path,
};

const KEY: &str = "kg_slow";

async fn world() -> (World, String) {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation];
        setup.clients = client("slow", KEY).rate_limit("3/min").toml();
    })
    .await;
    (world, path)
}

#[tokio::test]
async fn every_answer_tells_where_the_client_stands() {
    let (world, path) = world().await;
    let first = got(world.request(Method::GET, &path, KEY)).await;
    assert_eq!(first.header("ratelimit-policy"), r#""client";q=3;w=60, "upstream";q=60;w=60"#);
    assert_eq!(first.header("ratelimit"), r#""client";r=2;t=20, "upstream";r=59;t=60"#);
    let invalid = got(world.post_request(&window_path(), "{}", KEY)).await;
    assert_eq!(invalid.status, 400);
    assert_eq!(invalid.header("ratelimit"), r#""client";r=1;t=40, "upstream";r=59;t=60"#);
    let unknown = got(world.request(Method::GET, &conversation_path("c-2"), KEY)).await;
    assert_eq!(unknown.header("ratelimit"), r#""client";r=0;t=20, "upstream";r=58;t=60"#);
}

#[tokio::test]
async fn over_the_limit_is_429_and_waiting_as_told_works() {
    let (world, path) = world().await;
    for _ in 0..3 {
        assert_eq!(got(world.request(Method::GET, &path, KEY)).await.status, 200);
    }
    let over = got(world.request(Method::GET, &path, KEY)).await;
    assert_eq!((over.status.as_u16(), over.problem()), (429, "quota-exceeded".to_owned()));
    assert_eq!(over.json()["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(over.json()["violated-policies"][0], "client");
    assert_eq!(over.header("ratelimit"), r#""client";r=0;t=20"#);
    assert_eq!(over.header("retry-after"), "20");
    assert_eq!(world.metric(r#"kore_gateway_rate_limited_total{client="slow"}"#).await, 1.0);

    assert_eq!(got(world.request(Method::GET, &path, REPORTING)).await.status, 200, "another client's limit");
    let wait = over.header("retry-after").parse().unwrap();
    world.advance(Duration::from_secs(wait));
    assert_eq!(got(world.request(Method::GET, &path, KEY)).await.status, 200);
    assert_eq!(world.standin.count(), 1);
}

async fn strangers_world() -> (World, String) {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation];
        setup.config = "limits.unauthenticated = \"3/min\"\nlimits.tracked_callers = 100\n".to_owned();
    })
    .await;
    (world, path)
}

#[tokio::test]
async fn who_has_no_valid_credential_is_counted_by_address_and_who_has_one_is_not() {
    let (world, path) = strangers_world().await;
    let url = format!("http://{}{path}", world.address);
    let guesser = from_address([127, 0, 0, 2]);
    let guess = async |key: &str| got(guesser.get(&url).header("x-api-key", key)).await;
    for (n, limit_status) in
        [r#""address";r=2;t=20"#, r#""address";r=1;t=40"#, r#""address";r=0;t=20"#].into_iter().enumerate()
    {
        let answer = guess(&format!("kg_guess-{n}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("ratelimit")), (401, limit_status));
        assert_eq!(answer.header("ratelimit-policy"), r#""address";q=3;w=60"#);
    }
    let over = guess("kg_guess-4").await;
    assert_eq!((over.status.as_u16(), over.problem()), (429, "quota-exceeded".to_owned()));
    assert_eq!(over.json()["violated-policies"][0], "address");
    assert_eq!(over.header("retry-after"), "20");
    assert_eq!(world.metric("kore_gateway_addresses_rate_limited_total").await, 1.0);

    assert_eq!(guess(REPORTING).await.status, 200, "behind the same address, but with a key");
    let elsewhere = from_address([127, 0, 0, 3]);
    assert_eq!(got(elsewhere.get(&url)).await.status, 401);
    world.advance(Duration::from_secs(over.header("retry-after").parse().unwrap()));
    assert_eq!(guess("kg_guess-5").await.status, 401, "waiting as told works");
    assert_eq!(guess("kg_guess-6").await.status, 429);
}

/// What is refused before anybody asks whose it is costs a line of the log too.
#[tokio::test]
async fn what_the_guard_the_docs_and_preflights_refuse_is_counted_by_address() {
    const PAGE: &str = "https://page.example";
    let world = World::with(|setup| {
        setup.config = "limits.unauthenticated = \"3/min\"\n".to_owned();
        setup.clients = client("page", "kg_page").rate_limit("1000/min").toml();
        setup.clients.push_str(&format!("origins = [\"{PAGE}\"]\n"));
    })
    .await;
    let path = window_path();
    let long = "a".repeat(9 * 1024);
    let preflight = |origin: &str| {
        format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: gw\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n"
        )
    };
    let refused = [
        (format!("GET {path} HTTP/1.1\r\n"), "400"),
        (format!("POST {path} HTTP/1.1\r\nHost: gw\r\nContent-Length: 99999999\r\n"), "413"),
        (format!("GET /{long} HTTP/1.1\r\nHost: gw\r\n"), "414"),
        (format!("GET / HTTP/1.1\r\nHost: gw\r\nX: {long}\r\nY: {long}\r\n"), "431"),
        ("POST /docs HTTP/1.1\r\nHost: gw\r\n".to_owned(), "405"),
        ("GET /openapi.json HTTP/1.1\r\nHost: gw\r\nAccept: image/png\r\n".to_owned(), "406"),
        (preflight("https://other.example"), "403"),
    ];
    for (host, (request, status)) in (10..).zip(refused) {
        let asked = format!("{request}Connection: close\r\n\r\n");
        for expected in [status, status, status, "429"] {
            let answer = raw(&world, [127, 0, 0, host], &asked).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{asked:.200}: {answer:.200}");
        }
    }
    // A browser sends no credential with what it asks first, and many pages may be behind one address.
    let granted = format!("{}Connection: close\r\n\r\n", preflight(PAGE));
    let with_key =
        format!("POST /docs HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {REPORTING}\r\nConnection: close\r\n\r\n");
    let page = "GET /docs HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n";
    for (asked, status) in [(granted.as_str(), "204"), (&with_key, "405"), (page, "200")] {
        for _ in 0..10 {
            let answer = raw(&world, [127, 0, 0, 9], asked).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:.200}");
        }
    }
}

/// All that comes back to an address of loopback until the gateway closes.
async fn raw(world: &World, address: [u8; 4], sent: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((std::net::IpAddr::from(address), 0).into()).unwrap();
    let mut stream = socket.connect(world.address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// More addresses than are counted, each with a key of its own, through real sockets.
#[tokio::test]
async fn a_flood_of_addresses_leaves_an_honest_caller_unaffected() {
    let (world, path) = strangers_world().await;
    let url = format!("http://{}{path}", world.address);
    for n in 0..500_u16 {
        let [high, low] = n.to_be_bytes();
        let stranger = from_address([127, 1, high, low]);
        let answer = got(stranger.get(&url).header("x-api-key", format!("kg_random-{n}"))).await;
        assert_eq!(answer.status, 401);
    }
    assert!(world.app.unauthenticated.callers() <= 100);
    for _ in 0..100 {
        assert_eq!(got(world.request(Method::GET, &path, REPORTING)).await.status, 200);
    }
}

#[tokio::test]
async fn each_bearer_of_a_token_has_a_limit_within_the_clients() {
    let signer = Signer::new("ed", jsonwebtoken::Algorithm::EdDSA);
    let issuer = Issuer::publishing(&[&signer]).await;
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation];
        setup.clients = client("desk", KEY).rate_limit("6/min").toml();
        setup.clients.push_str(&issuer.rule(""));
        setup.clients.push_str("subject_rate_limit = \"2/min\"\n");
    })
    .await;
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let ask = async |sub: &str| {
        let token = signer.token(&issuer.claims(sub));
        got(http.get(format!("http://{}{path}", world.address)).bearer_auth(token)).await
    };
    let first = ask("asha").await;
    assert_eq!(
        first.header("ratelimit-policy"),
        r#""client";q=6;w=60, "subject";q=2;w=60, "upstream";q=60;w=60"#
    );
    assert_eq!(first.own_limits(), r#""client";r=5;t=10, "subject";r=1;t=30"#);
    assert_eq!(ask("asha").await.status, 200);
    for _ in 0..10 {
        let over = ask("asha").await;
        assert_eq!((over.status.as_u16(), over.header("retry-after")), (429, "30"));
        assert_eq!(over.json()["violated-policies"][0], "subject");
        assert_eq!(over.own_limits(), r#""subject";r=0;t=30"#);
    }
    assert_eq!(ask("mina").await.own_limits(), r#""client";r=3;t=30, "subject";r=1;t=30"#);
    let by_key = got(world.request(Method::GET, &path, KEY)).await;
    assert_eq!(by_key.own_limits(), r#""client";r=2;t=40"#, "a key is nobody in particular");
    assert_eq!(world.metric("kore_gateway_subjects_rate_limited_total").await, 10.0);
    world.advance(Duration::from_secs(30));
    assert_eq!(ask("asha").await.status, 200, "waiting as told works");
}

/// Where both limits are used up, the one that lasts longer is told: after the shorter one, the bearer
/// would only be sent away by the other.
#[tokio::test]
async fn a_bearer_without_room_of_its_own_waits_for_both_limits() {
    let signer = Signer::new("ed", jsonwebtoken::Algorithm::EdDSA);
    let issuer = Issuer::publishing(&[&signer]).await;
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation];
        setup.clients = client("desk", KEY).rate_limit("6/min").toml();
        setup.clients.push_str(&issuer.rule(""));
        setup.clients.push_str("subject_rate_limit = \"2/min\"\n");
    })
    .await;
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let ask = async || {
        let token = signer.token(&issuer.claims("asha"));
        got(http.get(format!("http://{}{path}", world.address)).bearer_auth(token)).await
    };
    assert_eq!(ask().await.status, 200);
    for _ in 0..5 {
        assert_eq!(got(world.request(Method::GET, &path, KEY)).await.status, 200);
    }
    // The client's limit says no; it has cost the bearer the last of its own.
    let over = ask().await;
    assert_eq!((over.status.as_u16(), over.own_limits()), (429, r#""client";r=0;t=10, "subject";r=0;t=30"#));
    assert_eq!(over.header("retry-after"), "30");
    world.advance(Duration::from_secs(over.header("retry-after").parse().unwrap()));
    assert_eq!(ask().await.status, 200, "waiting as told works");
}

/// A request that leads nowhere costs a line of the log too.
#[tokio::test]
async fn who_asks_for_nothing_without_a_credential_is_counted_and_who_has_a_key_is_not() {
    let (world, path) = strangers_world().await;
    let url = |path: &str| format!("http://{}{path}", world.address);
    let stranger = from_address([127, 0, 0, 4]);
    for (n, (method, target, status)) in
        [(Method::GET, "/nowhere", 404), (Method::PATCH, &*path, 405), (Method::GET, &*path, 401)]
            .into_iter()
            .enumerate()
    {
        let answer = got(stranger.request(method, url(target))).await;
        assert_eq!(answer.status.as_u16(), status);
        assert!(answer.header("ratelimit").starts_with(&format!(r#""address";r={}"#, 2 - n)), "{answer:?}");
        assert_eq!(answer.header("allow").is_empty(), status != 405);
    }
    let token = "eyJhbGciOiJFZERTQSJ9.e30.AA";
    for request in [
        stranger.get(url("/nowhere")),
        stranger.patch(url(&path)),
        stranger.get(url("/nowhere")).header("x-api-key", "kg_guess"),
        stranger.get(url("/nowhere")).bearer_auth(token),
        stranger.get(url(&path)),
    ] {
        let over = got(request).await;
        assert_eq!((over.status.as_u16(), over.problem()), (429, "quota-exceeded".to_owned()));
    }
    for _ in 0..10 {
        let known = got(stranger.get(url("/nowhere")).header("x-api-key", REPORTING)).await;
        assert_eq!((known.status.as_u16(), known.header("ratelimit")), (404, ""));
        assert_eq!(got(stranger.patch(url(&path)).bearer_auth(REPORTING)).await.status, 405);
    }
}
