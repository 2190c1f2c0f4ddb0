//! `POST /api/public/bot/{botId}/conversationDetails`: a transcript, with a summary if asked.

use std::borrow::Cow;

use http::Method;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;

use super::body::Members;
use super::names::Names;
use super::openapi::Description;
use super::params::{MOST_OFFSET, Params};
use super::query::{IdentityProof, Misfit, Reading, Requested, Transcript};
use super::{Base, Canonical, Listed, Request, RequestLimits, Route, RouteName, Scope, ids, shown};
use crate::error::Fault;
use crate::json::{Object, Owner};
use crate::lifecycle::phase::{Phase, Summary};
use crate::lifecycle::sightings::{self, IdKind};

pub const ROUTE: Route = Route {
    name: RouteName::ConversationDetails,
    method: Method::POST,
    names: NAMES,
    listed: &[
        Listed {
            at: &[],
            members: &["accountId", "conversationFlow", "conversationHistory", "conversationInfo", "summary"],
        },
        Listed { at: &["conversationInfo"], members: LISTED_OF_INFO },
        Listed { at: &["conversationFlow", "*"], members: &["messageStoreId", "status", "taskName"] },
        Listed { at: &["conversationHistory", "*"], members: LISTED_OF_MESSAGE },
        Listed { at: &["summary"], members: &["ConversationSummary", "time"] },
    ],
    paths: &["/api/public/bot/{botId}/conversationDetails"],
    scope: Scope::ChatHistory,
    base: Base::Automation,
    describe,
    parse,
    read,
};

const NAMES: Names = Names {
    query: &[],
    body: &["sessionId", "callId", "conversationId", "skip", "offset", "limit", "isSummaryRequired", "lang"],
};

const LISTED_OF_INFO: &[&str] = &[
    "accountId",
    "agentHandOffTime",
    "callId",
    "currentTask",
    "sessionId",
    "sessionStartTime",
    "userDetails",
    "userId",
];
const LISTED_OF_MESSAGE: &[&str] = &[
    "agentAssistDetails",
    "channels",
    "components",
    "createdBy",
    "createdOn",
    "ire",
    "isBB",
    "iv",
    "lang",
    "lmodifiedBy",
    "lmodifiedOn",
    "ms",
    "status",
    "sT",
    "timestampValue",
    "tN",
    "type",
];

/// An id that can name a transcript: its member, its kind and its shape.
type Named = (&'static str, IdKind, fn(&str) -> Result<(), &'static str>);

/// In the upstream's order of precedence: of several, the first counts and the rest is ignored.
const NAMED_BY: [Named; 3] = [
    ("sessionId", IdKind::Session, ids::session),
    ("callId", IdKind::Call, ids::call),
    ("conversationId", IdKind::Conversation, ids::conversation),
];

fn describe(limits: RequestLimits) -> Description {
    let id = |name: &str, text: &str| {
        let (pattern, _) = ids::pattern(name);
        json!({ "type": "string", "pattern": pattern, "description": text })
    };
    let messages =
        |text: &str| json!({ "type": "integer", "minimum": 0, "maximum": MOST_OFFSET, "description": text });
    Description {
        summary: "The transcript of a conversation, with a summary if asked",
        text: "Named by one of three ids; of several, `sessionId` counts before `callId` before `conversationId`. \
               The answer does not say whether the conversation is over: that is learnt from the other two routes.",
        parameters: Vec::new(),
        body: json!({
            "type": "object",
            "not": { "required": ["skip", "offset"] },
            "anyOf": NAMED_BY.map(|(name, ..)| json!({ "required": [name] })),
            "properties": {
                "sessionId": id("sessionId", "The session between user and bot."),
                "callId": id("callId", "The call between user and bot."),
                "conversationId": id("conversationId", "The conversation between user and agent."),
                "skip": messages("Messages to leave out."),
                "offset": messages("The same under the vendor's other name; send one of the two."),
                "limit": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": limits.conversation_details_limit,
                    "description": "Messages of a page.",
                },
                "isSummaryRequired": { "type": "boolean", "default": false, "description": "A summary costs the upstream a language model's call." },
                "lang": { "type": "string", "description": "Of the summary, for example `en`." },
            },
            "examples": [{ "sessionId": "c1ff4062bab6678857b03e6c", "skip": 0, "limit": 100 }],
        }),
        answer: json!({
            "type": "object",
            "properties": {
                "conversationInfo": { "type": "object" },
                "conversationFlow": { "type": "array" },
                "conversationHistory": { "type": "array", "items": { "type": "object" }, "description": "The messages." },
                "summary": { "description": "If one was asked for and made." },
            },
        }),
    }
}

