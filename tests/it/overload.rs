//! More requests than the gateway takes on at a time are told so at once; who watches is not.

use http::{Method, StatusCode};
use kore_gateway::standin::{Fault, Gate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{REPORTING, World, conversation_path, got, until, window_path};

#[tokio::test]
async fn one_request_too_many_is_shed_and_the_ops_listener_answers() {
    let world = World::with(|setup| setup.config = "server.max_requests = 2".to_owned()).await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let ask = |id: &str| tokio::spawn(got(world.request(Method::GET, &conversation_path(id), REPORTING)));
    let under_way = [ask("c-1"), ask("c-2")];
    until("both are under way", || world.standin.count() == 2).await;

    let shed = world.get(&conversation_path("c-3")).await;
    assert_eq!(
        (shed.status, shed.problem().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "temporary-reduced-capacity")
    );
    assert_eq!(shed.header("retry-after"), "1");
    // Without a credential too: nothing is looked at.
    assert_eq!(got(world.request(Method::GET, "/nowhere", "kg_unknown")).await.status, 503);
    // And before the body: this one never comes.
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", window_path());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");

    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(world.ops(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(world.metric("http_server_active_requests").await, 2.0);

    gate.open();
    for asked in under_way {
        assert_eq!(asked.await.unwrap().status, StatusCode::NOT_FOUND);
    }
    assert_eq!(
        world.get(&conversation_path("c-1")).await.status,
        StatusCode::NOT_FOUND,
        "there is room again"
    );
    assert_eq!(world.standin.count(), 3, "what was shed cost the upstream nothing");
}
