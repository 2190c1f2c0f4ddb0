//! What an upstream's answer is made of: any coding is undone or told of, a byte order mark is taken off,
//! parts of any size are joined, only types of JSON are handed on, and what cannot be read is told in words.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault};

use crate::process::{own_process, peak_memory, up_to};
use crate::world::{
    DAY, Got, REPORTING, World, before, client, conversation_path, got, reload, transcript_path,
    with_ops_token,
};

fn closed(n: u64) -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, n, before(DAY))
}

/// An answer as it is on the wire.
fn raw(status: &str, fields: &str, body: &[u8]) -> Fault {
    let head = format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n", body.len());
    Fault::Raw([head.as_bytes(), body].concat().into())
}

/// The body of a conversation, and its path.
async fn body_and_path() -> (Bytes, String) {
    let path = conversation_path(&closed(1).conversation_id);
    let got = World::of(vec![closed(1)]).await.get(&path).await;
    (got.body, path)
}

async fn answered_with(fault: Fault, path: &str) -> (World, Got) {
    let world = World::new().await;
    world.standin.fault(Some(fault));
    let got = world.get(path).await;
    (world, got)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut coder = GzEncoder::new(Vec::new(), Compression::fast());
    coder.write_all(body).unwrap();
    coder.finish().unwrap()
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut coder = ZlibEncoder::new(Vec::new(), Compression::fast());
    coder.write_all(body).unwrap();
    coder.finish().unwrap()
}

fn bare_deflate(body: &[u8]) -> Vec<u8> {
    let mut coder = DeflateEncoder::new(Vec::new(), Compression::fast());
    coder.write_all(body).unwrap();
    coder.finish().unwrap()
}

fn brotli(body: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    let mut coder = brotli::CompressorWriter::new(&mut coded, 4096, 5, 22);
    coder.write_all(body).unwrap();
    drop(coder);
    coded
}