fn parse(request: &Request<'_>) -> Result<Canonical, Vec<Fault>> {
    let mut faults = request.ids.faults();
    let mut params = Params::parse(request.query, &NAMES);
    faults.append(&mut params.faults);
    let Some(body) = request.body else { return Err(faults) };

    let mut members = Members::parse(body, request.limits.max_json_depth, &NAMES);
    let (named, conversation) = named(&mut members);
    members.whole_number("limit", 1, request.limits.conversation_details_limit);
    page(&mut members);
    let with_summary = members.boolean("isSummaryRequired", Some(false)) == Some(true);
    members.string("lang", "a language, for example \"en\"");
    if !with_summary {
        // It is the summary's language.
        members.remove("lang");
    }
    faults.append(&mut members.faults);

    match named {
        Some((kind, id)) if faults.is_empty() => Ok(Canonical {
            query: params.canonical(),
            drops_text: params.drops_text || members.drops_text,
            plain_body: with_summary.then(|| plain(members.clone())),
            body: members.canonical(),
            requested: Requested::Transcript(Transcript { kind, id, conversation, with_summary }),
        }),
        _ => Err(faults),
    }
}

/// The canonical form of the same question without a summary.
fn plain(mut members: Members) -> String {
    members.put("isSummaryRequired", false);
    members.remove("lang");
    members.canonical()
}

/// The id that counts, and the conversation's if that is there too. All are checked, those that the upstream
/// ignores are taken out.
fn named(members: &mut Members) -> (Option<(IdKind, String)>, Option<String>) {
    let (mut first, mut conversation) = (None, None);
    let mut any = false;
    for (name, kind, shape) in NAMED_BY {
        any |= members.has(name);
        let Some(id) = members.string(name, "a string") else { continue };
        if let Err(expected) = shape(&id) {
            members.fault(name, format_args!("is {}; it is {expected}", shown(&id)));
        }
        if kind == IdKind::Conversation {
            conversation = Some(id.clone());
        }
        if first.is_none() {
            first = Some((kind, id));
        } else {
            members.remove(name);
        }
    }
    if !any && members.is_readable() {
        members.fault("sessionId", "is missing; send one of `sessionId`, `callId`, `conversationId`");
    }
    (first, conversation)
}

/// `skip` or `offset`: messages to leave out. Both names are documented, so both are accepted; from
/// the beginning is written as `skip: 0`.
fn page(members: &mut Members) {
    let skip = members.whole_number("skip", 0, MOST_OFFSET);
    let offset = members.whole_number("offset", 0, MOST_OFFSET);
    if members.has("skip") && members.has("offset") {
        if skip != offset {
            members.fault("offset", "means the same as `skip`, but they differ; send one of them");
        }
        members.remove("offset");
    }
    if offset == Some(0) {
        members.remove("offset");
    }
    if !members.has("skip") && !members.has("offset") {
        members.put("skip", 0_u64);
    }
}

/// The members every transcript has; no status is among them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    conversation_info: Object<Info<'a>>,
    #[expect(dead_code, reason = "looked for, not used")]
    conversation_history: Vec<IgnoredAny>,
    /// `null` is none.
    summary: Option<IgnoredAny>,
    #[serde(borrow, default)]
    account_id: Owner<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    #[serde(borrow)]
    session_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    call_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    account_id: Owner<'a>,
}

/// It is the session asked for, if a session was asked for. The `callId` that comes back can be
/// another than the one that was sent, and a conversation is not named at all: then the session
/// in the answer has to be known as the conversation's.
fn read(requested: &Requested, body: &[u8]) -> Result<Reading, Misfit> {
    let Requested::Transcript(Transcript { kind, id, with_summary, .. }) = requested else {
        return Err(Misfit::Other);
    };
    let Object(body): Object<Body<'_>> =
        serde_json::from_slice(body).map_err(|error| Misfit::from_json(&error))?;
    let summary = match (with_summary, body.summary) {
        (false, _) => Summary::NotAsked,
        (true, Some(_)) => Summary::There,
        (true, None) => Summary::Missing,
    };
    let Object(Info { session_id, call_id, account_id }) = body.conversation_info;
    let identity = match (kind, &session_id, &call_id) {
        (IdKind::Session, Some(session), _) if session != id => return Err(Misfit::Other),
        (IdKind::Session, Some(_), _) => IdentityProof::Proven,
        (IdKind::Call, _, Some(call)) if call == id => IdentityProof::Proven,
        (IdKind::Call | IdKind::Conversation, Some(session), _) => {
            IdentityProof::ProvenIf(sightings::HashedId::new(IdKind::Session, session))
        }
        _ => IdentityProof::Unproven,
    };
    let mut known_by = vec![sightings::HashedId::new(*kind, id)];
    let named = [(IdKind::Session, session_id), (IdKind::Call, call_id)];
    known_by.extend(named.into_iter().filter_map(|(kind, id)| Some(sightings::HashedId::new(kind, &id?))));
    known_by.dedup();
    Ok(Reading {
        phase: Phase::Unknown,
        sightings: Vec::new(),
        known_by,
        bots: Vec::new(),
        accounts: [body.account_id, account_id]
            .into_iter()
            .filter_map(|account| Some(account.0?.into()))
            .collect(),
        identity,
        summary,
    })
}

