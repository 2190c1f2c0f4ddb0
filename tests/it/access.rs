//! Nobody gets an answer that is not theirs: one credential, in one place, and what its client may
//! see. A caller who is turned away costs the upstream nothing.

use http::Method;
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, OTHER_ACCOUNT, OTHER_STREAM};

use crate::world::{
    DAY, NEIGHBOUR, ONE_BOT, REPORTING, World, before, client, conversation_path, got, transcript_path,
    window_path,
};

const WINDOW: &str = r#"{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":0}"#;

fn unauthenticated(world: &World, path: &str) -> reqwest::RequestBuilder {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    client.get(format!("http://{}{path}", world.address))
}

#[tokio::test]
async fn a_key_is_accepted_in_each_of_three_headers() {
    let world = World::new().await;
    let path = conversation_path("c-1");
    for (name, value) in [
        ("authorization", format!("Bearer {REPORTING}")),
        ("authorization", format!("bearer {REPORTING}")),
        ("x-api-key", REPORTING.to_owned()),
        ("auth", REPORTING.to_owned()),
    ] {
        let answer = got(unauthenticated(&world, &path).header(name, value)).await;
        assert_eq!(answer.status, 404, "{name}: {answer:?}");
        // The upstream has an `auth` of its own; the caller's credential is in none of its headers.
        let call = world.standin.calls().pop().unwrap();
        assert!(call.app_id.is_some());
        assert!(!format!("{:?}", call.headers).contains(REPORTING), "{:?}", call.headers);
    }
    world.assert_no_violations();
}

