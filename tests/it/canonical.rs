//! Equal meaning, equal key; another meaning, another key. And the seven-day rule against a model
//! that counts in seconds.

use http::Method;
use http::uri::PathAndQuery;
use kore_gateway::routes::date::Date;
use kore_gateway::routes::{self, Found, Key, Request, RequestLimits};
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use serde_json::{Map, Value, json};

use crate::cases::with_cases;

const LIMITS: RequestLimits = RequestLimits { conversation_details_limit: 100, max_json_depth: 32 };

/// The key of a valid request of the account that its path names, or of `account`.
fn key(method: Method, target: &str, body: &str) -> Result<Key, String> {
    key_of("account", method, target, body)
}

fn key_of(account: &str, method: Method, target: &str, body: &str) -> Result<Key, String> {
    let target: PathAndQuery = target.parse().unwrap();
    let Found::Route(route, ids) = routes::find(&method, &target) else { return Err("no route".to_owned()) };
    let query = target.query().unwrap_or_default();
    let body = (method == Method::POST).then_some(body.as_bytes());
    let canonical = (route.parse)(&Request { ids: &ids, query, body, limits: LIMITS });
    canonical
        .map(|canonical| Key::new(ids.account().unwrap_or(account), route, &ids, &canonical))
        .map_err(|faults| format!("{faults:?}"))
}

/// What a window asks for, apart from how it is spelled.
#[derive(Clone, Debug, PartialEq)]
struct Meaning {
    account: u8,
    start: (u8, Option<u32>),
    /// Days after the start, and whether it is spelled as a day.
    end: (u8, Option<u32>),
    offset_minutes: i32,
    limit: u8,
    offset: u8,
    channels: Vec<&'static str>,
    selected: Option<Vec<&'static str>>,
    unknown: Option<u8>,
}

fn meaning() -> impl Strategy<Value = Meaning> {
    let seconds = || proptest::option::of(prop_oneof![Just(1_u32), Just(3600), Just(86_399), 1_u32..86_400]);
    let names = vec!["Voice", "rtm", "telegram "];
    (
        (0_u8..3, (1_u8..20, seconds()), (0_u8..3, seconds())),
        (prop_oneof![Just(0), Just(-330), Just(300)], 1_u8..=100, 0_u8..5),
        (subsequence(names.clone(), 0..=3), proptest::option::of(subsequence(names, 0..=3))),
        proptest::option::of(any::<u8>()),
    )
        .prop_map(
            |(
                (account, start, (days, end)),
                (offset_minutes, limit, offset),
                (channels, selected),
                unknown,
            )| {
                // An end on the start's day at a time may lie before the start: a day later it cannot.
                let days = if end.is_some() { days + 1 } else { days };
                Meaning {
                    account,
                    start,
                    end: (start.0 + days, end),
                    offset_minutes,
                    limit,
                    offset,
                    channels,
                    selected,
                    unknown,
                }
            },
        )
}

