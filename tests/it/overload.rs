//! What waits is bounded, in all and for each client; hits are answered and who watches is not sent away.

use std::time::Duration;

use http::{Method, StatusCode};
use jsonwebtoken::Algorithm;
use kore_gateway::access::oidc::keys::MOST_WAITING;
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault, Gate, OTHER_STREAM};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::issuer::{Issuer, Signer};
use crate::world::{
    DAY, Got, NEIGHBOUR, ONE_BOT, REPORTING, World, before, client, conversation_path, got, until,
    window_path,
};

/// Four may wait, two of one client.
async fn small() -> (World, Gate, String) {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let stored = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        setup.config = "server.max_requests = 4\nserver.client_share = 50\n".to_owned();
        setup.standin.conversations = vec![conversation];
    })
    .await;
    assert_eq!(world.get(&stored).await.status, StatusCode::OK);
    assert_eq!(world.post(&window_path(), WINDOW).await.status, StatusCode::OK);
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    (world, gate, stored)
}

const WINDOW: &str = r#"{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":0}"#;

fn ask(world: &World, key: &str, id: &str) -> JoinHandle<Got> {
    let path = conversation_path(id);
    let path = if key == NEIGHBOUR { path.replace(EXAMPLE_STREAM, OTHER_STREAM) } else { path };
    tokio::spawn(got(world.request(Method::GET, &path, key)))
}

fn assert_shed(answer: &Got, told: &str) {
    assert_eq!(
        (answer.status, answer.problem().as_str(), answer.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, "temporary-reduced-capacity", "1")
    );
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(told), "{detail}");
}

