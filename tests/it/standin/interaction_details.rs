//! The rows of a window, under both readings of whatever the contract leaves open: contract §4.

use kore_standin::{Conversation, EXAMPLE_STREAM, NumResults, OTHER_STREAM, Offset, OverLimit, Range};
use serde_json::{Value, json};

use super::{DAY, MINUTE, NOW, World, error, live, rows_of, today};

/// `count` conversations, a minute apart; the last began at [`NOW`].
fn many(count: u64) -> Vec<Conversation> {
    let start = |n: u64| NOW - i64::try_from(count - n).expect("small") * MINUTE;
    (1..=count).map(|n| Conversation::live(EXAMPLE_STREAM, n, start(n))).collect()
}

#[tokio::test]
async fn an_offset_skips_pages_or_documents() {
    let records = many(10);
    // Descending: the newest comes first.
    let ids: Vec<String> = records.iter().rev().map(|r| r.session_id.clone()).collect();
    let world = World::with(records).await;
    for (reading, first) in [(Offset::Pages, 6), (Offset::Documents, 2)] {
        world.standin.set(|switches| switches.offset = reading);
        let rows = rows_of(&world.details("?limit=3&offset=2", &today()).await);
        assert_eq!(rows[0]["sessionId"], ids[first], "{reading:?}");
        assert_eq!(rows.len(), 3);
    }
    assert_eq!(world.details("?offset=11", &today()).await.status, 200);
    world.standin.set(|switches| switches.offset = Offset::Pages);
    assert_eq!(world.details("?offset=10", &today()).await.status, 200);
    assert_eq!(world.details("?offset=11", &today()).await.status, 412);
}

#[tokio::test]
async fn a_limit_above_100_is_clamped_or_refused_and_the_count_is_page_or_total() {
    let world = World::with(many(103)).await;
    let answer = world.details("?limit=500", &today()).await;
    assert_eq!((rows_of(&answer).len(), &answer.body["numResults"]), (100, &json!(100)));
    assert_eq!(world.standin.violations().len(), 1);
    world.standin.set(|switches| {
        switches.over_limit = OverLimit::Refuse;
        switches.num_results = NumResults::Total;
    });
    let refused = world.details("?limit=101", &today()).await;
    let words = "Validation errors/ Invalid arguments";
    assert_eq!((refused.status, refused.body), (412, error(words, 412)));
    let answer = world.details("", &today()).await;
    assert_eq!((rows_of(&answer).len(), &answer.body["numResults"]), (100, &json!(103)));
}

#[tokio::test]
async fn rows_are_repeated_across_pages_by_switch_and_none_is_lost() {
    let world = World::with(many(7)).await;
    for repeat in [false, true] {
        world.standin.set(|switches| switches.repeat_rows = repeat);
        let mut ids = Vec::new();
        for page in 0..4 {
            let query = format!("?limit=3&offset={page}");
            let rows = rows_of(&world.details(&query, &today()).await);
            ids.extend(rows.iter().map(|row| row["sessionId"].to_string()));
        }
        let shown = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), shown > 7), (7, repeat));
    }
}

#[tokio::test]
async fn a_window_is_at_most_seven_days_in_either_reading() {
    let world = World::with(vec![]).await;
    let status = async |start: &str, end: &str| {
        let body = json!({"startDate": start, "endDate": end, "timeZoneOffset": -330});
        world.details("", &body).await.status
    };
    assert_eq!(status("2025-10-03", "2025-10-09").await, 200);
    assert_eq!(status("2025-10-02", "2025-10-09").await, 412);
    assert_eq!(status("2025-10-02 10:00:00", "2025-10-09 10:00:00").await, 200);
    assert_eq!(status("2025-10-02 10:00:00", "2025-10-09 10:00:01").await, 412);
    assert_eq!(status("2025-10-03 10:00:00", "2025-10-09").await, 200);
    assert_eq!(world.standin.violations().len(), 2);
    world.standin.set(|switches| switches.range = Range::EightDates);
    assert_eq!(status("2025-10-02", "2025-10-09").await, 200);
    assert_eq!(status("2025-10-01", "2025-10-09").await, 412);
}

