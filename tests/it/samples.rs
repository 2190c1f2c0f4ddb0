//! What the upstream answers reaches the caller byte for byte, and what the vendor's own clients
//! send is accepted.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::world::{MINUTE, REPORTING, World, conversation_path, got, transcript_path, window_path};
use kore_standin::{EXAMPLE_ACCOUNT, EXAMPLE_STREAM};

fn samples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples")
}

/// Files of a folder whose name ends so, with their bytes.
fn files(folder: PathBuf, ending: &str) -> Vec<(String, Bytes)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(ending))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap().into()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no samples end with {ending}");
    files
}

/// Every published response body; rows stand in an answer with the one row.
fn bodies() -> Vec<(String, Bytes)> {
    let mut bodies = files(samples(), ".response.json");
    for (name, row) in files(samples(), "_row.json") {
        let body = [b"{\"numResults\": 1, \"data\": [".as_slice(), &row, b"]}"].concat();
        bodies.push((name, body.into()));
    }
    bodies
}

#[tokio::test]
async fn every_sample_goes_through_all_three_routes_byte_for_byte() {
    let world = World::new().await;
    let bodies = bodies();
    assert!(bodies.len() >= 20, "only {} samples", bodies.len());
    for (name, body) in bodies {
        // The account that it is a sample of is the one that is asked about.
        let body = Bytes::from(
            String::from_utf8(body.to_vec()).unwrap().replace("d36abc0480a5bd3652a1b711", EXAMPLE_ACCOUNT),
        );
        // Asked for under its own id, so that it is the conversation that was asked for.
        let own_id = serde_json::from_slice::<Value>(&body).unwrap()["_id"].as_str().map(str::to_owned);
        let id = own_id.unwrap_or_else(|| "c-1".to_owned());
        world.standin.serve_body("/", 200, "application/json; charset=utf-8", body.clone());
        let window = r#"{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":-330}"#;
        // Another name each time: what was stored must not answer.
        let call = format!(r#"{{"callId":"{name}"}}"#);
        let window_path = format!("{}?sample={name}", window_path());
        for answer in [
            world.get(&format!("{}?sample={name}", conversation_path(&id))).await,
            world.post(&window_path, window).await,
            world.post(&transcript_path(), call).await,
        ] {
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert_eq!(answer.body, body, "{name}");
            assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
        }
        // And from the store, where it was stored.
        let again = world.post(&window_path, window).await;
        assert_eq!(again.body, body, "{name}");
        world.advance(MINUTE);
    }
    world.assert_no_violations();
}

#[tokio::test]
async fn every_published_request_is_accepted() {
    let world = World::new().await;
    let requests = files(samples(), ".request.json");
    for (name, text) in &requests {
        let sample: Value = serde_json::from_slice(text).unwrap();
        let path = sample["path"].as_str().unwrap();
        let mut segments: Vec<&str> = path.split('/').collect();
        for segment in &mut segments {
            if segment.starts_with("st-") {
                *segment = EXAMPLE_STREAM;
            } else if *segment == "{{accountId}}" || segment.len() == EXAMPLE_ACCOUNT.len() {
                *segment = EXAMPLE_ACCOUNT;
            }
        }
        let query: Vec<_> = sample["query"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap()))
            .collect();
        let method: Method = sample["method"].as_str().unwrap().parse().unwrap();
        let target = format!("{}?{}", segments.join("/"), query.join("&"));
        let mut request = world.request(method, &target, REPORTING);
        for (header, value) in sample["headers"].as_object().unwrap() {
            // Its credential is ours; everything else is sent as the vendor's clients send it.
            if !header.eq_ignore_ascii_case("auth") {
                request = request.header(header, value.as_str().unwrap());
            }
        }
        if !sample["body"].is_null() {
            request = request.body(sample["body"].to_string());
        }
        let answer = got(request).await;
        // The stand-in has none of these conversations; it says so, and that passes through.
        assert!([200, 404].contains(&answer.status.as_u16()), "{name}: {answer:?}");
    }
    assert_eq!(world.standin.count(), requests.len());
    world.assert_no_violations();
}

/// 401 and 429 are between the gateway and the upstream: the caller can do nothing about them.
#[tokio::test]
async fn the_upstreams_errors_pass_through_but_for_those_about_the_gateways_own_standing() {
    let world = World::new().await;
    for (name, text) in files(samples().join("errors"), ".json") {
        let sample: Value = serde_json::from_slice(&text).unwrap();
        let status = u16::try_from(sample["status"].as_u64().unwrap()).unwrap();
        let body = sample["body"].to_string();
        world.standin.serve_body("/", status, "application/json", body.clone());
        let window = r#"{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":0}"#;
        for answer in [
            world.get(&conversation_path("c-1")).await,
            world.post(&window_path(), window).await,
            world.post(&transcript_path(), r#"{"callId":"1"}"#).await,
        ] {
            match status {
                401 => {
                    assert_eq!(answer.status, 502, "{name}");
                    assert_eq!(answer.problem(), "upstream-refused", "{name}");
                }
                429 => {
                    assert_eq!(answer.status, 503, "{name}");
                    assert_eq!(answer.problem(), "temporary-reduced-capacity", "{name}");
                    assert_eq!(answer.header("retry-after"), "60", "{name}");
                }
                _ => {
                    assert_eq!(answer.status.as_u16(), status, "{name}");
                    assert_eq!(answer.body, body, "{name}");
                    let unstored = format!("fwd=uri-miss; fwd-status={status}; stored=?0; detail=status");
                    assert!(answer.cache_status().ends_with(&unstored), "{name}: {}", answer.cache_status());
                }
            }
        }
        world.advance(MINUTE);
    }
}
