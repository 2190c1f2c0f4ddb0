//! One stored answer for all, and each client is shown what its profiles leave of it: under an ETag
//! of its own, every other byte as the upstream spelled it, from the store or past it.

use http::Method;
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault, OTHER_STREAM};

use crate::world::{
    DAY, MINUTE, REPORTING, World, before, change_config, client, conversation_path, got, reload,
    transcript_path, window_path, with_ops_token,
};

const PLAIN: &str = "kg_plain";
const MASKED: &str = "kg_masked";
const MASKED_TOO: &str = "kg_masked-too";
const SEARCHED: &str = "kg_searched";
const OWN_ROWS: &str = "kg_own-rows";

const PROFILES: &str = r#"
[redaction.no-contact-data]
remove = ["/userInfo/ipAddress", "/data/*/customerinfo", "/data/*/metaInfo"]
mask = ["/phoneNumber"]
[redaction.no-numbers]
kinds = ["phone", "card"]
"#;

/// Spelled as no serializer would: order, numbers, escapes, spaces.
const BODY: &str = r#"{ "_id":"c-1", "status":"CLOSED","endTime":"2026-02-01T00:00:00Z", "priority":5.0e0,
  "userInfo":{"city":"M\u00fcnchen","ipAddress":"203.0.113.69"},"phoneNumber":"+15550599716"}"#;
const SHOWN: &str = r#"{ "_id":"c-1", "status":"CLOSED","endTime":"2026-02-01T00:00:00Z", "priority":5.0e0,
  "userInfo":{"city":"M\u00fcnchen"},"phoneNumber":"***"}"#;

const WINDOW: &str = r#"{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":0}"#;

async fn world() -> World {
    let world = World::with(|setup| {
        with_ops_token(setup);
        setup.config.push_str(PROFILES);
        let mut add = |name: &str, key: &str, bots: &str, more: &str| {
            setup.clients.push_str(&client(name, key).bots(bots).toml());
            setup.clients.push_str(&format!("{more}\n"));
        };
        add("plain", PLAIN, "*", "");
        add("masked", MASKED, "*", "redact = [\"no-contact-data\"]");
        add("masked-too", MASKED_TOO, "*", "redact = [\"no-contact-data\"]");
        add("searched", SEARCHED, "*", "redact = [\"no-numbers\", \"no-contact-data\"]");
        add("own-rows", OWN_ROWS, EXAMPLE_STREAM, "filter_rows = true");
    })
    .await;
    world.standin.serve_body("/conversations/c-1", 200, "application/json", BODY);
    world
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

#[tokio::test]
async fn one_stored_answer_serves_every_view_and_each_has_its_own_etag() {
    let world = world().await;
    let path = conversation_path("c-1");
    let masked = got(world.request(Method::GET, &path, MASKED)).await;
    assert_eq!(text(&masked.body), SHOWN);
    let plain = got(world.request(Method::GET, &path, PLAIN)).await;
    assert_eq!(text(&plain.body), BODY);
    let again = got(world.request(Method::GET, &path, MASKED_TOO)).await;
    assert_eq!(text(&again.body), SHOWN);
    assert!(plain.is_hit() && again.is_hit());
    assert_eq!(world.standin.count(), 1);

    assert_ne!(plain.header("etag"), masked.header("etag"));
    assert_eq!(again.header("etag"), masked.header("etag"));
    assert_eq!(again.header("content-length"), SHOWN.len().to_string());
    for (key, etag, status) in [
        (MASKED, masked.header("etag"), 304),
        (PLAIN, plain.header("etag"), 304),
        // The tag of a view that is not one's own proves nothing.
        (MASKED, plain.header("etag"), 200),
        (PLAIN, masked.header("etag"), 200),
    ] {
        let answer = got(world.request(Method::GET, &path, key).header("if-none-match", etag)).await;
        assert_eq!(answer.status, status);
    }
    let head = got(world.request(Method::HEAD, &path, MASKED)).await;
    assert_eq!(head.header("content-length"), SHOWN.len().to_string());
}

#[tokio::test]
async fn views_are_kept_with_the_answer_and_counted_in_its_bytes() {
    let world = world().await;
    let path = conversation_path("c-1");
    got(world.request(Method::GET, &path, PLAIN)).await;
    let (entries, bytes) =
        (world.metric("kore_gateway_cache_entries").await, world.metric("kore_gateway_cache_bytes").await);
    assert_eq!(entries, 1.0);
    for key in [MASKED, MASKED_TOO, MASKED] {
        assert_eq!(text(&got(world.request(Method::GET, &path, key)).await.body), SHOWN);
    }
    assert_eq!(world.metric("kore_gateway_cache_entries").await, 2.0, "equal views are one");
    let more = world.metric("kore_gateway_cache_bytes").await - bytes;
    #[expect(clippy::cast_precision_loss, reason = "some hundred bytes")]
    let least = SHOWN.len() as f64;
    assert!(more > least && more < least + 2000.0, "{more}");
}

#[tokio::test]
async fn a_new_answer_is_shown_anew() {
    let world = world().await;
    let path = conversation_path("c-1");
    let old = got(world.request(Method::GET, &path, MASKED)).await;
    world.standin.serve_body("/conversations/c-1", 200, "application/json", BODY.replace("5.0e0", "6"));
    world.advance(8 * DAY);
    let new = got(world.request(Method::GET, &path, MASKED)).await;
    assert_eq!(text(&new.body), SHOWN.replace("5.0e0", "6"));
    assert_ne!(new.header("etag"), old.header("etag"));
    assert_eq!(new.header("age"), "0");

    world.advance(8 * DAY);
    let same = got(world.request(Method::GET, &path, MASKED)).await;
    assert_eq!(
        (same.header("etag"), same.header("age")),
        (new.header("etag"), "0"),
        "as old as what it shows"
    );
}

#[tokio::test]
async fn a_reload_changes_what_is_shown_of_what_is_stored() {
    let world = world().await;
    let path = conversation_path("c-1");
    assert_eq!(text(&got(world.request(Method::GET, &path, PLAIN)).await.body), BODY);
    change_config(&world, |written| {
        written.replace("name = \"plain\"", "name = \"plain\"\nredact = [\"no-contact-data\"]")
    });
    assert_eq!(reload(&world).await.status, 200);
    let after = got(world.request(Method::GET, &path, PLAIN)).await;
    assert!(after.is_hit());
    assert_eq!(text(&after.body), SHOWN);
}

#[tokio::test]
async fn free_text_of_transcripts_is_searched_for_the_kinds_that_are_on() {
    let world = world().await;
    let body = r#"{"conversationInfo":{"sessionId":"s-1","callId":"15550599716"},"conversationHistory":[
        {"createdOn":"2023-08-07T11:18:10.337Z","components":[{"data":{"text":"it is 4111 1111 1111 1111, call +1 555 059 9716 or a@b.example"}}]}],
        "summary":{"ConversationSummary":"Card 4111111111111111."}}"#;
    world.standin.serve_body("/conversationDetails", 200, "application/json", body);
    let asked = r#"{"callId":"15550599716"}"#;
    let shown = got(world.post_request(&transcript_path(), asked, SEARCHED)).await;
    let expected = body
        .replace("4111 1111 1111 1111", "***")
        .replace("+1 555 059 9716", "***")
        .replace("4111111111111111", "***");
    assert_eq!(text(&shown.body), expected, "ids, times and what is switched off stay");
    assert_eq!(text(&got(world.post_request(&transcript_path(), asked, PLAIN)).await.body), body);
}

