//! A request that breaks the contract is refused with all its faults at once, each with its place,
//! what was there and what would be right; and it costs the upstream nothing.

use http::Method;
use serde_json::json;

use crate::world::{Got, REPORTING, World, conversation_path, got, transcript_path, window_path};

/// A window with one member changed; `null` takes it out.
fn window(member: &str, value: serde_json::Value) -> String {
    let mut body = json!({ "startDate": "2026-02-16", "endDate": "2026-02-22", "timeZoneOffset": -330 });
    match value {
        serde_json::Value::Null => body.as_object_mut().unwrap().remove(member),
        value => body.as_object_mut().unwrap().insert(member.to_owned(), value),
    };
    body.to_string()
}

#[tokio::test]
async fn each_broken_rule_of_a_window_is_named_with_its_place() {
    let world = World::new().await;
    let broken = [
        ("startDate", json!(null), "/startDate"),
        ("endDate", json!(null), "/endDate"),
        ("timeZoneOffset", json!(null), "/timeZoneOffset"),
        ("startDate", json!(20260216), "/startDate"),
        ("startDate", json!("16.02.2026"), "/startDate"),
        ("startDate", json!("2026-02-30"), "/startDate"),
        ("startDate", json!("2026-02-16T00:00:00Z"), "/startDate"),
        ("endDate", json!("2026-02-22 24:00:00"), "/endDate"),
        ("endDate", json!("2026-02-15"), "/endDate"),
        ("endDate", json!("2026-02-23"), "/endDate"),
        ("endDate", json!("2026-02-23 00:00:01"), "/endDate"),
        ("timeZoneOffset", json!("-330"), "/timeZoneOffset"),
        ("timeZoneOffset", json!(-330.5), "/timeZoneOffset"),
        ("timeZoneOffset", json!(841), "/timeZoneOffset"),
        ("channels", json!("Voice"), "/channels"),
        ("queues", json!(["a", 1]), "/queues/1"),
        ("bots", json!({}), "/bots"),
        ("selectedFields", json!("skills"), "/selectedFields"),
        ("direction", json!("inbound"), "/direction"),
        ("isAutomation", json!("false"), "/isAutomation"),
    ];
    for (member, value, pointer) in broken {
        let answer = world.post(&window_path(), window(member, value.clone())).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem()),
            (400, "invalid-request".to_owned()),
            "{member}: {value}"
        );
        assert_eq!(answer.fault_places(), [pointer], "{member}: {value}: {:?}", answer.json());
        let error = &answer.json()["errors"][0];
        assert_eq!(error["msg"], error["detail"]);
        assert_eq!(error["code"], 400);
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn all_faults_of_a_request_come_at_once() {
    let world = World::new().await;
    let body = r#"{"startDate":"x","channels":"Voice","isAutomation":1,"a":{"b":1,"b":2}}"#;
    let answer = world.post(&format!("{}?limit=0&offset=-1&limit=5", window_path()), body).await;
    let mut places = answer.fault_places();
    places.sort();
    let all = [
        "/a/b",
        "/channels",
        "/endDate",
        "/isAutomation",
        "/startDate",
        "/timeZoneOffset",
        "limit",
        "offset",
    ];
    assert_eq!(places, all, "{:?}", answer.json());
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn a_range_over_seven_days_names_the_last_end_that_would_do() {
    let world = World::new().await;
    let answer = world.post(&window_path(), window("endDate", json!("2026-02-24"))).await;
    let detail = answer.json()["errors"][0]["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("2026-02-24") && detail.contains("9 d") && detail.contains("2026-02-22"),
        "{detail}"
    );
    let last = world.post(&window_path(), window("endDate", json!("2026-02-22"))).await;
    assert_eq!(last.status, 200);
    let exactly = r#"{"startDate":"2026-02-16 10:00:00","endDate":"2026-02-23 10:00:00","timeZoneOffset":0}"#;
    assert_eq!(world.post(&window_path(), exactly).await.status, 200);
    world.assert_no_violations();
}

#[tokio::test]
async fn limits_and_offsets_are_whole_numbers_within_bounds() {
    let world = World::new().await;
    let body = window("x", json!(1));
    for (query, right) in [
        ("limit=1", true),
        ("limit=100", true),
        ("offset=0", true),
        ("offset=10", true),
        ("limit=0", false),
        ("limit=101", false),
        ("limit=1.0", false),
        ("limit=ten", false),
        ("limit=", false),
        ("offset=-1", false),
        ("offset=9007199254740993", false),
    ] {
        let answer = world.post(&format!("{}?{query}", window_path()), &body).await;
        assert_eq!(answer.status.as_u16(), if right { 200 } else { 400 }, "{query}");
        if !right {
            assert_eq!(answer.fault_places(), [query.split('=').next().unwrap()]);
        }
    }
    let path = transcript_path();
    for (limit, status) in
        [(json!(1), 200), (json!(100), 200), (json!(0), 400), (json!(101), 400), (json!("1"), 400)]
    {
        let answer = world.post(&path, json!({ "callId": "1", "limit": limit })).await;
        assert_eq!(answer.status.as_u16(), status, "{limit}");
    }
}

#[tokio::test]
async fn a_conversation_is_asked_for_by_well_formed_ids_and_by_one_way_of_naming_it() {
    let world = World::new().await;
    let path = conversation_path("c-47a3d30-e522");
    let with = |query: &str| format!("{path}?{query}");
    let right = [
        path.clone(),
        with("conversationId=c-47a3d30-e522&limit=1"),
        with("dateFrom=2026-02-16&dateTo=2026-02-17%2010:00:00"),
        with("dateFrom=2026-02-16T00:00:00Z"),
    ];
    for path in right {
        assert_eq!(world.get(&path).await.status, 404, "{path}");
    }
    let broken: [(String, &[&str]); 8] = [
        (conversation_path("47a3d30"), &["conversationId"]),
        (conversation_path("c-%2e%2e"), &["conversationId"]),
        (conversation_path(&format!("c-{}", "a".repeat(200))), &["conversationId"]),
        (path.replace("/st-", "/xx-"), &["streamId"]),
        (path.replace("/st-", "/xx-") + "x%20?limit=0", &["streamId", "conversationId", "limit"]),
        (with("conversationId=c-another"), &["conversationId"]),
        (with("conversationId=c-47a3d30-e522&dateFrom=2026-02-16"), &["conversationId"]),
        (with("dateFrom=2026-02-16&dateTo=2026-02-15&limit=0"), &["dateTo", "limit"]),
    ];
    world.standin.forget();
    for (path, places) in broken {
        let answer = world.get(&path).await;
        assert_eq!(answer.status, 400, "{path}");
        let mut found = answer.fault_places();
        found.sort();
        let mut places = places.to_vec();
        places.sort_unstable();
        assert_eq!(found, places, "{path}: {:?}", answer.json());
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn a_transcript_is_asked_for_by_one_of_three_ids_and_the_first_counts() {
    let world = World::new().await;
    let broken = [
        (json!({}), "/sessionId"),
        (json!({ "sessionId": 5 }), "/sessionId"),
        (json!({ "sessionId": "" }), "/sessionId"),
        (json!({ "sessionId": "a b" }), "/sessionId"),
        (json!({ "conversationId": "x" }), "/conversationId"),
        (json!({ "sessionId": "s", "callId": 1 }), "/callId"),
        (json!({ "callId": "1", "skip": 1, "offset": 2 }), "/offset"),
        (json!({ "callId": "1", "skip": -1 }), "/skip"),
        (json!({ "callId": "1", "isSummaryRequired": "yes" }), "/isSummaryRequired"),
        (json!({ "callId": "1", "lang": 1 }), "/lang"),
    ];
    for (body, pointer) in broken {
        let answer = world.post(&transcript_path(), &body).await;
        assert_eq!(answer.fault_places(), [pointer], "{body}: {:?}", answer.json());
    }
    assert_eq!(world.standin.count(), 0);
    world.post(&transcript_path(), json!({ "conversationId": "c-1", "callId": "k", "sessionId": "s" })).await;
    assert_eq!(world.standin.calls()[0].json()["sessionId"], "s");
    assert!(world.standin.calls()[0].json().get("callId").is_none());
}

#[tokio::test]
async fn a_body_that_is_no_json_object_too_deep_or_with_a_member_twice_is_refused() {
    let world = World::new().await;
    let deep = format!("{}{}", r#"{"a":"#.repeat(33), "1") + &"}".repeat(33);
    for body in ["", "[]", "null", "{", "{\"a\":1}}", "\u{feff}{}", deep.as_str(), r#"{"a":"\ud800"}"#] {
        let answer = world.post(&window_path(), body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.fault_places(), [""], "{body}: {:?}", answer.json());
    }
    let twice =
        r#"{"startDate":"2026-02-16","startDate":"2026-02-17","endDate":"2026-02-17","timeZoneOffset":0}"#;
    assert_eq!(world.post(&window_path(), twice).await.fault_places(), ["/startDate"]);
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn a_body_of_another_type_is_415_and_a_large_one_413() {
    let world = World::new().await;
    let ask = |headers: &[(&str, &str)], body: String| {
        let mut request = world.request(Method::POST, &window_path(), REPORTING).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        got(request)
    };
    let body = window("x", json!(1));
    let types: [(&[(&str, &str)], u16); 6] = [
        (&[("content-type", "application/json;charset=UTF-8")], 200),
        (&[("content-type", "Application/JSON")], 200),
        (&[], 200),
        (&[("content-type", "application/x-www-form-urlencoded")], 415),
        (&[("content-type", "text/json")], 415),
        (&[("content-type", "application/json"), ("content-encoding", "gzip")], 415),
    ];
    for (headers, status) in types {
        let answer: Got = ask(headers, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?}");
    }
    let calls = world.standin.count();
    let just_fits = format!("{body}{}", " ".repeat(64 * 1024 - body.len()));
    assert_eq!(ask(&[], just_fits.clone()).await.status, 200);
    let too_large = ask(&[], just_fits + " ").await;
    assert_eq!((too_large.status.as_u16(), too_large.problem()), (413, "content-too-large".to_owned()));
    assert_eq!(world.standin.count(), calls);
}

/// What a policy is held against is in the path; the same names elsewhere would go upstream unlooked at.
#[tokio::test]
async fn an_id_that_the_path_names_is_refused_in_the_query_string_and_in_a_body() {
    let world = World::new().await;
    for name in ["accountId", "iId", "botId", "streamId", "ACCOUNTID"] {
        let answer = world.get(&format!("{}?{name}=st-2", conversation_path("c-1"))).await;
        assert_eq!((answer.status.as_u16(), answer.fault_places()), (400, vec![name.to_owned()]), "{name}");
    }
    for name in ["accountId", "iId", "botId", "streamId"] {
        let answer = world.post(&transcript_path(), json!({ "callId": "1", name: "st-2" })).await;
        assert_eq!(
            (answer.status.as_u16(), answer.fault_places()),
            (400, vec![format!("/{name}")]),
            "{name}"
        );
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn a_request_of_nothing_but_faults_gets_an_answer_of_bounded_size() {
    let world = World::new().await;
    let name = "k".repeat(30_000);
    let members = r#""":1,"#.repeat(5_000);
    let body = format!(r#"{{"{name}":{{{members}"x":1}}}}"#);
    assert!(body.len() < 64 * 1024);
    let answer = world.post(&window_path(), body).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.fault_places().len(), 50);
    assert!(answer.json()["detail"].as_str().unwrap().starts_with("at least 50 faults"));
    assert!(answer.body.len() < 64 * 1024, "{} bytes", answer.body.len());

    let query = format!("{}=1&", "p".repeat(3_000)) + &"limit=1&".repeat(500);
    let answer = world.post(&format!("{}?{query}", window_path()), window("x", json!(1))).await;
    assert_eq!((answer.status.as_u16(), answer.fault_places().len()), (400, 50));
    assert!(answer.body.len() < 64 * 1024, "{} bytes", answer.body.len());
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn who_takes_no_json_is_told_so() {
    let world = World::new().await;
    let path = conversation_path("c-1");
    for (accept, status) in [
        ("*/*", 404),
        ("application/json, text/plain, /", 404),
        ("text/html, application/*;q=0.1", 404),
        ("/", 404),
        ("text/html", 406),
        ("application/json;q=0, text/html", 406),
        ("application/json;q=0, */*", 406),
        ("*/*, application/json;q=0.000", 406),
        ("application/*;q=0, */*", 406),
        ("application/*;q=0, application/json;q=0.1", 404),
        ("text/plain;x=\"*/*, application/json\"", 406),
    ] {
        let answer = got(world.request(Method::GET, &path, REPORTING).header("accept", accept)).await;
        assert_eq!(answer.status.as_u16(), status, "{accept}");
        let contract = format!("http://{}/openapi.json", world.address);
        let contract = got(world.http.get(contract).header("accept", accept)).await;
        assert_eq!(contract.status == 406, status == 406, "{accept}");
    }
    let page = async |accept: &str| {
        got(world.http.get(format!("http://{}/docs", world.address)).header("accept", accept)).await
    };
    assert_eq!(page("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8").await.status, 200);
    assert_eq!(page("text/html;q=0, */*").await.problem(), "not-acceptable");
}

#[tokio::test]
async fn a_number_reaches_the_upstream_with_every_digit_and_in_one_spelling() {
    let world = World::new().await;
    let exact = "1.0222222222222222222222222222222222222222";
    let body = |number: &str, zeros: &str| {
        format!(
            r#"{{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":-330{zeros},"future":{{"n":[{number}]}}}}"#
        )
    };
    assert_eq!(world.post(&window_path(), body(exact, "")).await.status, 200);
    let sent = String::from_utf8(world.standin.calls()[0].body.to_vec()).unwrap();
    assert!(sent.contains(&format!("[{exact}]")), "{sent}");
    // What went upstream, and another spelling of it, are the same request.
    for same in [sent, body(&format!("{}e-1", exact.replace("1.0", "10.")), ".0")] {
        assert!(world.post(&window_path(), same.clone()).await.is_hit(), "{same}");
    }
    assert!(!world.post(&window_path(), body(&format!("{exact}1"), "")).await.is_hit());
    assert_eq!(world.standin.count(), 2);
}

#[tokio::test]
async fn a_body_with_a_byte_order_mark_is_told_so() {
    let world = World::new().await;
    for (route, body) in
        [(window_path(), window("", json!(1))), (transcript_path(), r#"{"sessionId":"s"}"#.to_owned())]
    {
        let marked = format!("\u{feff}{body}");
        let answer = world.post(&route, marked).await;
        assert_eq!(answer.problem(), "invalid-request");
        let detail = answer.json()["errors"][0]["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("byte order mark"), "{detail}");
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn a_known_name_in_the_wrong_place_or_spelling_is_told_where_it_belongs() {
    let world = World::new().await;
    let window_with = |member: &str| {
        format!(r#"{{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":-330,"{member}":"x"}}"#)
    };
    let transcript_with = |member: &str| format!(r#"{{"sessionId":"s","{member}":1}}"#);
    let misplaced = [
        ("limit", "in the query string, as `limit`"),
        ("offset", "in the query string, as `offset`"),
        ("LIMIT", "in the query string, as `limit`"),
        ("startdate", "is spelled `startDate`"),
        ("time_zone_offset", "is spelled `timeZoneOffset`"),
        ("Bots", "is spelled `bots`"),
        ("accountid", "the path says"),
        ("ACCOUNTID", "the path says"),
        ("bot_id", "the path says"),
        ("iid", "the path says"),
        ("streamID", "the path says"),
    ];
    for (name, told) in misplaced {
        misplaced_at(&world.post(&window_path(), window_with(name)).await, &format!("/{name}"), told);
    }
    for (name, told) in [
        ("SESSIONID", "is spelled `sessionId`"),
        ("issummaryrequired", "is spelled `isSummaryRequired`"),
        ("botid", "the path says"),
    ] {
        misplaced_at(&world.post(&transcript_path(), transcript_with(name)).await, &format!("/{name}"), told);
    }
    let of_window = [
        ("startDate", "in the body, as `startDate`"),
        ("STARTDATE", "in the body, as `startDate`"),
        ("Limit", "is spelled `limit`"),
        ("botid", "the path says"),
    ];
    for (name, told) in of_window {
        let path = format!("{}?{name}=1", window_path());
        misplaced_at(&world.post(&path, window("", json!(1))).await, name, told);
    }
    for name in ["limit", "offset", "skip", "sessionId", "callid", "isSummaryRequired"] {
        let path = format!("{}?{name}=1", transcript_path());
        misplaced_at(&world.post(&path, r#"{"sessionId":"s"}"#).await, name, "in the body, as `");
    }
    for (name, told) in [
        ("datefrom", "is spelled `dateFrom`"),
        ("ConversationId", "is spelled"),
        ("streamid", "the path says"),
    ] {
        let path = format!("{}?{name}=1", conversation_path("c-1"));
        misplaced_at(&world.get(&path).await, name, told);
    }
    assert_eq!(world.standin.count(), 0);
    // What the vendor may add is passed on.
    assert_eq!(world.post(&format!("{}?page=1", window_path()), window_with("limits")).await.status, 200);
}

fn misplaced_at(answer: &Got, place: &str, told: &str) {
    assert_eq!(answer.problem(), "invalid-request", "{place}");
    assert_eq!(answer.fault_places(), [place], "{:?}", answer.json());
    let detail = answer.json()["errors"][0]["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(told), "{detail}");
}

#[tokio::test]
async fn a_date_of_a_year_that_cannot_be_is_refused_on_every_route() {
    let world = World::new().await;
    for date in ["0000-09-12", "0000-01-01 00:00:00", "1969-12-31", "3000-01-01", "9999-12-31"] {
        let body = json!({ "startDate": date, "endDate": date, "timeZoneOffset": 0 }).to_string();
        let answer = world.post(&window_path(), body).await;
        assert_eq!(answer.fault_places(), ["/startDate", "/endDate"], "{date}");
        for moment in [date.replace(' ', "%20"), format!("{}T00:00:00Z", &date[..10])] {
            let answer = world.get(&format!("{}?dateFrom={moment}", conversation_path("c-1"))).await;
            assert_eq!(answer.fault_places(), ["dateFrom"], "{moment}");
        }
    }
    assert_eq!(world.standin.count(), 0);
}