#[tokio::test]
async fn a_client_that_waits_too_often_is_shed_and_hits_and_others_are_not() {
    let (world, gate, stored) = small().await;
    let mut under_way = vec![ask(&world, REPORTING, "c-1"), ask(&world, REPORTING, "c-2")];
    until("both are under way", || world.standin.count() == 4).await;
    // Its share, also for a fill that is under way already; and what it may have without waiting.
    for id in ["c-3", "c-1"] {
        assert_shed(&world.get(&conversation_path(id)).await, "2 requests of this client");
    }
    for _ in 0..20 {
        assert!(world.get(&stored).await.is_hit());
        assert!(world.post(&window_path(), WINDOW).await.is_hit());
    }
    // Another one has its own share, until all places are taken.
    under_way.push(ask(&world, NEIGHBOUR, "c-4"));
    under_way.push(ask(&world, NEIGHBOUR, "c-5"));
    until("theirs are under way", || world.standin.count() == 6).await;
    let third = got(world.request(Method::GET, &conversation_path("c-6"), ONE_BOT)).await;
    assert_shed(&third, "4 requests wait already");
    for key in [REPORTING, ONE_BOT] {
        assert!(got(world.request(Method::GET, &stored, key)).await.is_hit());
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(world.ops(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(world.metric("http_server_active_requests").await, 4.0);
    // Who brings nothing is told so at once, whatever waits.
    assert_eq!(got(world.request(Method::GET, &stored, "kg_unknown")).await.status, 401);

    gate.open();
    for asked in under_way {
        assert_eq!(asked.await.unwrap().status, StatusCode::NOT_FOUND);
    }
    assert_eq!(
        world.get(&conversation_path("c-1")).await.status,
        StatusCode::NOT_FOUND,
        "there is room again"
    );
    assert_eq!(world.standin.count(), 7, "what was shed cost the upstream nothing");
}

#[tokio::test]
async fn a_body_that_does_not_come_takes_a_place_of_its_client_until_it_does() {
    let (world, _gate, stored) = small().await;
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let path = window_path();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {REPORTING}\r\nContent-Length: {}\r\n\r\n",
            WINDOW.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    while world.metric("http_server_active_requests").await < 2.0 {}
    assert_shed(&world.get(&conversation_path("c-1")).await, "2 requests of this client");
    assert!(world.get(&stored).await.is_hit());
    assert!(world.post(&window_path(), WINDOW).await.is_hit());
    // The body comes: it is a hit, and the place is free again.
    for stream in &mut slow {
        stream.write_all(WINDOW.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    let again = ask(&world, REPORTING, "c-1");
    until("it is under way", || world.standin.count() == 3).await;
    again.abort();
}

/// Head and body in two segments: the body is there before anybody is sent away for want of a place.
#[tokio::test]
async fn a_hit_whose_body_comes_behind_its_head_needs_no_place() {
    let (world, gate, _stored) = small().await;
    let under_way = [ask(&world, REPORTING, "c-1"), ask(&world, REPORTING, "c-2")];
    until("its share is taken", || world.standin.count() == 4).await;
    let path = window_path();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {REPORTING}\r\nContent-Length: {}\r\n\r\n",
        WINDOW.len()
    );
    let begun = async || {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let (mut prompt, mut late) = (begun().await, begun().await);
    until("both heads are in", || world.app.metrics.http.active_requests.get() == 4).await;
    prompt.write_all(WINDOW.as_bytes()).await.unwrap();
    for (stream, status) in [(&mut prompt, b"HTTP/1.1 200"), (&mut late, b"HTTP/1.1 503")] {
        let mut answer = [0; 12];
        let answered = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut answer)).await;
        answered.expect("nobody waits without a place").unwrap();
        assert_eq!(&answer, status);
    }
    gate.open();
    for asked in under_way {
        asked.await.unwrap();
    }
}

/// A reset is seen while nothing is read; a half that is closed is none.
#[tokio::test]
async fn a_caller_who_resets_his_connection_gives_his_place_back_and_one_who_closes_a_half_is_answered() {
    let (world, gate, _stored) = small().await;
    let begun = async |id: &str| {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let path = conversation_path(id);
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {REPORTING}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let (gone, mut half) = (begun("c-1").await, begun("c-2").await);
    until("both are under way", || world.standin.count() == 4).await;
    half.shutdown().await.unwrap();
    gone.set_zero_linger().unwrap();
    drop(gone);
    until("one waits no more", || world.app.metrics.http.active_requests.get() == 1).await;
    let next = ask(&world, REPORTING, "c-3");
    until("its place is another's", || world.standin.count() == 5).await;
    gate.open();
    assert_eq!(next.await.unwrap().status, StatusCode::NOT_FOUND);
    let mut answer = Vec::new();
    half.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
}

/// As a body that does not come.
#[tokio::test]
async fn a_get_of_http2_that_does_not_end_takes_a_place_of_its_client() {
    let (world, _gate, stored) = small().await;
    let (mut sender, connection) =
        h2::client::handshake(TcpStream::connect(world.address).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let mut slow = Vec::new();
    for _ in 0..2 {
        let url = format!("http://{}{stored}", world.address);
        let head = http::Request::get(url).header("x-api-key", REPORTING).body(()).unwrap();
        slow.push(sender.send_request(head, false).unwrap());
        sender = sender.ready().await.unwrap();
    }
    while world.metric("http_server_active_requests").await < 2.0 {}
    assert_shed(&world.get(&conversation_path("c-1")).await, "2 requests of this client");
    assert!(world.get(&stored).await.is_hit());
    for (answer, mut body) in slow {
        body.send_data(bytes::Bytes::new(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    }
    let again = ask(&world, REPORTING, "c-1");
    until("it is under way", || world.standin.count() == 3).await;
    again.abort();
}

/// Anybody can make up the name of a key, and hold a place until the issuer answers.
async fn unknown_keys(config: &str) -> (World, Issuer, Signer, Signer, String) {
    let (signer, other) = (Signer::new("ed", Algorithm::EdDSA), Signer::new("made-up", Algorithm::EdDSA));
    let issuer = Issuer::publishing(&[&signer]).await;
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let stored = conversation_path(&conversation.conversation_id);
    let block = client("desk", "kg_desk").toml() + &issuer.rule("");
    let world = World::with(|setup| {
        setup.config.push_str(config);
        setup.standin.conversations = vec![conversation];
        setup.clients = block;
    })
    .await;
    let good = got(with_token(&world, &stored, &signer.token(&issuer.claims("asha")))).await;
    assert_eq!(good.status, 200, "the keys are there");
    issuer.hold(true);
    world.advance(Duration::from_secs(60));
    (world, issuer, signer, other, stored)
}

fn with_token(world: &World, path: &str, token: &str) -> reqwest::RequestBuilder {
    world.http.get(format!("http://{}{path}", world.address)).bearer_auth(token)
}

#[tokio::test]
async fn a_few_dozen_wait_for_the_keys_of_an_issuer_and_the_others_are_sent_away_at_once() {
    let (world, issuer, signer, other, stored) = unknown_keys("").await;
    let made_up = other.token(&issuer.claims("nobody"));
    let ask = || tokio::spawn(got(with_token(&world, &stored, &made_up)));
    let mut asked: Vec<_> = (0..MOST_WAITING).map(|_| ask()).collect();
    while world.metric("http_server_active_requests").await < 32.0 {}
    for _ in 0..10 {
        let away = got(with_token(&world, &stored, &made_up)).await;
        assert_eq!((away.status.as_u16(), away.problem()), (503, "identity-unavailable".to_owned()));
        assert_eq!(away.header("retry-after"), "30");
    }
    // Whose key is known does not notice, nor does a key's client.
    let good = signer.token(&issuer.claims("asha"));
    assert!(got(with_token(&world, &stored, &good)).await.is_hit());
    assert!(world.get(&stored).await.is_hit());
    assert_eq!(world.get(&conversation_path("c-1")).await.status, 404);
    issuer.hold(false);
    for asked in asked.drain(..) {
        assert_eq!(asked.await.unwrap().status, 401);
    }
}

#[tokio::test]
async fn those_who_are_not_known_yet_have_a_share_of_the_places() {
    let (world, issuer, signer, other, stored) =
        unknown_keys("server.max_requests = 20\nserver.unauthenticated_share = 10\n").await;
    let made_up = other.token(&issuer.claims("nobody"));
    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(got(with_token(&world, &stored, &made_up)))).collect();
    while world.metric("http_server_active_requests").await < 2.0 {}
    for _ in 0..10 {
        let shed = got(with_token(&world, &stored, &made_up)).await;
        assert_shed(&shed, "2 requests of those whose credential is not known yet");
    }
    let good = signer.token(&issuer.claims("asha"));
    assert!(got(with_token(&world, &stored, &good)).await.is_hit());
    assert_eq!(world.get(&conversation_path("c-1")).await.status, 404);
    issuer.hold(false);
    for asked in waiting {
        assert_eq!(asked.await.unwrap().status, 401);
    }
}