#[derive(Deserialize)]
struct Summarised<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    summary: Option<&'a RawValue>,
}

/// A `null` is there, too.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A transcript's bytes without its summary: the member is cut out, every other byte stays. `None`
/// where that cannot be done without a guess.
pub fn without_summary(body: &[u8]) -> Option<Vec<u8>> {
    let Object(Summarised { summary }) = serde_json::from_slice(body).ok()?;
    let Some(summary) = summary else { return Some(body.to_vec()) };
    let start = (summary.get().as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let (before, after) = (body.get(..start)?, body.get(start + summary.get().len()..)?);
    let before = before.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
    let before = before.strip_suffix(br#""summary""#)?.trim_ascii_end();
    // The comma goes that stood before it; if it was the first member, the one behind it.
    match before.strip_suffix(b",") {
        Some(before) => Some([before, after].concat()),
        None => {
            let after = after.trim_ascii_start();
            Some([before, after.strip_prefix(b",").unwrap_or(after)].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_by(kind: IdKind, id: &str) -> Requested {
        Requested::Transcript(Transcript { kind, id: id.to_owned(), conversation: None, with_summary: false })
    }

    #[test]
    fn a_transcript_is_known_by_what_was_asked_and_by_what_it_names() {
        let body = br#"{"conversationInfo":{"sessionId":"s1","callId":"k1"},"conversationHistory":[]}"#;
        let reading = read(&asked_by(IdKind::Call, "k0"), body).expect("the right shape");
        let expected = [(IdKind::Call, "k0"), (IdKind::Session, "s1"), (IdKind::Call, "k1")];
        assert_eq!(reading.known_by, expected.map(|(kind, id)| sightings::HashedId::new(kind, id)));
        assert_eq!(reading.phase, Phase::Unknown);
    }

    #[test]
    fn another_session_is_no_answer() {
        let body = br#"{"conversationInfo":{"sessionId":"s2"},"conversationHistory":[]}"#;
        assert_eq!(read(&asked_by(IdKind::Session, "s1"), body), Err(Misfit::Other));
        assert!(read(&asked_by(IdKind::Call, "s1"), body).is_ok());
    }

    #[test]
    fn what_is_told_in_an_array_is_no_transcript() {
        for body in [
            r#"[{"sessionId":"s1"},[],null]"#,
            r#"{"conversationInfo":["s1","k1"],"conversationHistory":[]}"#,
        ] {
            assert_eq!(read(&asked_by(IdKind::Session, "s1"), body.as_bytes()), Err(Misfit::Shape), "{body}");
        }
    }

    #[test]
    fn who_is_not_named_has_to_be_known_by_the_session() {
        let body = br#"{"conversationInfo":{"sessionId":"s1","callId":"k1"},"conversationHistory":[]}"#;
        let identity = |kind, id| read(&asked_by(kind, id), body).expect("the right shape").identity;
        let by_session = IdentityProof::ProvenIf(sightings::HashedId::new(IdKind::Session, "s1"));
        assert_eq!(identity(IdKind::Session, "s1"), IdentityProof::Proven);
        assert_eq!(identity(IdKind::Call, "k1"), IdentityProof::Proven);
        assert_eq!(identity(IdKind::Call, "k0"), by_session);
        assert_eq!(identity(IdKind::Conversation, "c-1"), by_session);
        let nameless = br#"{"conversationInfo":{},"conversationHistory":[]}"#;
        let reading = read(&asked_by(IdKind::Session, "s1"), nameless).expect("the right shape");
        assert_eq!(reading.identity, IdentityProof::Unproven);
    }

    #[test]
    fn a_summary_is_cut_out_and_every_other_byte_stays() {
        let cut = |body: &str| without_summary(body.as_bytes()).and_then(|body| String::from_utf8(body).ok());
        let is = |body: &str, expected: &str| assert_eq!(cut(body).as_deref(), Some(expected), "{body}");
        is(r#"{"a": [1 ,2],"summary":{"x":"}\",","n":[{}]}}"#, r#"{"a": [1 ,2]}"#);
        is("{\n \"a\":1 , \"summary\" : null ,\"b\":2}", "{\n \"a\":1  ,\"b\":2}");
        is(r#"{"summary":"s","a":1}"#, r#"{"a":1}"#);
        is(r#"{"summary":{}}"#, "{}");
        is(r#"{"a":{"summary":1}}"#, r#"{"a":{"summary":1}}"#);
        assert_eq!(cut(r#"{"a":1,"\u0073ummary":{}}"#), None);
        assert_eq!(cut("[1]"), None);
    }
}