#[tokio::test]
async fn a_coding_is_undone_however_it_is_spelled_on_good_answers_and_on_errors() {
    let (body, path) = body_and_path().await;
    let error = Bytes::from_static(b"{\"errors\":[{\"msg\":\"no\",\"code\":404}]}");
    type Coder = fn(&[u8]) -> Vec<u8>;
    let plain: Coder = <[u8]>::to_vec;
    let cases: [(&str, Coder); 13] = [
        ("content-encoding: gzip\r\n", gzip),
        ("content-encoding: GZIP\r\n", gzip),
        ("content-encoding: x-gzip\r\n", gzip),
        ("content-encoding: X-GZip\r\n", gzip),
        ("content-encoding: deflate\r\n", zlib),
        ("content-encoding: br\r\n", brotli),
        ("content-encoding: Br\r\n", brotli),
        ("content-encoding: gzip, identity\r\n", gzip),
        ("content-encoding: identity\r\ncontent-encoding: br\r\n", brotli),
        ("content-encoding: ,gzip,,\r\n", gzip),
        ("content-encoding: identity\r\n", plain),
        ("content-encoding: \r\n", plain),
        ("", plain),
    ];
    for (fields, coder) in cases {
        for (status, wanted) in [("200 OK", &body), ("404 Not Found", &error), ("500 Oh", &error)] {
            let fields = format!("content-type: application/json\r\n{fields}");
            let (world, got) = answered_with(raw(status, &fields, &coder(wanted)), &path).await;
            assert_eq!(got.status.as_str(), &status[..3], "{fields}: {got:?}");
            assert_eq!(got.body, *wanted, "{fields}");
            assert_eq!(got.header("content-encoding"), "", "{fields}");
            let is_stored = got.cache_status().ends_with("; stored");
            assert_eq!(is_stored, status == "200 OK", "{fields}: {}", got.cache_status());
            assert_eq!(world.standin.calls()[0].header("accept-encoding"), Some("gzip, br"));
        }
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_a_502_that_names_it() {
    let (body, path) = body_and_path().await;
    let coded = gzip(&body);
    let twice = gzip(&coded);
    let bare = bare_deflate(&body);
    let cases: [(&str, &[u8], &str); 8] = [
        ("content-encoding: zstd\r\n", &coded, "coded as zstd; gzip, br and deflate can be decoded"),
        ("content-encoding: <b>\r\n", &coded, "coded as something else"),
        ("content-encoding: gzip, gzip\r\n", &twice, "coded twice over"),
        ("content-encoding: gzip\r\ncontent-encoding: br\r\n", &coded, "coded twice over"),
        ("content-encoding: gzip\r\n", &body, "not in the coding that it names"),
        ("content-encoding: br\r\n", &coded, "not in the coding that it names"),
        ("content-encoding: deflate\r\n", &bare, "not in the coding that it names"),
        ("transfer-encoding: gzip, chunked\r\n", b"", "a transfer coding other than `chunked`"),
    ];
    for (fields, body, words) in cases {
        let fault = if fields.starts_with("transfer") {
            Fault::Raw(format!("HTTP/1.1 200 OK\r\n{fields}\r\n2\r\n{{}}\r\n0\r\n\r\n").into())
        } else {
            raw("200 OK", fields, body)
        };
        let (_, got) = answered_with(fault, &path).await;
        assert_eq!((got.status.as_u16(), &*got.problem()), (502, "upstream-invalid"), "{fields}: {got:?}");
        let detail = got.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(words), "{fields}: {detail}");
    }
}

#[tokio::test]
async fn an_answer_without_a_body_has_no_coding() {
    let path = conversation_path("c-1");
    let (_, got) = answered_with(raw("404 Not Found", "content-encoding: gzip\r\n", b""), &path).await;
    assert_eq!((got.status.as_u16(), got.body.len()), (404, 0));
}

#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_the_answer_and_hides_nothing_from_redaction() {
    let (body, path) = body_and_path().await;
    let marked = [b"\xEF\xBB\xBF", &body[..]].concat();
    let redacted = "kg_redacted";
    let world = World::with(|setup| {
        let one = client("redacted", redacted).rate_limit("1000/min").toml();
        setup.clients = format!(
            "{one}redact = [\"no-user\"]\n[redaction.no-user]\nremove = [\"/userInfo\", \"/userId\"]\n"
        );
    })
    .await;
    world.standin.serve_body(&path, 200, "application/json", marked.clone());
    let got = world.get(&path).await;
    assert_eq!((got.status.as_u16(), &got.body), (200, &body));
    assert!(got.cache_status().ends_with("; stored"), "{}", got.cache_status());
    let tag = got.header("etag").to_owned();
    let plain = World::of(vec![closed(1)]).await.get(&path).await;
    assert_eq!(tag, plain.header("etag"), "the same answer");
    let shown = crate::world::got(world.request(http::Method::GET, &path, redacted)).await;
    assert_eq!(shown.status, 200, "{shown:?}");
    assert!(shown.json().get("userInfo").is_none() && shown.json()["_id"].is_string());

    // One that is passed on as it comes, and a transcript.
    let small = World::with(|setup| setup.config = "upstream.max_body = \"1KiB\"".to_owned()).await;
    small.standin.serve_body(&path, 200, "application/json", marked.clone());
    let got = small.get(&path).await;
    assert!(got.cache_status().ends_with("detail=too-large") && got.body == body, "{got:?}");
    let transcript = world.post(&transcript_path(), r#"{"sessionId":"s-1"}"#).await;
    let marked = [b"\xEF\xBB\xBF", &transcript.body[..]].concat();
    world.standin.serve_body("conversationdetails", 200, "application/json", marked);
    let again = world.post(&transcript_path(), r#"{"sessionId":"s-2"}"#).await;
    assert_eq!(again.body, transcript.body);
}

#[tokio::test]
async fn only_types_of_json_are_handed_on_and_nothing_is_sniffed() {
    let (body, path) = body_and_path().await;
    let html = Bytes::from_static(b"<html><script>alert(1)</script></html>");
    let bytes = "application/octet-stream";
    for (status, sent, body, wanted) in [
        ("200 OK", "application/json; charset=utf-8", &body, "application/json; charset=utf-8"),
        ("200 OK", "application/vnd.kore+json", &body, "application/vnd.kore+json"),
        // What has been read as JSON is JSON.
        ("200 OK", "text/html", &body, "application/json"),
        ("200 OK", "text/html", &html, bytes),
        ("404 Not Found", "text/html; charset=utf-8", &html, bytes),
        ("500 Oh", "image/svg+xml", &html, bytes),
        ("400 Bad", "application/json", &html, "application/json"),
    ] {
        let fields = format!("content-type: {sent}\r\n");
        let (_, got) = answered_with(raw(status, &fields, body), &path).await;
        assert_eq!((&got.body, got.header("content-type")), (body, wanted), "{status}, {sent}");
        assert_eq!(got.header("x-content-type-options"), "nosniff", "{status}, {sent}");
    }
    let small = World::with(|setup| setup.config = "upstream.max_body = \"1KiB\"".to_owned()).await;
    small.standin.fault(Some(raw("200 OK", "content-type: text/html\r\n", &[b'<'; 5000])));
    let got = small.get(&path).await;
    assert_eq!((got.header("content-type"), got.header("x-content-type-options")), (bytes, "nosniff"));
}

#[tokio::test]
async fn every_answer_of_both_listeners_forbids_sniffing() {
    let world = World::with(with_ops_token).await;
    let main = ["/openapi.json", "/docs", "/nothing", &conversation_path("c-1"), &conversation_path("%41%")];
    let mut answers = Vec::new();
    for path in main {
        answers.push(world.get(path).await);
        answers.push(got(world.http.get(format!("http://{}{path}", world.address))).await);
    }
    let options = world.http.request(http::Method::OPTIONS, format!("http://{}/docs", world.address));
    answers.push(
        got(options.header("origin", "https://x.example").header("access-control-request-method", "GET"))
            .await,
    );
    for path in ["/livez", "/readyz", "/metrics", "/version", "/nothing", "/admin/config", "/admin/reload"] {
        answers.push(world.ops(path).await);
    }
    answers.push(reload(&world).await);
    for answer in answers {
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{answer:?}");
    }
}

#[tokio::test]
async fn a_wait_that_the_upstream_names_is_handed_on_as_seconds_or_not_at_all() {
    for (named, wanted) in [
        ("7", "7"),
        ("86400000", "3600"),
        ("<script>", "5"),
        ("-5", "5"),
        ("Mon, 02 Mar 2026 12:00:30 GMT", "30"),
    ] {
        let fields = format!("retry-after: {named}\r\n");
        let (_, got) = answered_with(raw("503 Busy", &fields, b"{}"), &conversation_path("c-1")).await;
        assert_eq!((got.status.as_u16(), got.header("retry-after")), (503, wanted), "{named}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_told_in_words() {
    let fields = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let big = format!("x-big: {}\r\n", "y".repeat(400 * 1024));
    let whole = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\n{{}}");
    let chunks = |text: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{text}");
    let too_large = "too large: at most 200 fields and 128 KiB are read";
    for (answer, words) in [
        (whole(&fields(250)), too_large),
        (whole(&big), too_large),
        ("HTTP/1.1 abc OK\r\n\r\n".to_owned(), "does not begin with a status line"),
        ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), "does not begin with a status line"),
        (whole("x y: z\r\n"), "a header field that is none"),
        (whole("x: a\0b\r\n"), "a header field that is none"),
        (whole("content-length: 3\r\n"), "has two lengths"),
        (whole("content-length: abc\r\n"), "has two lengths, or one that is no number"),
        (whole("transfer-encoding: chunked\r\n"), "has two lengths"),
        (chunks("zz\r\n{}\r\n0\r\n\r\n"), "a chunk that is none"),
        (chunks("2\r\n{}xx0\r\n\r\n"), "a chunk that is none"),
        (chunks("ffffffffffffffffff\r\n{}"), "a chunk that is none"),
    ] {
        let (_, got) = answered_with(Fault::Raw(answer.clone().into()), &conversation_path("c-1")).await;
        let start: String = answer.chars().take(60).collect();
        assert_eq!(got.status, 502, "{start:?}: {got:?}");
        assert_eq!(got.problem(), "upstream-invalid", "{start:?}");
        let detail = got.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(words), "{start:?}: {detail}");
    }
    // As many fields as are allowed.
    let (_, got) = answered_with(Fault::Raw(whole(&fields(190)).into()), &conversation_path("c-1")).await;
    assert_eq!((got.status.as_u16(), &got.body[..]), (200, &b"{}"[..]));
}

/// Bytes that the process grew by while it answered, at its highest; and the answer.
async fn growth(world: &World, max_body: &str, fault: Option<Fault>, large: &[u8]) -> (u64, Got) {
    let (gateway, url) = own_process(world, &up_to(max_body)).await;
    let ask = async |path: &str| {
        got(world.http.get(format!("{url}{}", conversation_path(path))).header("x-api-key", REPORTING)).await
    };
    world.standin.clear_faults();
    assert_eq!(ask("c-0").await.status, 404);
    let before = peak_memory(gateway.id().unwrap());
    world.standin.serve_body("c-1", 404, "application/json", large.to_vec());
    world.standin.fault(fault);
    let answer = ask("c-1").await;
    ((peak_memory(gateway.id().unwrap()) - before) * 1024, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_parts_of_one_byte_takes_no_more_memory_than_its_bytes() {
    let world = World::new().await;
    let body = [&b"["[..], &[b' '; 1024 * 1024], b"]"].concat();
    let (grown, answer) = growth(&world, "128MiB", Some(Fault::OneByteChunks), &body).await;
    println!("1 MiB in parts of one byte: grown by {} KiB", grown / 1024);
    assert_eq!(answer.body, body);
    assert!(grown < 24 * 1024 * 1024, "{grown} bytes");

    // So many parts are too much work long before they are too many bytes.
    let (grown, answer) = growth(&world, "16MiB", Some(Fault::OneByteChunks), &body).await;
    println!("passed on as it comes: grown by {} KiB", grown / 1024);
    assert!(answer.cache_status().ends_with("detail=too-large"), "{}", answer.cache_status());
    assert_eq!(answer.body, body);
    assert!(grown < 24 * 1024 * 1024, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_is_not_held_twice() {
    let world = World::new().await;
    let size = 64 * 1024 * 1024;
    let body: Vec<u8> = (b'a'..=b'z').cycle().take(size).collect();
    for fault in [None, Some(Fault::Chunked)] {
        let (grown, answer) = growth(&world, "128MiB", fault.clone(), &body).await;
        println!("{fault:?}, {size} bytes: grown by {grown}");
        assert!(answer.body == body);
        assert!(grown < size as u64 * 3 / 2, "{fault:?}: {grown} bytes");
    }
}
