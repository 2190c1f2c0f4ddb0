//! What a request may look like is decided on its bytes, before anybody asks whose it is: exactly one
//! reading, or a refusal that says why, with a request id, and the connection is closed.

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{REPORTING, SECOND, World, conversation_path, window_path};

/// The fields of an honest request.
fn honest() -> String {
    format!("Host: gw\r\nX-Api-Key: {REPORTING}\r\n")
}

/// A GET with these fields.
fn get(fields: &str) -> String {
    format!("GET {} HTTP/1.1\r\n{fields}\r\n", conversation_path("c-1"))
}

/// A POST with these fields beside honest ones.
fn post(fields: &str, body: &str) -> String {
    format!("POST {} HTTP/1.1\r\n{}{fields}\r\n{body}", window_path(), honest())
}

/// All that the gateway sends until it closes; that it holds the connection is a failure.
async fn answered(address: std::net::SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for piece in pieces {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(SECOND * 10, stream.read_to_end(&mut answer));
    reading.await.unwrap_or_else(|_| panic!("held: {:?}", String::from_utf8_lossy(pieces[0]))).unwrap();
    String::from_utf8(answer).unwrap()
}

/// One refusal, complete, and nothing after it.
fn assert_refused(answer: &str, status: u16, about: &str, request: &str) {
    let status_line = StatusCode::from_u16(status).unwrap();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status_line} for {request:?}: {answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nconnection: close"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/problem+json"), "{head}");
    let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
    if request.starts_with("HEAD") {
        assert_eq!(body, "");
        return;
    }
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["request_id"], id);
    assert_eq!(problem["status"], status);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(about), "{request:?}: {detail}");
}

/// The twelve ways to frame or to address a request that could be read in two ways, each with what would
/// be an honest request behind it.
fn cases() -> Vec<(String, u16, &'static str)> {
    let key = format!("X-Api-Key: {REPORTING}\r\n");
    let own = conversation_path("c-1");
    vec![
        (get(&key), 400, "no `Host`"),
        (get(&format!("{}Host: gw\r\n", honest())), 400, "more than one `Host`"),
        (get(&format!("{key}Host: gw, other\r\n")), 400, "no name or address"),
        (post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400, "together"),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "0\r\n\r\n"), 400, "together"),
        (post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), 400, "more than one `Content-Length`"),
        (post("Content-Length: 2, 2\r\n", "{}"), 400, "digits"),
        (post("Content-Length: +2\r\n", "{}"), 400, "digits"),
        (post("Content-Length: 02\r\n", "{}"), 400, "digits"),
        (post("Transfer-Encoding: identity, chunked\r\n", "0\r\n\r\n"), 501, "beside `chunked`"),
        (post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), 400, "one `chunked`"),
        (post("Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400, "one `chunked`"),
        (get(&format!("{}Content-Length: 2\r\n", honest())) + "{}", 400, "with a body"),
        (
            format!("HEAD {own} HTTP/1.1\r\n{}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", honest()),
            400,
            "with a body",
        ),
        (format!("GET http://other{own} HTTP/1.1\r\n{}\r\n", honest()), 400, "another host"),
        (post("Content-Length: 10000000\r\n", ""), 413, "max_request_body"),
        (post("Content-Length: 10000000\r\nExpect: 100-continue\r\n", ""), 413, "max_request_body"),
        (format!("CONNECT gw:443 HTTP/1.1\r\n{}\r\n", honest()), 501, "no tunnel"),
    ]
}

