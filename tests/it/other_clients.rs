//! HTTP as other clients speak it: what they may say is answered, and what only looks alike is refused.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use kore_standin::{Conversation, EXAMPLE_STREAM};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{DAY, MINUTE, REPORTING, World, before, conversation_path, window_path};

fn conversation() -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY))
}

/// All that comes until the gateway closes.
async fn exchange(address: std::net::SocketAddr, sent: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    tokio::time::timeout(MINUTE, stream.read_to_end(&mut answer)).await.expect("closed").unwrap();
    String::from_utf8(answer).unwrap()
}

/// What a stream of HTTP/2 is answered with: its request's head, then these DATA frames. The last of them ends it, but
/// for one of `{`, the beginning of something.
async fn stream(
    address: std::net::SocketAddr,
    request: http::request::Builder,
    data: &[&'static [u8]],
) -> Result<StatusCode, h2::Error> {
    let (mut sender, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await?;
    tokio::spawn(connection);
    let (answer, mut body) = sender.send_request(request.body(()).unwrap(), data.is_empty())?;
    for (index, piece) in data.iter().enumerate() {
        // The gateway may have answered already, and want no more.
        let _ = body.send_data(Bytes::from_static(piece), index + 1 == data.len() && *piece != b"{");
    }
    tokio::time::timeout(MINUTE, answer).await.expect("answered").map(|answer| answer.status())
}

fn request(address: std::net::SocketAddr, method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://{address}{path}")).header("x-api-key", REPORTING)
}

#[tokio::test]
async fn an_upgrade_is_ignored_and_the_connection_goes_on_as_http1() {
    let world = World::of(vec![conversation().padded(2_000_000)]).await;
    let path = conversation_path(&conversation().conversation_id);
    let get =
        |fields: &str| format!("GET {path} HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {REPORTING}\r\n{fields}\r\n");
    let plain = exchange(world.address, &get("Connection: close\r\n")).await;
    for upgrade in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n",
        "Connection: upgrade\r\nupgrade: websocket\r\n",
        "Upgrade: TLS/1.0, h2c\r\nUpgrade: x\r\n",
    ] {
        // Twice the same, and what follows is read as HTTP/1.1, to its last byte.
        let answers =
            exchange(world.address, &(get(upgrade).repeat(2) + &get("Connection: close\r\n"))).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{upgrade}: {answers:.500}");
        assert!(!answers.contains("101 "), "{upgrade}");
        let (_, last) = answers.rsplit_once("\r\n\r\n").unwrap();
        assert_eq!(last.len(), plain.rsplit_once("\r\n\r\n").unwrap().1.len(), "{upgrade}");
        let ops = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{upgrade}\r\n");
        assert!(exchange(world.ops, &ops).await.starts_with("HTTP/1.1 200"), "{upgrade}");
    }
    assert_eq!(world.standin.count(), 1);
}

#[tokio::test]
async fn a_get_of_http2_may_end_after_its_head_and_may_have_no_octet() {
    let world = World::of(vec![conversation()]).await;
    let path = conversation_path(&conversation().conversation_id);
    for method in [Method::GET, Method::HEAD] {
        let get = || request(world.address, method.clone(), &path);
        for (request, data, status) in [
            (get(), &[][..], 200),
            (get(), &[&b""[..]], 200),
            (get(), &[b"", b"", b""], 200),
            (get().header("content-length", "0"), &[], 200),
            (get().header("content-length", "0"), &[b""], 200),
            (get(), &[b"x"], 400),
            (get(), &[b"", b"x"], 400),
            (get().header("content-length", "1"), &[b"x"], 400),
        ] {
            assert_eq!(stream(world.address, request, data).await.unwrap(), status, "{method} {data:?}");
        }
    }
    assert_eq!(stream(world.ops, request(world.ops, Method::GET, "/livez"), &[b""]).await.unwrap(), 200);
    assert_eq!(stream(world.ops, request(world.ops, Method::GET, "/nothing"), &[b""]).await.unwrap(), 404);
    assert_eq!(world.standin.count(), 1);
}

/// Whose it is and how often it asks is seen first: an end that does not come holds no place of anybody's but of who may
/// ask.
#[tokio::test]
async fn a_get_of_http2_is_refused_before_its_end_has_come() {
    let world = World::with(|setup| setup.config = "server.body_timeout = \"10m\"\n".to_owned()).await;
    let path = conversation_path("c-1");
    // `{` is a beginning, without an end.
    let never: &[&'static [u8]] = &[b"{"];
    let open = async |method: Method, path: &str, key: &str| {
        let mut asked = request(world.address, method, path);
        asked.headers_mut().unwrap().insert("x-api-key", key.parse().unwrap());
        stream(world.address, asked, never).await.unwrap().as_u16()
    };
    for method in [Method::GET, Method::HEAD] {
        assert_eq!(open(method.clone(), &path, "kg_unknown").await, 401, "{method}");
        assert_eq!(open(method.clone(), "/nothing", REPORTING).await, 404, "{method}");
        assert_eq!(open(method, &window_path(), REPORTING).await, 405);
    }
    assert_eq!(world.metric("http_server_active_requests").await, 0.0);
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn the_ops_listener_refuses_over_http2_what_the_main_one_does_on_every_path() {
    let world = World::new().await;
    for path in ["/livez", "/readyz", "/version", "/metrics", "/admin/config", "/nothing"] {
        let get = || request(world.ops, Method::GET, path);
        for (asked, data) in [
            (get(), &[&b"x"[..]][..]),
            (get().header("expect", "more"), &[]),
            (get().header("x-any", " a"), &[]),
            (get().header("host", "localhost").header("host", "localhost"), &[]),
        ] {
            let fields = format!("{path}: {:?}", asked.headers_ref());
            let status = stream(world.ops, asked, data).await.unwrap();
            assert!(matches!(status.as_u16(), 400 | 417), "{fields}: {status}");
        }
        let two_faced =
            stream(world.ops, get().header("host", "localhost"), &[]).await.expect_err("no answer");
        assert_eq!(two_faced.reason(), Some(h2::Reason::PROTOCOL_ERROR), "{path}");
    }
    assert_eq!(stream(world.ops, request(world.ops, Method::GET, "/livez"), &[]).await.unwrap(), 200);
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_413_before_any_of_it() {
    let world = World::new().await;
    let post = |length: &str, more: &str| {
        format!(
            "POST {} HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {REPORTING}\r\nContent-Length: {length}\r\n{more}\r\n",
            window_path()
        )
    };
    for more in ["", "Expect: 100-continue\r\n", "X-Api-Key: kg_unknown\r\n"] {
        for length in ["65537", "10000000", "9223372036854775807"] {
            let answer = exchange(world.address, &post(length, more)).await;
            assert!(answer.starts_with("HTTP/1.1 413"), "{more}{length}: {answer}");
        }
    }
    for length in ["65537", "10000000"] {
        let asked = request(world.address, Method::POST, &window_path()).header("content-length", length);
        assert_eq!(stream(world.address, asked, &[b"{"]).await.unwrap(), 413, "{length}");
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn what_http1_refuses_is_refused_over_http2() {
    let world = World::new().await;
    let post =
        || request(world.address, Method::POST, &window_path()).header("content-type", "application/json");
    let body: &[&'static [u8]] = &[b"{}"];
    for (name, value) in [("content-length", "02"), ("x-any", " a"), ("x-any", "a\t"), ("accept", " ")] {
        let status = stream(world.address, post().header(name, value), body).await.unwrap();
        assert_eq!(status, 400, "{name}: {value:?}");
    }
    let no_token = http::HeaderName::from_lowercase(b"x\"any").unwrap();
    let get = request(world.address, Method::GET, "/nowhere").header(no_token, "a");
    assert_eq!(stream(world.address, get, &[]).await.unwrap(), 400);
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn a_page_can_read_what_the_guard_refuses() {
    const PAGE: &str = "https://page.example";
    let world = World::with(|setup| {
        let digest = hex::encode(kore_gateway::access::identify::key_digest(b"kg_page"));
        setup.clients.push_str(&format!(
            "[[clients]]\nname = \"page\"\napi_key_sha256 = \"{digest}\"\naccounts = [\"{}\"]\nbots = [\"*\"]\n\
             routes = [\"conversation\"]\norigins = [\"{PAGE}\"]\n",
            kore_standin::EXAMPLE_ACCOUNT
        ));
    })
    .await;
    let long = "a".repeat(9 * 1024);
    for (target, fields, status) in [
        ("/a#b", String::new(), 400),
        (&format!("/{long}"), String::new(), 414),
        ("/", format!("X: {long}\r\nY: {long}\r\n"), 431),
        ("/", "X: y\r\n".repeat(70), 431),
        ("/", "Content-Length: 99999999\r\n".to_owned(), 413),
        ("/", "Expect: more\r\n".to_owned(), 417),
    ] {
        let sent = format!("POST {target} HTTP/1.1\r\nHost: gw\r\nOrigin: {PAGE}\r\n{fields}\r\n");
        let answer = exchange(world.address, &sent).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(
            answer.contains(&format!("\r\naccess-control-allow-origin: {PAGE}\r\n")),
            "{status}: {answer}"
        );
        let other = exchange(world.address, &sent.replace(PAGE, "https://other.example")).await;
        assert!(!other.contains("access-control-allow-origin"), "{other}");
    }
}

/// RFC 9112 §9.6: whoever has said all may close his half.
#[tokio::test]
async fn a_caller_who_closes_his_half_gets_his_answer_and_then_the_end() {
    let world = World::of(vec![conversation()]).await;
    let path = conversation_path(&conversation().conversation_id);
    let get = format!("GET {path} HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {REPORTING}\r\n\r\n");
    // A miss, then hits.
    for sent in [get.clone(), get.clone(), get.repeat(3)] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), sent.matches("GET ").count(), "{answer}");
    }
    let mut stream = TcpStream::connect(world.ops).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
    // Half a head is no request.
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(&get.as_bytes()[..20]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(world.standin.count(), 1);
}