#[tokio::test]
async fn a_body_that_breaks_the_contract_is_refused() {
    let world = World::with(vec![]).await;
    world.standin.set(|switches| switches.enforce_quota = false);
    let good = today();
    assert_eq!(world.details("", &good).await.status, 200);
    for (field, value) in [
        ("startDate", json!(null)),
        ("startDate", json!("2025-10-09T00:00:00")),
        ("startDate", json!("2025-13-09")),
        ("startDate", json!("2025-10-10")),
        ("endDate", json!("9.10.2025")),
        ("timeZoneOffset", json!(null)),
        ("timeZoneOffset", json!("0")),
        ("timeZoneOffset", json!(900)),
        ("channels", json!("Voice")),
        ("direction", json!("inbound")),
        ("selectedFields", json!([1])),
        ("isAutomation", json!("no")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        assert_eq!(world.details("", &body).await.status, 412, "{body}");
    }
    for query in ["?limit=0", "?limit=ten", "?limit=1&limit=2", "?offset=-1"] {
        assert_eq!(world.details(query, &good).await.status, 412, "{query}");
    }
}

#[tokio::test]
async fn a_date_as_the_end_includes_that_day_where_the_offset_holds() {
    // 18:29:59.999Z on the 8th is the last of that day in India, 18:30Z the first of the next.
    let midnight = NOW - NOW % DAY - 5 * 60 * MINUTE - 30 * MINUTE;
    let world = World::with(vec![
        Conversation::live(EXAMPLE_STREAM, 1, midnight - 1),
        Conversation::live(EXAMPLE_STREAM, 2, midnight),
    ])
    .await;
    for (start, end, offset, expected) in [
        ("2025-10-08", "2025-10-08", -330, vec!["2025-10-08T23:59:59"]),
        ("2025-10-09", "2025-10-09", -330, vec!["2025-10-09T00:00:00"]),
        ("2025-10-08", "2025-10-08", 300, vec!["2025-10-08T13:30:00", "2025-10-08T13:29:59"]),
        ("2025-10-08 23:59:00", "2025-10-08 23:59:59", -330, vec!["2025-10-08T23:59:59"]),
    ] {
        let body = json!({"startDate": start, "endDate": end, "timeZoneOffset": offset});
        let rows = rows_of(&world.details("", &body).await);
        let starts: Vec<&Value> = rows.iter().map(|row| &row["sessionStartTime"]).collect();
        assert_eq!(starts, expected, "{body}");
    }
}

#[tokio::test]
async fn sessions_without_an_agent_come_first_and_forwards_then_conversations_backwards() {
    let at = |n: u64, minutes: i64| Conversation::live(EXAMPLE_STREAM, n, NOW - minutes * MINUTE);
    let world =
        World::with(vec![at(1, 40), at(2, 30).without_agent(), at(3, 20), at(4, 35).without_agent()]).await;
    let rows = world.rows(json!({})).await;
    let starts: Vec<&str> =
        rows.iter().map(|row| &row["sessionStartTime"].as_str().unwrap()[11..16]).collect();
    assert_eq!(starts, ["08:18", "08:23", "08:33", "08:13"]);
    assert_eq!(rows[0].get("conversationId"), None);
    assert_eq!(rows[0]["finalStatus"], "TRANSIENT_OPEN");
}

#[tokio::test]
async fn filters_narrow_the_rows() {
    let voice = live(1).on_channel("Voice").outbound();
    let jones = live(2).on_channel("Jones ");
    let queue = voice.queue_id.clone();
    let world = World::with(vec![voice, jones, live(3).without_agent()]).await;
    for (filter, count) in [
        (json!({"channels": [], "queues": [], "bots": []}), 3),
        (json!({"channels": ["Voice"]}), 1),
        (json!({"channels": ["Voice", "Jones"]}), 2),
        (json!({"queues": [queue]}), 2),
        (json!({"queues": ["qu-none"]}), 0),
        (json!({"bots": [EXAMPLE_STREAM]}), 3),
        (json!({"bots": ["st-none"]}), 0),
        (json!({"direction": "Outbound"}), 1),
        (json!({"direction": "Both"}), 3),
    ] {
        assert_eq!(world.rows(filter.clone()).await.len(), count, "{filter}");
    }
    let other = Conversation::live(OTHER_STREAM, 9, NOW - MINUTE);
    world.standin.put(other);
    assert_eq!(world.rows(json!({})).await.len(), 3);
}

#[tokio::test]
async fn fields_appear_when_selected_and_their_spelling_drifts() {
    let world = World::with(vec![live(1), live(2)]).await;
    let rows = world.rows(json!({})).await;
    for field in ["skills", "customerinfo", "customerInfo", "userleveltags", "campaigninfo"] {
        assert_eq!(rows[0].get(field), None, "{field}");
    }
    let fields = ["skills", "customerinfo", "sessionleveltags", "campaigninfo", "snoozeinfo"];
    let rows = world.rows(json!({"selectedFields": fields})).await;
    let (tidy, odd) = (&rows[0], &rows[1]);
    assert!(tidy["customerinfo"].is_object() && odd["customerInfo"].is_object());
    assert!(tidy["reason"].is_string() && odd["Reason"].is_string());
    assert_eq!((&tidy["isVoicemail"], &odd["isVoicemail"]), (&json!("NO"), &json!(false)));
    assert_eq!(odd.get("errorDetails"), None);
    assert!(tidy["campaigninfo"].is_object() && tidy["skills"].is_array());
    assert_eq!(tidy.get("userleveltags"), None);
    assert!(tidy["destinations"][0]["respondingAgent"]["snoozeinfo"].is_array());
}

#[tokio::test]
async fn times_of_a_row_follow_the_offset_except_the_callback() {
    let start = NOW - DAY;
    let record = Conversation::live(EXAMPLE_STREAM, 1, start).on_channel("Voice");
    let world = World::with(vec![record.ends_at(start + 90_000)]).await;
    for (offset, started, ended) in [
        (-330, "2025-10-08T14:23:20", "2025-10-08T14:24:50"),
        (300, "2025-10-08T03:53:20", "2025-10-08T03:54:50"),
    ] {
        let row = &world.rows(json!({"timeZoneOffset": offset})).await[0];
        assert_eq!(row["sessionStartTime"], started);
        assert_eq!(row["sessionEndTime"], ended);
        let entry = &row["destinations"][0];
        assert_eq!(entry["EnterTime"], started);
        assert_eq!(entry["CallbackOptedTime"], "2025-10-08T08:53:20.000Z");
        assert_eq!(entry["respondingAgent"]["interactionDuration"], 85);
    }
}