#[tokio::test]
async fn no_unknown_and_wrong_credentials_are_401_and_the_latter_two_the_same_answer() {
    let world = World::new().await;
    let path = conversation_path("c-1");
    let none = got(unauthenticated(&world, &path)).await;
    assert_eq!((none.status.as_u16(), none.problem()), (401, "unauthenticated".to_owned()));
    assert_eq!(none.header("www-authenticate"), r#"Bearer realm="kore-gateway""#);
    assert_eq!(none.json()["errors"][0]["code"], 401);

    let mut answers = Vec::new();
    for (name, value) in [
        ("x-api-key", "kg_unknown"),
        ("x-api-key", "kg_reportinG"),
        ("authorization", "Bearer kg_unknown"),
        ("authorization", "Basic a2dfcmVwb3J0aW5n"),
        ("auth", ""),
    ] {
        let answer =
            got(unauthenticated(&world, &path).header(name, value).header("x-request-id", "r")).await;
        assert_eq!(answer.status, 401, "{name}: {value}");
        answers.push(answer.body);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn two_credentials_at_once_or_one_in_the_url_are_400_and_not_repeated() {
    let world = World::new().await;
    let path = conversation_path("c-1");
    let twice =
        got(unauthenticated(&world, &path).header("x-api-key", REPORTING).header("auth", "kg_second")).await;
    assert_eq!((twice.status.as_u16(), twice.problem()), (400, "invalid-request".to_owned()));
    let same = got(unauthenticated(&world, &path).header("auth", REPORTING).header("auth", REPORTING)).await;
    assert_eq!(same.status, 400);
    for parameter in ["api_key", "access_token", "Auth", "to%6Ben"] {
        let answer = got(unauthenticated(&world, &format!("{path}?{parameter}=kg_reporting"))).await;
        assert_eq!(answer.status, 400, "{parameter}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("kg_reporting"));
    }
    assert!(!String::from_utf8_lossy(&twice.body).contains("kg_"));
    assert_eq!(world.standin.count(), 0);
}

/// Route, account and bot are each denied unless allowed; what nobody configured is the same answer.
#[tokio::test]
async fn what_a_client_may_not_see_and_what_does_not_exist_are_one_403() {
    let world = World::with(|setup| {
        setup.clients = client("no-windows", "kg_no-windows")
            .rate_limit("100/s")
            .toml()
            .replace(r#""conversation", "interaction_details", "#, r#""conversation", "#);
    })
    .await;
    let other_conversation = conversation_path("c-1").replace(EXAMPLE_STREAM, OTHER_STREAM);
    let theirs = window_path().replace(EXAMPLE_ACCOUNT, OTHER_ACCOUNT);
    let nobodys = window_path().replace(EXAMPLE_ACCOUNT, "65269fe0dd9c622245c1cccc");
    let denied = [
        got(world.post_request(&theirs, WINDOW, REPORTING)).await,
        got(world.post_request(&nobodys, WINDOW, REPORTING)).await,
        got(world.request(Method::GET, &other_conversation, ONE_BOT)).await,
        got(world.request(Method::GET, &conversation_path("c-1"), NEIGHBOUR)).await,
        // A client of one bot may not ask for the window of all.
        got(world.post_request(&window_path(), WINDOW, ONE_BOT)).await,
        got(world.post_request(&window_path(), WINDOW, "kg_no-windows")).await,
        // The policy is asked before the body is looked at.
        got(world.post_request(&theirs, "{", REPORTING)).await,
    ];
    for answer in &denied {
        assert_eq!((answer.status.as_u16(), answer.problem()), (403, "forbidden".to_owned()));
        assert_eq!(answer.json()["detail"], denied[0].json()["detail"]);
    }
    assert_eq!(world.standin.count(), 0);
    assert_eq!(got(world.request(Method::GET, &conversation_path("c-1"), "kg_no-windows")).await.status, 404);
    assert_eq!(got(world.post_request(&transcript_path(), r#"{"callId":"1"}"#, ONE_BOT)).await.status, 403);
}

/// Asked for under an own bot, but the answer says that it is another's: only its owners get it,
/// also out of the store.
#[tokio::test]
async fn a_conversation_that_turns_out_to_be_another_bots_is_kept_from_a_client_of_one_bot() {
    let world = World::new().await;
    let foreign = format!(
        r#"{{"_id":"c-1","botId":"{OTHER_STREAM}","status":"CLOSED","endTime":"2026-02-01T00:00:00Z","secret":"x"}}"#
    );
    world.standin.serve_body("/conversations/c-1", 200, "application/json", foreign.clone());
    let path = conversation_path("c-1");
    for _ in 0..2 {
        let denied = got(world.request(Method::GET, &path, ONE_BOT)).await;
        assert_eq!(denied.status, 403);
        assert!(!String::from_utf8_lossy(&denied.body).contains("secret"));
        assert!(!denied.headers.contains_key("etag"));
    }
    assert_eq!(got(world.request(Method::GET, &path, REPORTING)).await.body, foreign);
}

/// What cannot be read does not say whose it is: a client of one bot does not get it, nor does a member
/// of an odd type hide the bot.
#[tokio::test]
async fn a_body_that_does_not_say_whose_it_is_is_kept_from_a_client_of_one_bot() {
    let world = World::new().await;
    let odd = format!(r#"{{"_id":"c-1","botId":"{OTHER_STREAM}","status":1,"endTime":5,"CallIDData":{{}}}}"#);
    let opaque = r#"{"payload":"yF0aQmWv5m1xk1c0nN9s3sYtQ8m6S3Jt"}"#.to_owned();
    for (body, status) in [(odd, 403), (opaque, 502), ("<html>".to_owned(), 502)] {
        world.standin.serve_body("/conversations/", 200, "application/json", body.clone());
        let path = conversation_path("c-1");
        let denied = got(world.request(Method::GET, &path, ONE_BOT)).await;
        assert_eq!(denied.status.as_u16(), status, "{body}");
        assert!(!String::from_utf8_lossy(&denied.body).contains("yF0a"));
        world.advance(crate::world::MINUTE);
        assert_eq!(got(world.request(Method::GET, &path, REPORTING)).await.body, body);
        world.advance(crate::world::MINUTE);
    }
    let other = r#"{"_id":"c-2","status":1,"endTime":5}"#;
    world.standin.serve_body("/conversations/", 200, "application/json", other);
    assert_eq!(got(world.request(Method::GET, &conversation_path("c-1"), REPORTING)).await.status, 502);
}

/// No bot, or one of an odd type, or a success that is no 200 and so is not read: it may be anybody's.
#[tokio::test]
async fn a_conversation_that_names_no_bot_is_kept_from_a_client_of_one_bot() {
    let world = World::new().await;
    let ends = r#""status":"CLOSED","endTime":"2026-02-01T00:00:00Z","secret":"x""#;
    let other = format!(r#"{{"_id":"c-1","botId":"{OTHER_STREAM}",{ends}}}"#);
    for (status, body, refused) in [
        (200, format!(r#"{{"_id":"c-1",{ends}}}"#), 403),
        (200, format!(r#"{{"_id":"c-1","botId":5,{ends}}}"#), 403),
        (200, format!(r#"{{"_id":"c-1","botId":["{EXAMPLE_STREAM}"],{ends}}}"#), 403),
        (200, format!(r#"{{"_id":"c-1","BotId":"{EXAMPLE_STREAM}",{ends}}}"#), 403),
        (200, format!(r#"{{"_id":"c-1","botId":"{EXAMPLE_STREAM}","botId":"{OTHER_STREAM}",{ends}}}"#), 502),
        (201, other.clone(), 502),
        (203, other.clone(), 502),
        (206, other, 502),
    ] {
        world.standin.serve_body("/conversations/", status, "application/json", body.clone());
        let path = conversation_path("c-1");
        for _ in 0..2 {
            let denied = got(world.request(Method::GET, &path, ONE_BOT)).await;
            assert_eq!(denied.status.as_u16(), refused, "{status} {body}");
            assert!(!String::from_utf8_lossy(&denied.body).contains("secret"));
            world.advance(crate::world::MINUTE);
        }
        assert_eq!(got(world.request(Method::GET, &path, REPORTING)).await.body, body);
        world.advance(8 * DAY);
    }
}

/// A bot that an account names is that account's: another account's token is not tried on it.
#[tokio::test]
async fn a_bot_that_another_account_names_is_not_asked_for_with_the_wrong_token() {
    let world = World::new().await;
    let path = conversation_path("c-1").replace(EXAMPLE_STREAM, OTHER_STREAM);
    let answer = got(world.request(Method::GET, &path, REPORTING)).await;
    assert_eq!((answer.status.as_u16(), answer.problem()), (403, "forbidden".to_owned()));
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn two_accounts_never_share_an_entry() {
    let ours = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let mut theirs = Conversation::closed_at(OTHER_STREAM, 2, before(DAY));
    theirs.conversation_id = ours.conversation_id.clone();
    let world = World::of(vec![ours.clone(), theirs]).await;
    let path = conversation_path(&ours.conversation_id);
    let our_answer = got(world.request(Method::GET, &path, REPORTING)).await;
    let their_path = path.replace(EXAMPLE_STREAM, OTHER_STREAM);
    let their_answer = got(world.request(Method::GET, &their_path, NEIGHBOUR)).await;
    assert_eq!(our_answer.json()["botId"], EXAMPLE_STREAM);
    assert_eq!(their_answer.json()["botId"], OTHER_STREAM);
    assert_eq!(world.standin.count(), 2);
    world.assert_no_violations();
}
