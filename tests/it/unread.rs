//! A client that may not see everything gets what was read, and nothing else: no other shape, no error's body, nothing
//! that is another account's or repeats a credential.

use http::Method;
use kore_gateway::cache::Purge;
use kore_gateway::routes::{ROUTES, Route, RouteName};
use kore_standin::{EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault, OTHER_ACCOUNT};

use crate::world::{
    Got, MINUTE, REPORTING, World, client, conversation_path, got, transcript_path, window_path,
};

const REDACTED: &str = "kg_redacted";
const LIMITED: &str = "kg_limited";
const FILTERED: &str = "kg_filtered";
const CANARY: &str = "+15550599716";

async fn world() -> World {
    World::with(|setup| {
        setup.without_quota = true;
        setup.accounts = "unproven_sessions = \"pass\"".to_owned();
        setup.config =
            "[redaction.no-phones]\nmask = [\"/phoneNumber\", \"/data/*/phoneNumber\"]\n".to_owned();
        setup.clients = client("redacted", REDACTED).rate_limit("100000/min").toml()
            + "redact = [\"no-phones\"]\n"
            + &client("limited", LIMITED).bots(EXAMPLE_STREAM).rate_limit("100000/min").toml()
            + &client("filtered", FILTERED).bots(EXAMPLE_STREAM).rate_limit("100000/min").toml()
            + "filter_rows = true\n";
    })
    .await
}

