//! A body is compressed once per entry and coding, and stored with it; each coding has its own tag,
//! any of them is good for a 304, and as it is it can always be had.

use std::io::Read;

use http::{Method, StatusCode};
use kore_standin::{Conversation, EXAMPLE_STREAM};
use serde_json::json;

use crate::world::{
    DAY, Got, MINUTE, REPORTING, World, before, conversation_path, got, transcript_path, window_path,
};

fn settled() -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, 1, before(2 * DAY)).padded(200_000)
}

async fn ask(world: &World, method: Method, accept: &str, if_none_match: &str) -> Got {
    let mut request = world.request(method, &conversation_path(&settled().conversation_id), REPORTING);
    if !accept.is_empty() {
        request = request.header("accept-encoding", accept);
    }
    if !if_none_match.is_empty() {
        request = request.header("if-none-match", if_none_match);
    }
    got(request).await
}

fn decoded(got: &Got) -> Vec<u8> {
    let mut plain = Vec::new();
    match got.header("content-encoding") {
        "gzip" => flate2::read::GzDecoder::new(&got.body[..]).read_to_end(&mut plain).unwrap(),
        "br" => brotli::Decompressor::new(&got.body[..], 4096).read_to_end(&mut plain).unwrap(),
        _ => (&got.body[..]).read_to_end(&mut plain).unwrap(),
    };
    plain
}

#[tokio::test]
async fn each_coding_is_another_stream_of_bytes_under_another_tag_of_the_same_entry() {
    let world = World::of(vec![settled()]).await;
    let plain = ask(&world, Method::GET, "", "").await;
    assert_eq!(plain.header("content-encoding"), "");
    let mut tags = vec![plain.header("etag").to_owned()];
    for (accept, coding) in [("gzip", "gzip"), ("gzip, deflate, br, zstd", "br"), ("br;q=0.1, gzip", "gzip")]
    {
        let coded = ask(&world, Method::GET, accept, "").await;
        assert!(coded.is_hit());
        assert_eq!(coded.header("content-encoding"), coding);
        assert_eq!(coded.header("vary"), "Accept-Encoding");
        assert!(coded.body.len() * 10 < plain.body.len());
        assert_eq!(decoded(&coded), plain.body);
        tags.push(coded.header("etag").to_owned());
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 3, "identity, gzip and br");
    for accept in ["identity", "*;q=0", "deflate", "gzip;q=0"] {
        assert_eq!(ask(&world, Method::GET, accept, "").await.body, plain.body, "{accept}");
    }
    // Any of the entry's tags, weak or not, whatever coding is asked for now.
    for tag in &tags {
        for condition in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}")] {
            let got = ask(&world, Method::GET, "br", &condition).await;
            assert_eq!((got.status, got.header("etag")), (StatusCode::NOT_MODIFIED, &**tag));
            assert!(got.body.is_empty());
        }
    }
    assert_eq!(world.standin.count(), 1);
}

#[tokio::test]
async fn a_variant_is_made_once_and_weighed_and_a_304_makes_none() {
    let world = World::of(vec![settled()]).await;
    let plain = ask(&world, Method::GET, "", "").await;
    let (_, without) = world.app.cache.size();
    assert_eq!(ask(&world, Method::GET, "br", plain.header("etag")).await.status, StatusCode::NOT_MODIFIED);
    assert_eq!(world.app.cache.size(), (1, without));
    let first = ask(&world, Method::GET, "br", "").await;
    let with = without + u64::try_from(first.body.len()).unwrap();
    assert_eq!(world.app.cache.size(), (1, with));
    for _ in 0..3 {
        assert_eq!(ask(&world, Method::GET, "br", "").await.body, first.body);
    }
    assert_eq!(world.app.cache.size(), (1, with));
    let gzip = ask(&world, Method::GET, "gzip", "").await;
    assert_eq!(world.app.cache.size(), (1, with + u64::try_from(gzip.body.len()).unwrap()));
}

#[tokio::test]
async fn head_has_the_fields_of_get_in_every_coding() {
    let world = World::of(vec![settled()]).await;
    for accept in ["", "gzip", "br"] {
        let get = ask(&world, Method::GET, accept, "").await;
        let head = ask(&world, Method::HEAD, accept, "").await;
        for field in ["etag", "content-encoding", "content-length", "content-type", "vary", "cache-control"] {
            assert_eq!(head.header(field), get.header(field), "{accept} {field}");
        }
        assert!(head.body.is_empty());
    }
    assert_eq!(world.standin.count(), 1);
}

#[tokio::test]
async fn live_answers_and_posts_are_compressed_and_conditional_too() {
    let live = Conversation::live(EXAMPLE_STREAM, 2, before(5 * MINUTE));
    let world = World::of(vec![live.clone(), settled()]).await;
    let path = conversation_path(&live.conversation_id);
    let first = got(world.request(Method::GET, &path, REPORTING).header("accept-encoding", "gzip")).await;
    assert_eq!((first.header("content-encoding"), first.header("age")), ("gzip", ""));
    let again = world.request(Method::GET, &path, REPORTING).header("if-none-match", first.header("etag"));
    assert_eq!(got(again).await.status, StatusCode::NOT_MODIFIED);
    assert_eq!(world.standin.count(), 2, "what is live is asked for each time");
    assert_eq!(world.app.cache.size().0, 0);

    ask(&world, Method::GET, "", "").await;
    let window = json!({ "startDate": "2026-02-28", "endDate": "2026-02-28", "timeZoneOffset": 0 });
    let transcript = json!({ "sessionId": settled().session_id });
    for (path, body) in [(window_path(), window), (transcript_path(), transcript)] {
        let post = || world.post_request(&path, body.to_string(), REPORTING).header("accept-encoding", "br");
        let first = got(post()).await;
        assert_eq!(first.header("content-encoding"), "br");
        let again = got(post().header("if-none-match", first.header("etag"))).await;
        assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    }
}