/// A time of day; midnight is spelled out where `None` is spelled as a moment.
fn moment(day: u8, second: u32) -> String {
    format!("2026-01-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// One of the ways to spell a meaning, chosen by the dice.
fn spelled(meaning: &Meaning, dice: &[Index]) -> (String, String) {
    let mut dice = dice.iter();
    let mut roll = |sides: usize| dice.next().map_or(0, |index| index.index(sides));
    let segments = ["interactionDetails", "INTERACTIONDETAILS", "calldetails", "CallDetails"];
    let mut query = Vec::new();
    if meaning.limit != 100 || roll(2) == 0 {
        query.push(if roll(2) == 0 {
            format!("limit={}", meaning.limit)
        } else {
            format!("limit=0{}", meaning.limit)
        });
    }
    if meaning.offset != 0 || roll(2) == 0 {
        query.push(format!("%6Fffset={}", meaning.offset));
    }
    if roll(2) == 0 {
        query.reverse();
    }
    let target = format!(
        "/agentassist/api/public/analytics/account/a{}/v2/{}?{}",
        meaning.account,
        segments[roll(4)],
        query.join("&")
    );

    let start = match meaning.start {
        // A midnight start may be spelled either way.
        (day, None) if roll(2) == 0 => format!("2026-01-{day:02}"),
        (day, second) => moment(day, second.unwrap_or(0)),
    };
    let end = match meaning.end {
        (day, None) => format!("2026-01-{day:02}"),
        (day, Some(second)) => moment(day, second),
    };
    let set = |names: &[&str], roll: &mut dyn FnMut(usize) -> usize| {
        let mut names = names.to_vec();
        if !names.is_empty() {
            let again = names[roll(names.len())];
            names.rotate_left(1);
            names.push(again);
        }
        json!(names)
    };
    let mut members = Map::new();
    members.insert("startDate".to_owned(), start.into());
    members.insert("endDate".to_owned(), end.into());
    if !meaning.channels.is_empty() || roll(2) == 0 {
        members.insert("channels".to_owned(), set(&meaning.channels, &mut roll));
    }
    if roll(2) == 0 {
        members.insert("queues".to_owned(), json!([]));
    }
    if let Some(selected) = &meaning.selected {
        members.insert("selectedFields".to_owned(), set(selected, &mut roll));
    }
    if let Some(unknown) = meaning.unknown {
        members.insert("unknown".to_owned(), json!({ "n": unknown }));
    }
    let offset = match roll(3) {
        0 => format!("{}", meaning.offset_minutes),
        1 => format!("{}.0", meaning.offset_minutes),
        _ => format!("{}e0", meaning.offset_minutes),
    };
    let mut parts: Vec<String> =
        members.iter().map(|(name, value): (_, &Value)| format!("{}:{value}", json!(name))).collect();
    parts.push(format!(r#""timeZoneOffset" : {offset}"#));
    let shift = roll(parts.len());
    parts.rotate_left(shift);
    (target, format!("{{ {} }}", parts.join(if roll(2) == 0 { "," } else { " ,\n" })))
}

fn dice() -> impl Strategy<Value = Vec<Index>> {
    proptest::collection::vec(any::<Index>(), 24)
}

proptest! {
    #![proptest_config(with_cases(2_000))]

    #[test]
    fn one_meaning_has_one_key_however_it_is_spelled(meaning in meaning(), once in dice(), again in dice()) {
        let (target, body) = spelled(&meaning, &once);
        let first = key(Method::POST, &target, &body);
        prop_assert!(first.is_ok(), "{first:?}: {body}");
        let (target, body) = spelled(&meaning, &again);
        prop_assert_eq!(first, key(Method::POST, &target, &body));
    }

    /// One thing is changed, so that each of them is shown to count.
    #[test]
    fn another_meaning_has_another_key(
        one in meaning(), other in meaning(), field in 0_usize..9, once in dice(), again in dice(),
    ) {
        let mut changed = one.clone();
        match field {
            0 => changed.account = other.account,
            1 => changed.start.1 = other.start.1,
            2 => changed.end = (one.end.0 + 1, other.end.1),
            3 => changed.offset_minutes = other.offset_minutes,
            4 => changed.limit = other.limit,
            5 => changed.offset = other.offset,
            6 => changed.channels = other.channels,
            7 => changed.selected = other.selected,
            _ => changed.unknown = other.unknown,
        }
        prop_assume!(one != changed);
        let (target, body) = spelled(&one, &once);
        let first = key(Method::POST, &target, &body);
        let (target, body) = spelled(&changed, &again);
        let second = key(Method::POST, &target, &body);
        prop_assume!(first.is_ok() && second.is_ok());
        prop_assert_ne!(first, second);
    }

    /// The canonical form is a fixed point: what goes upstream would be asked for under the same key.
    #[test]
    fn the_canonical_form_of_a_canonical_form_is_itself(meaning in meaning(), dice in dice()) {
        let (target, body) = spelled(&meaning, &dice);
        let first = key(Method::POST, &target, &body).unwrap();
        let path = target.split('?').next().unwrap();
        let parts = first.parts();
        let again = key(Method::POST, &format!("{path}?{}", parts.query), parts.body).unwrap();
        prop_assert_eq!(first, again);
    }

    /// A key gives back what went in, so the upstream request that is built from it is the query.
    #[test]
    fn a_key_holds_its_parts(session in "[a-z0-9]{1,30}", skip in 0_u32..1000) {
        let body = json!({ "sessionId": session, "skip": skip }).to_string();
        let key = key(Method::POST, "/api/public/bot/st-7/CONVERSATIONDETAILS", &body).unwrap();
        let parts = key.parts();
        prop_assert_eq!((parts.account, parts.bot, parts.conversation, parts.query), ("account", "st-7", "", ""));
        let sent: Value = serde_json::from_str(parts.body).unwrap();
        prop_assert_eq!(sent, json!({ "sessionId": session, "skip": skip, "isSummaryRequired": false }));
    }

    /// Against a model in seconds since the epoch, without a calendar of ours.
    #[test]
    fn a_window_passes_exactly_if_it_is_at_most_seven_days_long(
        start_day in 0_i64..800, start_second in proptest::option::of(0_i64..86_400),
        days in -1_i64..9, end_second in proptest::option::of(prop_oneof![Just(0_i64), Just(1), 0_i64..86_400]),
        nudge in -1_i64..=1,
    ) {
        const EPOCH_DAY: i64 = 19_700; // 2023-12-09
        let text = |day: i64, second: Option<i64>| {
            let date = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(EPOCH_DAY + day)).unwrap();
            match second {
                None => date.to_string(),
                Some(second) => format!("{date} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60),
            }
        };
        // Now and then exactly on the edge, or a second beside it.
        let end_second = match (start_second, end_second) {
            (Some(start), Some(_)) if days == 7 => Some((start + nudge).clamp(0, 86_399)),
            (_, second) => second,
        };
        let start = start_day * 86_400 + start_second.unwrap_or(0);
        let end = (start_day + days) * 86_400 + end_second.unwrap_or(86_400);
        // A day before the start's is before it, though it ends when the start's day begins.
        let in_order = end_second.is_some() || days >= 0;
        let model = in_order && (0..=7 * 86_400).contains(&(end - start));
        let body = json!({
            "startDate": text(start_day, start_second),
            "endDate": text(start_day + days, end_second),
            "timeZoneOffset": 0,
        });
        let target = "/agentassist/api/public/analytics/account/a/v2/interactionDetails";
        prop_assert_eq!(key(Method::POST, target, &body.to_string()).is_ok(), model, "{}", body);
    }
}

/// What a transcript is asked by and for, apart from how it is spelled.
#[derive(Clone, Debug, PartialEq)]
struct TranscriptMeaning {
    named_by: usize,
    id: u8,
    from: Option<(bool, u16)>,
    limit: Option<u8>,
    summary_in: Option<Option<&'static str>>,
}

fn transcript() -> impl Strategy<Value = TranscriptMeaning> {
    let from = proptest::option::of((any::<bool>(), 1_u16..50));
    let language = prop_oneof![Just(None), Just(Some("en")), Just(Some("de"))];
    (0_usize..3, 0_u8..4, from, proptest::option::of(1_u8..=100), proptest::option::of(language)).prop_map(
        |(named_by, id, from, limit, summary_in)| TranscriptMeaning { named_by, id, from, limit, summary_in },
    )
}

fn spelled_transcript(meaning: &TranscriptMeaning, dice: &[Index]) -> (String, String) {
    let mut dice = dice.iter();
    let mut roll = |sides: usize| dice.next().map_or(0, |index| index.index(sides));
    let names = ["sessionId", "callId", "conversationId"];
    let mut body = json!({ names[meaning.named_by]: format!("c-{}", meaning.id) });
    for ignored in &names[meaning.named_by + 1..] {
        if roll(2) == 0 {
            body[*ignored] = json!(format!("c-{}", roll(100)));
        }
    }
    match meaning.from {
        Some((true, messages)) => body["skip"] = json!(messages),
        Some((false, messages)) => body["offset"] = json!(messages),
        None => match roll(4) {
            0 => body["skip"] = json!(0),
            1 => body["offset"] = json!(0),
            2 => {
                body["skip"] = json!(0);
                body["offset"] = json!(0);
            }
            _ => {}
        },
    }
    if let Some(limit) = meaning.limit {
        body["limit"] = json!(limit);
    }
    match meaning.summary_in {
        Some(language) => {
            body["isSummaryRequired"] = json!(true);
            if let Some(language) = language {
                body["lang"] = json!(language);
            }
        }
        None => {
            if roll(2) == 0 {
                body["isSummaryRequired"] = json!(false);
            }
            // The language of a summary that nobody wants.
            if roll(2) == 0 {
                body["lang"] = json!("fr");
            }
        }
    }
    let route = ["conversationDetails", "CONVERSATIONDETAILS", "conversationdetails"][roll(3)];
    (format!("/api/public/bot/st-1/{route}"), body.to_string())
}

proptest! {
    #![proptest_config(with_cases(2_000))]

    #[test]
    fn one_transcript_has_one_key_however_it_is_asked_for(meaning in transcript(), once in dice(), again in dice()) {
        let (target, body) = spelled_transcript(&meaning, &once);
        let first = key(Method::POST, &target, &body);
        prop_assert!(first.is_ok(), "{first:?}: {body}");
        let (target, body) = spelled_transcript(&meaning, &again);
        prop_assert_eq!(first, key(Method::POST, &target, &body));
    }

    #[test]
    fn another_transcript_has_another_key(
        one in transcript(), other in transcript(), field in 0_usize..5, once in dice(), again in dice(),
    ) {
        let mut changed = one.clone();
        match field {
            0 => changed.named_by = other.named_by,
            1 => changed.id = other.id,
            2 => changed.from = other.from,
            3 => changed.limit = other.limit,
            _ => changed.summary_in = other.summary_in,
        }
        prop_assume!(one != changed);
        let (target, body) = spelled_transcript(&one, &once);
        let first = key(Method::POST, &target, &body);
        let (target, body) = spelled_transcript(&changed, &again);
        prop_assert_ne!(first, key(Method::POST, &target, &body));
    }

    /// Of all texts only the two spellings are dates, and each is written back as it was.
    #[test]
    fn a_date_is_read_in_its_two_spellings_only(
        text in "([0-9]{4}|19[6-9][0-9]|2[0-9]{3})-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[.][0-9])?)?",
    ) {
        let parts: Vec<u32> = text.split(['-', ' ', ':']).map(|part| part.parse().unwrap_or(u32::MAX)).collect();
        let leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let exists = |year: u32, month: u32, day: u32| {
            let there = (1970..3000).contains(&year);
            let days = match month {
                2 => 28 + u32::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                1..=12 => 31,
                _ => 0,
            };
            there && (1..=days).contains(&day)
        };
        let model = match parts[..] {
            [year, month, day] => exists(year, month, day),
            [year, month, day, hour, minute, second] => {
                exists(year, month, day) && hour < 24 && minute < 60 && second < 60
            }
            _ => false,
        };
        let date = Date::parse(&text);
        prop_assert_eq!(date.is_some(), model, "{}", text);
        prop_assert!(date.is_none_or(|date| date.to_string() == text));
    }
}

#[test]
fn another_route_another_bot_and_another_account_are_other_keys() {
    let path = |stream: &str| format!("/agentassist/api/v1/public/{stream}/conversations/c-1");
    let one = key(Method::GET, &path("st-1"), "").unwrap();
    assert_ne!(one, key(Method::GET, &path("st-2"), "").unwrap());
    assert_eq!(one, key(Method::HEAD, &path("st-1"), "").unwrap());
    let of = |account: &str| key_of(account, Method::GET, &path("st-1"), "").unwrap();
    assert_ne!(of("a1"), of("a2"));
    // Lengths stand in front of the parts: nothing can be moved from one part to the next.
    let split = |bot: &str, conversation: &str| {
        key(Method::GET, &format!("/agentassist/api/v1/public/{bot}/conversations/{conversation}"), "")
            .unwrap()
    };
    assert_ne!(split("st-1c-", "c-1"), split("st-1", "c-c-1"));
}