#[tokio::test]
async fn a_client_of_one_bot_gets_its_own_rows_of_a_whole_accounts_window() {
    let world = world().await;
    let row = |bot: &str, id: u8| {
        format!(
            r#"{{"sessionId":"s{id}","botId":"{bot}","finalStatus":"CLOSED","sessionEndTime":"2026-02-17T00:00:00"}}"#
        )
    };
    let (own, other, last) = (row(EXAMPLE_STREAM, 1), row(OTHER_STREAM, 2), row(EXAMPLE_STREAM, 3));
    let body = format!(r#"{{"numResults":3,"data":[{own},{other},{last}]}}"#);
    world.standin.serve_body("/interactionDetails", 200, "application/json", body.clone());
    let shown = got(world.post_request(&window_path(), WINDOW, OWN_ROWS)).await;
    assert_eq!(text(&shown.body), format!(r#"{{"numResults":2,"data":[{own},{last}]}}"#));
    assert_eq!(text(&got(world.post_request(&window_path(), WINDOW, REPORTING)).await.body), body);
    assert_eq!(world.standin.count(), 1);
}

/// Whether another bot's row goes on is not told: neither by why the window is not stored, nor by whether it may be kept.
#[tokio::test]
async fn what_is_said_about_a_window_is_said_about_the_rows_that_are_shown() {
    let world = world().await;
    let row = |bot: &str, id: u8, status: &str| {
        format!(
            r#"{{"sessionId":"s{id}","botId":"{bot}","finalStatus":"{status}","sessionEndTime":"2026-02-17T00:00:00"}}"#
        )
    };
    for (own, other, detail, control) in [
        ("CLOSED", "OPEN", "not-stored", "private, no-cache"),
        ("OPEN", "CLOSED", "live", "private, no-store"),
        ("OPEN", "OPEN", "live", "private, no-store"),
    ] {
        let (own, other) = (row(EXAMPLE_STREAM, 1, own), row(OTHER_STREAM, 2, other));
        let body = format!(r#"{{"numResults":2,"data":[{own},{other}]}}"#);
        world.standin.serve_body("/interactionDetails", 200, "application/json", body);
        for _ in 0..2 {
            let shown = got(world.post_request(&window_path(), WINDOW, OWN_ROWS)).await;
            assert!(shown.cache_status().ends_with(&format!("stored=?0; detail={detail}")), "{shown:?}");
            assert_eq!(shown.header("cache-control"), control);
        }
        let all = got(world.post_request(&window_path(), WINDOW, REPORTING)).await;
        assert!(all.cache_status().ends_with("stored=?0; detail=live"), "{all:?}");
    }
}

/// For how long the window is kept goes by the rows of all bots.
#[tokio::test]
async fn how_long_a_window_is_kept_is_not_told_to_whom_some_rows_are_shown() {
    let world = world().await;
    let row = |bot: &str, id: u8| {
        format!(
            r#"{{"sessionId":"s{id}","botId":"{bot}","finalStatus":"CLOSED","sessionEndTime":"2026-02-17T00:00:00"}}"#
        )
    };
    let body = format!(r#"{{"numResults":2,"data":[{},{}]}}"#, row(EXAMPLE_STREAM, 1), row(OTHER_STREAM, 2));
    world.standin.serve_body("/interactionDetails", 200, "application/json", body);
    assert!(
        got(world.post_request(&window_path(), WINDOW, OWN_ROWS)).await.cache_status().ends_with("; stored")
    );
    let hit = got(world.post_request(&window_path(), WINDOW, OWN_ROWS)).await;
    assert_eq!(hit.cache_status(), "kore-gateway; hit");
    assert!(got(world.post_request(&window_path(), WINDOW, REPORTING)).await.is_hit());
    world.standin.fault(Some(Fault::Reset));
    world.advance(27 * 60 * MINUTE);
    let stale = got(world.post_request(&window_path(), WINDOW, OWN_ROWS)).await;
    assert_eq!(stale.cache_status(), "kore-gateway; hit; detail=stale-if-error");
}

/// What cannot be looked into cannot be shown; who may see everything gets it as it is.
#[tokio::test]
async fn what_is_no_json_is_a_502_to_whom_something_is_kept_from() {
    let world = world().await;
    for (id, status, body, shown, problem) in [
        ("c-2", 200, "ZW5jcnlwdGVk", 502, "upstream-invalid"),
        ("c-3", 500, "<html>+15550599716</html>", 500, "upstream-error"),
        ("c-4", 404, "{\"phoneNumber\":", 404, "upstream-error"),
    ] {
        world.standin.serve_body(&format!("/conversations/{id}"), status, "text/plain", body);
        let path = conversation_path(id);
        let kept = got(world.request(Method::GET, &path, MASKED)).await;
        assert_eq!((kept.status.as_u16(), kept.problem()), (shown, problem.to_owned()), "{id}");
        assert!(!text(&kept.body).contains(body), "{id}");
        assert_eq!(text(&got(world.request(Method::GET, &path, PLAIN)).await.body), body, "{id}");
    }
    let unknown = got(world.request(Method::GET, &conversation_path("c-5"), MASKED)).await;
    assert_eq!((unknown.status.as_u16(), unknown.problem()), (404, "upstream-error".to_owned()));
}

#[tokio::test]
async fn an_answer_too_large_to_look_into_is_a_502_to_whom_something_is_kept_from() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).padded(100_000);
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation];
        setup.config = format!("upstream.max_body = \"50KiB\"\n{PROFILES}");
        setup.clients =
            client("masked", MASKED).rate_limit("100/s").toml() + "redact = [\"no-contact-data\"]\n";
    })
    .await;
    let answer = got(world.request(Method::GET, &path, MASKED)).await;
    assert_eq!((answer.status.as_u16(), answer.problem()), (502, "upstream-invalid".to_owned()));
}

#[tokio::test]
async fn a_live_answer_and_a_stale_one_are_redacted_like_any_other() {
    let world = world().await;
    let live = BODY.replace("CLOSED", "ACTIVE");
    world.standin.serve_body("/conversations/c-1", 200, "application/json", live);
    let path = conversation_path("c-1");
    for calls in [1, 2] {
        let shown = got(world.request(Method::GET, &path, MASKED)).await;
        assert_eq!(text(&shown.body), SHOWN.replace("CLOSED", "ACTIVE"));
        assert_eq!(world.standin.count(), calls);
    }
    assert_eq!(world.metric("kore_gateway_cache_entries").await, 0.0);

    // Later: what was seen live in the same moment is not over.
    world.advance(MINUTE);
    world.standin.serve_body("/conversations/c-1", 200, "application/json", BODY);
    assert_eq!(text(&got(world.request(Method::GET, &path, PLAIN)).await.body), BODY);
    world.standin.fault(Some(Fault::Reset));
    world.advance(27 * 60 * MINUTE);
    let stale = got(world.request(Method::GET, &path, MASKED)).await;
    assert!(stale.cache_status().contains("stale-if-error"), "{}", stale.cache_status());
    assert_eq!(text(&stale.body), SHOWN);
}
