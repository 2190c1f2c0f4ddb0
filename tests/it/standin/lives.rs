//! Conversations live on the clock, in all three routes alike: contract §3, §5, §6.

use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, OTHER_STREAM, OverLimit};
use serde_json::{Value, json};

use super::{MINUTE, NOW, World, conversation_path, error, live, signed};

#[tokio::test]
async fn a_conversation_lives_on_the_clock_in_all_three_routes() {
    let start = NOW + MINUTE;
    let end = start + 10 * MINUTE;
    let record = Conversation::live(EXAMPLE_STREAM, 1, start)
        .ends_at(end)
        .surveyed_at(end + 5 * MINUTE, 4)
        .deleted_at(end + 30 * MINUTE)
        .with_messages(5);
    let id = record.conversation_id.clone();
    let world = World::with(vec![record]).await;
    // after …: E1 status, has endTime, dispositions; E2 finalStatus, after-call work, survey;
    // E3 messages.
    for (at, seconds_of_update, status, ended, wrapped, row_status, survey, messages) in [
        (start, 0, "OPEN", false, false, "TRANSIENT_OPEN", false, 1),
        (start + 5_000, 5, "ACTIVE", false, false, "TRANSIENT_OPEN", false, 1),
        (start + 45_000, 5, "ACTIVE", false, false, "TRANSIENT_OPEN", false, 4),
        (end, 5, "ACTIVE", true, false, "TRANSIENT_OPEN", false, 5),
        (end + 10_000, 610, "CLOSED", true, false, "CLOSED", false, 5),
        (end + 40_000, 640, "CLOSED", true, true, "CLOSED", false, 5),
        (end + 5 * MINUTE, 640, "CLOSED", true, true, "CLOSED", true, 5),
    ] {
        world.standin.clock().set_ms(at);
        let body = world.conversation(&id).await.body;
        assert_eq!(body["status"], status, "{at}");
        assert_eq!(body.get("endTime").is_some(), ended, "{at}");
        assert_eq!(body.get("dispositions").is_some(), wrapped, "{at}");
        assert_eq!(body["queues"][0]["status"], "ACTIVE", "nested, and never to be believed");
        let updated: jiff::Timestamp = body["updatedAt"].as_str().unwrap().parse().unwrap();
        assert_eq!(updated.as_second() - start / 1_000, seconds_of_update, "{at}");
        let row = &world.rows(json!({})).await[0];
        assert_eq!(row["finalStatus"], row_status, "{at}");
        assert!(row["sessionEndTime"].is_string(), "live rows have one, too");
        assert_eq!(row.get("csatScore").is_some(), survey, "{at}");
        let agent = &row["destinations"][0]["respondingAgent"];
        assert_eq!(agent.get("afterCallWorkDuration").is_some(), wrapped, "{at}");
        let history = &world.transcript(json!({"conversationId": id})).await.body;
        let shown = history["conversationHistory"].as_array().unwrap().len();
        assert_eq!(shown, messages, "{at}");
    }
    for nowhere in [NOW, end + 30 * MINUTE] {
        world.standin.clock().set_ms(nowhere);
        let answer = world.conversation(&id).await;
        assert_eq!((answer.status, answer.body), (404, error("Conversation not found", 404)));
        assert!(world.rows(json!({})).await.is_empty());
        let answer = world.transcript(json!({"conversationId": id})).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body["conversationInfo"], json!({}));
    }
    assert_eq!(world.standin.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_closed_conversation_can_be_reopened_and_statuses_can_be_strange() {
    let closed = || Conversation::closed_at(EXAMPLE_STREAM, 1, NOW);
    let id = closed().conversation_id;
    let world = World::with(vec![closed()]).await;
    for (record, status, row_status) in [
        (closed(), json!("CLOSED"), json!("CLOSED")),
        (closed().reopened_at(NOW), json!("ACTIVE"), json!("TRANSIENT_OPEN")),
        (
            closed().with_status("PARKED").with_final_status("Transferred"),
            json!("PARKED"),
            json!("Transferred"),
        ),
        (closed().without_status().without_final_status(), json!(null), json!(null)),
    ] {
        world.standin.put(record);
        assert_eq!(world.conversation(&id).await.body["status"], status);
        let rows = world.rows(json!({})).await;
        assert_eq!((rows.len(), &rows[0]["finalStatus"]), (1, &row_status));
    }
}

#[tokio::test]
async fn a_session_without_an_agent_has_a_row_and_a_transcript_but_no_conversation() {
    let record = Conversation::closed_at(EXAMPLE_STREAM, 1, NOW).without_agent();
    let (id, session) = (record.conversation_id.clone(), record.session_id.clone());
    let world = World::with(vec![record]).await;
    assert_eq!(world.conversation(&id).await.status, 404);
    assert_eq!(world.rows(json!({})).await[0]["finalStatus"], "BotResolved");
    let info = &world.transcript(json!({"sessionId": session})).await.body["conversationInfo"];
    assert_eq!((&info["sessionId"], info.get("agentHandOffTime")), (&json!(session), None));
}

#[test]
fn the_same_arguments_make_the_same_record_and_its_session_id_carries_the_start() {
    let (one, same) = (live(1), live(1));
    assert_eq!(format!("{one:?}"), format!("{same:?}"));
    assert_ne!(one.conversation_id, live(2).conversation_id);
    let elsewhere = Conversation::live(OTHER_STREAM, 1, NOW - 10 * MINUTE);
    assert_ne!(one.conversation_id, elsewhere.conversation_id);
    assert_eq!(one.session_id.len(), 24);
    let seconds = i64::from_str_radix(&one.session_id[..8], 16).unwrap();
    assert_eq!(seconds, (NOW - 10 * MINUTE) / 1_000);
}

#[tokio::test]
async fn a_conversation_is_a_bare_object_in_the_vendors_order() {
    let record = live(1).on_channel("Voice").padded(5_000);
    let id = record.conversation_id.clone();
    let world = World::with(vec![record]).await;
    let request = world.get(&conversation_path(EXAMPLE_STREAM, &id));
    let response = signed(request, &world.token()).send().await.unwrap();
    let text = response.text().await.unwrap();
    assert!(text.starts_with(r#"{"participants":["#) && text.len() > 5_000);
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["_id"], id);
    assert_eq!(body["accountId"], EXAMPLE_ACCOUNT);
    assert_eq!(body["botId"], EXAMPLE_STREAM);
    assert_ne!(body["conversationId"], id, "a voice record's is another");
}

#[tokio::test]
async fn the_listed_parameters_of_a_conversation_exclude_one_another() {
    let record = live(1);
    let id = record.conversation_id.clone();
    let world = World::with(vec![record]).await;
    for (query, status) in [
        (format!("?conversationId={id}&limit=1"), 200),
        ("?dateFrom=2025-10-01&dateTo=2025-10-02".into(), 200),
        (format!("?conversationId={id}&dateTo=2025-10-02"), 412),
        ("?conversationId=c-other".into(), 412),
    ] {
        let answer = world.conversation(&(id.clone() + &query)).await;
        assert_eq!(answer.status, status, "{query}");
    }
}

#[tokio::test]
async fn a_session_beats_a_call_and_a_call_beats_a_conversation() {
    let (one, two, three) = (live(1), live(2), live(3).answering_call_id("another"));
    let world = World::with(vec![one.clone(), two.clone(), three.clone()]).await;
    let both = json!({"callId": two.call_id, "conversationId": three.conversation_id});
    let mut all = both.clone();
    all["sessionId"] = json!(one.session_id);
    let alone = json!({"conversationId": three.conversation_id});
    for (body, meant) in [(all, &one), (both, &two), (alone, &three)] {
        let info = &world.transcript(body).await.body["conversationInfo"];
        assert_eq!(info["sessionId"], meant.session_id);
        assert_eq!(info["callId"], meant.answered_call_id);
    }
    let answer = world.transcript(json!({"limit": 1})).await;
    assert_eq!(answer.body, error("Validation errors/ Invalid arguments", 412));
}

#[tokio::test]
async fn messages_are_paged_by_skip_or_offset() {
    let record = Conversation::closed_at(EXAMPLE_STREAM, 1, NOW).with_messages(5);
    let session = record.session_id.clone();
    let world = World::with(vec![record]).await;
    let texts = async |more: Value| {
        let mut body = json!({"sessionId": session});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = world.transcript(body).await.body;
        let history = body["conversationHistory"].as_array().unwrap().clone();
        let text = |message: &Value| message["components"][0]["data"]["text"].to_string();
        history.iter().map(text).collect::<Vec<_>>()
    };
    let all = texts(json!({})).await;
    assert_eq!(all.len(), 5);
    assert_eq!(texts(json!({"skip": 2, "limit": 2})).await, all[2..4]);
    assert_eq!(texts(json!({"offset": 4, "limit": 2})).await, all[4..]);
    world.standin.set(|switches| switches.history_limit = 3);
    assert_eq!(texts(json!({})).await, all[..3]);
    assert_eq!(texts(json!({"limit": 4})).await, all[..3]);
    world.standin.set(|switches| switches.over_limit = OverLimit::Refuse);
    let answer = world.transcript(json!({"sessionId": session, "limit": 4})).await;
    assert_eq!(answer.status, 412);
}

#[tokio::test]
async fn a_summary_is_made_when_asked_and_never_twice_the_same() {
    let record = live(1);
    let world = World::with(vec![record.clone()]).await;
    let ask = async |required: bool| {
        let body = json!({"sessionId": record.session_id, "isSummaryRequired": required});
        world.transcript(body).await.body
    };
    assert_eq!(ask(false).await.get("summary"), None);
    let first = ask(true).await["summary"]["ConversationSummary"].clone();
    let second = ask(true).await["summary"]["ConversationSummary"].clone();
    assert!(first.is_string());
    assert_ne!(first, second);
}