/// A path, a body and an answer with the canary in it, for each route.
fn example(route: &Route) -> (String, &'static str, String) {
    let ended = r#""status":"CLOSED","endTime":"2026-02-01T00:00:00Z""#;
    let row = r#""sessionId":"s-1","finalStatus":"CLOSED","sessionEndTime":"2026-02-17T00:00:00""#;
    let phone = format!(r#""phoneNumber":"{CANARY}""#);
    match route.name {
        RouteName::Conversation => (
            conversation_path("c-1"),
            "",
            format!(r#"{{"_id":"c-1","botId":"{EXAMPLE_STREAM}",{ended},{phone}}}"#),
        ),
        RouteName::InteractionDetails => (
            window_path(),
            r#"{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":0}"#,
            format!(r#"{{"numResults":1,"data":[{{"botId":"{EXAMPLE_STREAM}",{row},{phone}}}]}}"#),
        ),
        RouteName::ConversationDetails => (
            transcript_path(),
            r#"{"sessionId":"s-1"}"#,
            format!(r#"{{"conversationInfo":{{"sessionId":"s-1"}},"conversationHistory":[],{phone}}}"#),
        ),
    }
}

fn may_ask(route: &Route, key: &str) -> bool {
    key != LIMITED || route.name != RouteName::InteractionDetails
}

async fn ask(world: &World, route: &Route, key: &str) -> Got {
    let (path, body, _) = example(route);
    // What failed before is not waited for.
    world.advance(MINUTE);
    got(world.request(route.method.clone(), &path, key).body(body)).await
}

fn has_canary(answer: &Got) -> bool {
    answer.body.windows(CANARY.len()).any(|bytes| bytes == CANARY.as_bytes())
}

#[tokio::test]
async fn another_shape_or_another_success_is_a_502_to_whoever_may_not_see_everything() {
    let world = world().await;
    for route in &ROUTES {
        let (_, _, right) = example(route);
        let shapes = [
            (200, format!("[{right}]")),
            (200, format!(r#"{{"data":{right}}}"#)),
            (200, format!(r#"{{"conversations":[{right}]}}"#)),
            (200, format!(r#"{{"payload":"{CANARY}"}}"#)),
            (200, format!(r#"{{"numResults":1,"data":[{{"row":{right}}}]}}"#)),
            (200, format!("\"{CANARY}\"")),
            (201, right.clone()),
            (202, right.clone()),
            (203, right.clone()),
            (206, right.clone()),
            (299, right.clone()),
        ];
        for (status, body) in shapes {
            world.standin.serve_body("/", status, "application/json", body.clone());
            for key in [REDACTED, LIMITED, FILTERED].into_iter().filter(|key| may_ask(route, key)) {
                let answer = ask(&world, route, key).await;
                let told = (answer.status.as_u16(), answer.problem(), has_canary(&answer));
                assert_eq!(told, (502, "upstream-invalid".to_owned(), false), "{key} {status} {body}");
            }
            let answer = ask(&world, route, REPORTING).await;
            assert_eq!(answer.status.as_u16(), status, "{body}: {answer:?}");
            assert_eq!(answer.body, body);
        }
    }
}

/// A right answer may hold more than the vendor lists: nobody has said what stands there, and no pointer finds it.
#[tokio::test]
async fn what_nobody_has_listed_is_not_shown_to_whom_something_is_kept_from() {
    let world = world().await;
    for route in &ROUTES {
        let (_, _, right) = example(route);
        let text = serde_json::to_string(&right).unwrap();
        let starts: &[&str] = match route.name {
            RouteName::Conversation => &["{"],
            RouteName::InteractionDetails => &["{", "[{"],
            RouteName::ConversationDetails => &["{", "Info\":{", "[{"],
        };
        // A message for the transcript.
        let right = right.replace("History\":[]", "History\":[{\"type\":\"outgoing\"}]");
        for start in starts {
            for extra in [
                format!(r#""record":{right}"#),
                format!(r#""records":[{right}]"#),
                format!(r#""payload":{text}"#),
                format!(r#""note":"call {CANARY}""#),
                format!(r#""\u0072ecord":{{"data":{right}}}"#),
                format!(r#""{CANARY}":1"#),
            ] {
                let body = right.replacen(start, &format!("{start}{extra},"), 1);
                assert!(body.len() > right.len(), "{body}");
                world.standin.serve_body("/", 200, "application/json", body.clone());
                for key in [REDACTED, FILTERED] {
                    let is_shown_part = key == REDACTED || route.name == RouteName::InteractionDetails;
                    let answer = ask(&world, route, key).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let shown = String::from_utf8_lossy(&answer.body);
                    let expected = if key == REDACTED { masked(&right) } else { listed(&right) };
                    assert!(!is_shown_part || shown == expected, "{key}: {shown}\n{body}");
                }
                assert_eq!(ask(&world, route, REPORTING).await.body, body);
                world.app.cache.purge(Purge::All);
            }
        }
    }
}

/// What the profile leaves of an example.
fn masked(right: &str) -> String {
    right.replace(CANARY, "***")
}

/// What is left of it where no profile names the number, which rows do not have.
fn listed(right: &str) -> String {
    right.replace(&format!(r#","phoneNumber":"{CANARY}""#), "")
}

#[tokio::test]
async fn an_errors_body_goes_only_to_whoever_may_see_everything() {
    let world = world().await;
    for route in &ROUTES {
        for status in [400, 404, 409, 412, 422, 500, 501] {
            let body = format!(r#"{{"errors":[{{"msg":"no such number: {CANARY}"}}]}}"#);
            world.standin.serve_body("/", status, "application/json", body.clone());
            for key in [REDACTED, LIMITED, FILTERED].into_iter().filter(|key| may_ask(route, key)) {
                let answer = ask(&world, route, key).await;
                let is_hidden =
                    key != REDACTED && route.name != RouteName::InteractionDetails && status < 500;
                // Whether another bot's record exists is not told either.
                let expected = if is_hidden { (403, "forbidden") } else { (status, "upstream-error") };
                let told = (answer.status.as_u16(), answer.problem());
                assert_eq!(told, (expected.0, expected.1.to_owned()), "{key} {status}");
                assert!(!has_canary(&answer));
            }
            let answer = ask(&world, route, REPORTING).await;
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (status, body.as_bytes()));
        }
    }
}

#[tokio::test]
async fn an_answer_of_another_account_is_nobodys_counted_and_not_stored() {
    let world = world().await;
    for route in &ROUTES {
        let (_, _, right) = example(route);
        let foreign = format!(r#""accountId":"{OTHER_ACCOUNT}","#);
        let at_the_top = right.replacen('{', &format!("{{{foreign}"), 1);
        let further_down = match route.name {
            RouteName::Conversation => None,
            RouteName::InteractionDetails => Some(right.replacen(r#"[{"#, &format!("[{{{foreign}"), 1)),
            RouteName::ConversationDetails => {
                Some(right.replacen(r#""sessionId""#, &format!(r#"{foreign}"sessionId""#), 1))
            }
        };
        let own = at_the_top.replace(OTHER_ACCOUNT, EXAMPLE_ACCOUNT);
        // Also in a shape that nobody reads, which whoever may see everything would get.
        let wrapped = [format!("[{at_the_top}]"), format!(r#"{{"result":{at_the_top}}}"#)];
        let metric = format!(
            "kore_gateway_upstream_withheld_total{{route=\"{}\",reason=\"another-account\"}}",
            route.name.as_str()
        );
        let mut counted = 0.0;
        for body in [Some(at_the_top), further_down].into_iter().flatten().chain(wrapped) {
            world.standin.serve_body("/", 200, "application/json", body.clone());
            for key in [REPORTING, REPORTING, REDACTED] {
                let before = world.standin.count();
                let answer = ask(&world, route, key).await;
                assert_eq!((answer.status.as_u16(), has_canary(&answer)), (502, false), "{key} {body}");
                assert_eq!(world.standin.count() - before, 1, "it is not stored");
                counted += 1.0;
                assert_eq!(world.metric(&metric).await, counted);
            }
        }
        world.standin.serve_body("/", 200, "application/json", own);
        assert_eq!(ask(&world, route, REPORTING).await.status, 200);
    }
}

/// An account is told as a text. Whatever else stands in its place does not say that it is this one.
#[tokio::test]
async fn an_account_that_is_no_text_is_another_one() {
    let world = world().await;
    for route in &ROUTES {
        let (_, _, right) = example(route);
        for account in ["7", "1e3", "null", "true", "{}", &format!("[\"{EXAMPLE_ACCOUNT}\"]"), "\"\""] {
            let member = format!(r#""accountId":{account},"#);
            let at_the_top = right.replacen('{', &format!("{{{member}"), 1);
            let mut bodies = vec![at_the_top.clone(), format!(r#"{{"result":{at_the_top}}}"#)];
            match route.name {
                RouteName::Conversation => {}
                RouteName::InteractionDetails => {
                    bodies.push(right.replacen("[{", &format!("[{{{member}"), 1));
                }
                RouteName::ConversationDetails => {
                    bodies.push(right.replacen(r#""sessionId""#, &format!(r#"{member}"sessionId""#), 1));
                }
            }
            for body in bodies {
                world.standin.serve_body("/", 200, "application/json", body.clone());
                for _ in 0..2 {
                    let answer = ask(&world, route, REPORTING).await;
                    let told = (answer.status.as_u16(), answer.problem(), has_canary(&answer));
                    assert_eq!(told, (502, "upstream-invalid".to_owned(), false), "{body}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_answer_whose_type_repeats_the_token_goes_to_nobody_however_large_it_is() {
    let world = World::with(|setup| setup.config = "upstream.max_body = \"1KiB\"".to_owned()).await;
    for (n, length) in [(1.0, 100), (2.0, 100_000)] {
        world.standin.fault_next(1, Fault::TokenInType(length));
        world.advance(MINUTE);
        let answer = world.get(&conversation_path("c-1")).await;
        assert_eq!(answer.status, 502, "{length}");
        assert!(!answer.header("content-type").contains("a="), "{answer:?}");
        let metric = "kore_gateway_upstream_withheld_total{route=\"conversation\",reason=\"token\"}";
        assert_eq!(world.metric(metric).await, n);
    }
}

#[tokio::test]
async fn a_body_that_repeats_the_token_that_was_sent_goes_to_nobody() {
    let world = world().await;
    for status in [200, 400, 404, 500] {
        for key in [REPORTING, REDACTED] {
            world.standin.fault_next(1, Fault::EchoedToken(status));
            world.advance(MINUTE);
            let answer = got(world.request(Method::GET, &conversation_path("c-1"), key)).await;
            assert_eq!(answer.status, 502, "{status} {answer:?}");
            assert!(!String::from_utf8_lossy(&answer.body).contains("eyJ"), "{answer:?}");
        }
    }
    let metric = "kore_gateway_upstream_withheld_total{route=\"conversation\",reason=\"token\"}";
    assert_eq!(world.metric(metric).await, 8.0);
}
