//! The upstream's answer: only a complete body about what was asked is ever kept, and none that ends
//! before its end.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use kore_gateway::fetch::answer::Answer;
use kore_gateway::cache::admit::judge;
use kore_gateway::clock::{Clock, UnixMillis};
use kore_gateway::lifecycle::phase::Rule;
use kore_gateway::routes::{self, Requested, Found, Key, RequestLimits, Query, Request};
use kore_gateway::lifecycle::sightings::Sightings;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

/// 2026-03-02T12:00:00Z.
const NOON: i64 = 1_772_452_800_000;
const HOUR: Duration = Duration::from_secs(3600);
const LIMITS: RequestLimits = RequestLimits { conversation_details_limit: 100, max_json_depth: 32 };

fn query(method: &Method, target: &'static str, body: &str) -> Query {
    let target = PathAndQuery::from_static(target);
    let Found::Route(route, ids) = routes::find(method, &target) else { panic!("{target} leads nowhere") };
    let body = (method == Method::POST).then_some(body.as_bytes());
    let canonical = (route.parse)(&Request { ids: &ids, query: "", body, limits: LIMITS }).expect("valid");
    Query {
        route,
        account: Arc::from("account"),
        bot: ids.bot().map(Arc::from),
        key: Key::new("account", route, &ids, &canonical),
        plain: None,
        drops_text: false,
        requested: canonical.requested,
    }
}

static QUERIES: LazyLock<[Query; 3]> = LazyLock::new(|| {
    let window = r#"{"startDate":"2026-02-16","endDate":"2026-02-20","timeZoneOffset":0}"#;
    [
        query(&Method::GET, "/agentassist/api/v1/public/st-1/conversations/c-1", ""),
        query(&Method::POST, "/agentassist/api/public/analytics/account/a1/v2/interactionDetails", window),
        query(&Method::POST, "/api/public/bot/st-1/conversationDetails", r#"{"sessionId":"s1"}"#),
    ]
});

/// Everything that may be kept is.
const RULE: Rule = Rule {
    settle: HOUR,
    settled_ttl: HOUR,
    over_ttl: HOUR,
    live_ttl: HOUR,
    summary_ttl: None,
    not_found_ttl: Duration::ZERO,
    stale_while_revalidate: HOUR,
    stale_if_error: HOUR,
};

fn is_kept(query: &Query, body: &[u8]) -> bool {
    let answer = Answer {
        status: StatusCode::OK,
        content_type: None,
        retry_after: None,
        body: body.into(),
        asked_at: Clock::manual(UnixMillis(NOON)).moment(),
    };
    judge(query, &RULE, &Sightings::new(16), answer).is_ok_and(|judgement| {
        assert_eq!(*judgement.entry.answer.body, *body);
        judgement.verdict.is_ok()
    })
}

fuzz_target!(|input: &[u8]| {
    let [route, cut, body @ ..] = input else { return };
    let query = &QUERIES[usize::from(*route) % 3];
    if !is_kept(query, body) {
        return;
    }
    serde_json::from_slice::<&RawValue>(body).expect("what is kept is whole");
    // The grammar bounds neither a number nor the nesting (RFC 8259, sections 6 and 9); a `Value` does.
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        match &query.requested {
            Requested::Conversation { id } => assert_eq!(value["_id"], **id),
            Requested::Window { .. } => assert!(value["data"].is_array()),
            Requested::Transcript(transcript) => {
                assert_eq!(value["conversationInfo"]["sessionId"], *transcript.id);
            }
        }
    }
    let end = body.trim_ascii_end().len();
    let cut = usize::from(*cut) * end / 256;
    assert!(!is_kept(query, &body[..cut]), "kept, and it ends in the middle");
});
