//! Only a complete 200 of the expected shape, about what was asked for, is stored. Everything else
//! is passed on or refused, and asked for again by the next one.

use http::StatusCode;
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault};
use serde_json::json;

use crate::world::{DAY, Got, MINUTE, World, before, conversation_path, transcript_path, window_path};

fn settled() -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, 1, before(2 * DAY))
}

/// A world that knows that the conversation is over, so that only what is wrong with the answer can
/// keep it from being stored.
async fn world() -> World {
    let world = World::with(|setup| {
        setup.standin.conversations = vec![settled()];
        setup.without_quota = true;
        setup.config = "upstream.breaker.failures = 1000000".to_owned();
    })
    .await;
    world.get(&format!("{}?limit=9", conversation_path(&settled().conversation_id))).await;
    world.standin.forget();
    world
}

const ROUTES: [&str; 4] = ["conversation", "window", "transcript", "transcript by conversation"];

async fn ask(world: &World, route: &str) -> Got {
    let window = json!({ "startDate": "2026-02-28", "endDate": "2026-02-28", "timeZoneOffset": 0 });
    match route {
        "conversation" => world.get(&conversation_path(&settled().conversation_id)).await,
        "window" => world.post(&window_path(), window).await,
        "transcript" => world.post(&transcript_path(), json!({ "sessionId": settled().session_id })).await,
        _ => world.post(&transcript_path(), json!({ "conversationId": settled().conversation_id })).await,
    }
}

#[tokio::test]
async fn what_is_no_good_is_passed_on_or_refused_and_never_stored() {
    let passed_on = |reason: &str| (200, format!("stored=?0; detail={reason}"));
    let refused = || (502, String::new());
    for route in ROUTES {
        for (fault, (status, cache_status)) in [
            (Fault::TruncatedJson, refused()),
            (Fault::CutBody, refused()),
            (Fault::ResetInBody, refused()),
            (Fault::CloseDelimitedCut, refused()),
            (Fault::Empty200, refused()),
            (Fault::Redirect("http://127.0.0.1:9/".to_owned()), refused()),
            (Fault::Html200, passed_on("unexpected-shape")),
            (Fault::ErrorEnvelope200, passed_on("unexpected-shape")),
            (Fault::Opaque200, passed_on("unexpected-shape")),
            (
                Fault::OtherConversation200,
                if ["conversation", "transcript"].contains(&route) {
                    refused()
                } else {
                    passed_on("unproven-identity")
                },
            ),
        ] {
            let world = world().await;
            world.standin.fault(Some(fault.clone()));
            for calls in 1..=2 {
                let got = ask(&world, route).await;
                assert_eq!(got.status.as_u16(), status, "{route} {fault:?}");
                assert!(
                    got.cache_status().ends_with(&cache_status),
                    "{route} {fault:?} {}",
                    got.cache_status()
                );
                assert_eq!(got.cache_status().is_empty(), status == 502);
                assert!(world.standin.count() >= calls, "{route} {fault:?}");
            }
            assert_eq!(world.app.cache.size().0, 1, "{route} {fault:?}: only what was there before");
            world.standin.clear_faults();
            assert!(ask(&world, route).await.cache_status().ends_with("; stored"), "{route} {fault:?}");
            assert!(ask(&world, route).await.is_hit());
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_at_any_byte_is_never_stored() {
    for (route, path) in [
        ("conversation", "/conversations/"),
        ("window", "interactionDetails"),
        ("transcript", "conversationDetails"),
    ] {
        let world = world().await;
        let whole = ask(&self::world().await, route).await.body;
        for length in 0..whole.len() {
            world.standin.serve_body(path, 200, "application/json", whole.slice(..length));
            let got = ask(&world, route).await;
            assert_eq!((got.status, got.problem().as_str()), (StatusCode::BAD_GATEWAY, "upstream-invalid"));
        }
        assert_eq!(world.standin.count(), whole.len());
        assert_eq!(world.app.cache.size().0, 1);
        world.standin.serve_body(path, 200, "application/json", whole.clone());
        assert!(ask(&world, route).await.cache_status().ends_with("; stored"), "{route}");
    }
}

/// Found by fuzzing: a string that nobody looks into may hold bytes that are no text, and then the body is
/// no JSON (RFC 8259 §8.1).
#[tokio::test]
async fn a_body_that_is_no_utf8_is_passed_on_and_never_stored() {
    for (route, path) in [
        ("conversation", "/conversations/"),
        ("window", "interactionDetails"),
        ("transcript", "conversationDetails"),
    ] {
        let world = world().await;
        let whole = ask(&self::world().await, route).await.body;
        let end = whole.iter().rposition(|byte| *byte == b'}').unwrap();
        let with = |string: &[u8]| [&whole[..end], b",\"more\":\"", string, b"\"}"].concat();
        world.standin.serve_body(path, 200, "application/json", with(b"a \xbc b"));
        let got = ask(&world, route).await;
        assert_eq!(got.body, with(b"a \xbc b"), "{route}");
        assert!(got.cache_status().ends_with("stored=?0; detail=unexpected-shape"), "{}", got.cache_status());
        assert_eq!(world.app.cache.size().0, 1, "{route}");
        world.standin.serve_body(path, 200, "application/json", with("a ¼ b".as_bytes()));
        assert!(ask(&world, route).await.cache_status().ends_with("; stored"), "{route}");
    }
}

/// Found by fuzzing: JSON bounds neither a number nor the nesting (RFC 8259 §6, §9), so what the gateway does
/// not look into may hold what no float and no parser's stack does.
#[tokio::test]
async fn a_number_beyond_any_float_and_a_deep_list_are_stored_to_the_byte() {
    for (route, path) in [
        ("conversation", "/conversations/"),
        ("window", "interactionDetails"),
        ("transcript", "conversationDetails"),
    ] {
        let whole = ask(&world().await, route).await.body;
        let end = whole.iter().rposition(|byte| *byte == b'}').unwrap();
        for more in ["2e22222222".to_owned(), "[".repeat(1000) + &"]".repeat(1000)] {
            let world = world().await;
            let body = [&whole[..end], b",\"more\":", more.as_bytes(), b"}"].concat();
            world.standin.serve_body(path, 200, "application/json", body.clone());
            let got = ask(&world, route).await;
            assert!(got.cache_status().ends_with("; stored"), "{route}: {}", got.cache_status());
            let again = ask(&world, route).await;
            assert!(again.cache_status().contains("; hit;"), "{route}: {}", again.cache_status());
            assert!(got.body == body && again.body == body, "{route}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_does_not_push_out_what_is_stored() {
    let world = world().await;
    ask(&world, "conversation").await;
    world.advance(3 * DAY);
    for fault in [Fault::Html200, Fault::Opaque200, Fault::Status(500)] {
        world.standin.fault_next(1, fault);
        assert!(ask(&world, "conversation").await.cache_status().ends_with("stale-if-error"));
        world.advance(MINUTE);
    }
}