#[tokio::test]
async fn none_of_the_twelve_cases_gets_past_and_nothing_behind_it_is_read() {
    let world = World::new().await;
    let behind = get(&honest());
    for (request, status, about) in cases() {
        let answer = answered(world.address, &[(request.clone() + &behind).as_bytes()]).await;
        assert_refused(&answer, status, about, &request);
        // Split anywhere, it comes to the same; and so after a good one.
        let (one, two) = request.as_bytes().split_at(request.len() / 2);
        assert_refused(&answered(world.address, &[one, two]).await, status, about, &request);
        assert_eq!(world.standin.count(), 0, "{request}");
        let after = format!("GET /nothing HTTP/1.1\r\nHost: gw\r\n\r\n{request}");
        let answer = answered(world.address, &[after.as_bytes()]).await;
        let (first, second) = answer.split_at(answer.find("}HTTP/1.1 ").unwrap() + 1);
        assert!(first.starts_with("HTTP/1.1 404"), "{answer}");
        assert_refused(second, status, about, &request);
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn what_is_not_http_gets_a_problem_with_a_request_id_too_on_both_listeners() {
    let world = World::new().await;
    for (request, status, about) in [
        ("\u{16}\u{3}\u{1}\u{2}", 400, "HTTP/1.1"),
        ("GET /\r\n\r\n", 400, "HTTP/1.1"),
        ("GET / HTTP/3.0\r\nHost: gw\r\n\r\n", 505, "version"),
        ("GET / HTTP/1.1\r\nHost: gw\r\nX : y\r\n\r\n", 400, "HTTP/1.1"),
        ("GET / HTTP/1.1\r\nHost: gw\r\nX: a\r\n folded\r\n\r\n", 400, "HTTP/1.1"),
        ("GET / HTTP/1.1\nHost: gw\n\n", 400, "carriage return"),
        ("GET /a#b HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "percent-encoding"),
        ("OPTIONS * HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "target"),
        ("POST / HTTP/1.1\r\nHost: gw\r\nExpect: more\r\n\r\n", 417, "100-continue"),
        // Nobody can pretend to have been refused, and nobody gains by it.
        ("_OTHER * HTTP/1.1\r\nrefusal: connect\r\n\r\n", 400, "no `Host`"),
    ] {
        for address in [world.address, world.ops] {
            assert_refused(&answered(address, &[request.as_bytes()]).await, status, about, request);
        }
    }
}

#[tokio::test]
async fn target_head_and_number_of_fields_are_limited() {
    let world = World::with(|setup| {
        setup.config =
            "server.max_head = \"1KiB\"\nserver.max_target = \"100B\"\nserver.max_fields = 5\n".to_owned();
    })
    .await;
    let with = |target: usize, fields: usize, value: usize| {
        let more = "X: y\r\n".repeat(fields - 3);
        let value = "v".repeat(value);
        format!(
            "GET /{} HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nY: {value}\r\n{more}\r\n",
            "a".repeat(target - 1)
        )
    };
    let fits = answered(world.address, &[with(100, 5, 800).as_bytes()]).await;
    assert!(fits.starts_with("HTTP/1.1 404"), "{fits}");
    for (request, status, about) in [
        (with(101, 5, 1), 414, "max_target"),
        (with(100, 6, 1), 431, "max_fields"),
        (with(100, 5, 900), 431, "max_head"),
        // Whatever else would come: there is no end in sight.
        (format!("GET /{}", "a".repeat(1024)), 414, "max_target"),
        (format!("HEAD / HTTP/1.1\r\nX: {}", "a".repeat(1024)), 431, "max_head"),
    ] {
        assert_refused(&answered(world.address, &[request.as_bytes()]).await, status, about, &request);
    }
}

#[tokio::test]
async fn a_chunked_body_that_is_none_is_a_400_and_ends_the_connection() {
    let world = World::new().await;
    for body in [
        "2 \r\n{}\r\n0\r\n\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "fffffffff\r\n",
    ] {
        let request = post("Transfer-Encoding: chunked\r\n", body) + &get(&honest());
        let answer = answered(world.address, &[request.as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{body:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{body:?}: {answer}");
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn an_id_matches_by_its_bytes_or_not_at_all() {
    let world = World::new().await;
    let path = conversation_path("c-1");
    let (before, _) = path.rsplit_once('/').unwrap();
    let encoded = [
        "c-1%2f",
        "c%2D1",
        "c-1%00",
        "c-1%20",
        "%2e%2e",
        "..",
        ".",
        "c-1/",
        "c-1/..",
        "c-1;x",
        "c-1%2fc-2",
        "C-1",
    ];
    for id in encoded {
        let request = format!("GET {before}/{id} HTTP/1.1\r\nConnection: close\r\n{}\r\n", honest());
        let answer = answered(world.address, &[request.as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 404"), "{id}: {answer}");
    }
    let around = path.replace("/conversations/", "/x/../conversations/");
    for path in [
        around,
        path.replacen("/api/", "//api/", 1),
        path.replacen("/api/", "/./api/", 1),
        path.replacen("/api/", "/%61pi/", 1),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{}\r\n", honest());
        assert!(answered(world.address, &[request.as_bytes()]).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn honest_requests_pass_in_one_piece_in_many_and_one_behind_another() {
    let world = World::new().await;
    let body = r#"{"startDate":"2026-02-16","endDate":"2026-02-20","timeZoneOffset":0}"#;
    let (one, two) = body.split_at(20);
    let chunks = format!("{:x};a=b\r\n{one}\r\n{:X}\r\n{two}\r\n0\r\nT: v\r\n\r\n", one.len(), two.len());
    let requests = [
        get(&honest()),
        format!("GET HTTP://GW{} HTTP/1.1\r\n{}\r\n", conversation_path("c-2"), honest()),
        post(&format!("Content-Length: {}\r\n", body.len()), body),
        post("Transfer-Encoding: chunked\r\n", &chunks),
        get(&format!("{}Connection: close\r\n", honest())),
    ]
    .concat();
    for piece in [requests.len(), 1000, 97, 11] {
        let pieces: Vec<&[u8]> = requests.as_bytes().chunks(piece).collect();
        let answer = answered(world.address, &pieces).await;
        let statuses: Vec<&str> =
            answer.match_indices("HTTP/1.1 ").map(|(at, _)| &answer[at + 9..at + 12]).collect();
        assert_eq!(statuses, ["404", "404", "200", "200", "404"], "in pieces of {piece}: {answer}");
    }
    world.assert_no_violations();
}
