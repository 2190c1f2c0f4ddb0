//! `POST /api/public/bot/{botId}/conversationDetails`: a transcript, with a summary if asked.

use std::borrow::Cow;

use http::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::body::Members;
use super::params::{MOST_OFFSET, Params};
use super::query::{Asked, Misfit, Reading, Transcript};
use super::{Base, Canonical, Name, Request, Route, Scope, ids, shown};
use crate::error::Fault;
use crate::phase::Phase;
use crate::seen::Kind;

pub const ROUTE: Route = Route {
    name: Name::ConversationDetails,
    method: Method::POST,
    paths: &["/api/public/bot/{botId}/conversationDetails"],
    scope: Scope::ChatHistory,
    base: Base::Automation,
    parse,
    read,
};

/// An id that can name a transcript: its member, its kind and its shape.
type Named = (&'static str, Kind, fn(&str) -> Result<(), &'static str>);

/// In the upstream's order of precedence: of several, the first counts and the rest is ignored.
const NAMED_BY: [Named; 3] = [
    ("sessionId", Kind::Session, ids::session),
    ("callId", Kind::Call, ids::call),
    ("conversationId", Kind::Conversation, ids::conversation),
];

fn parse(request: &Request<'_>) -> Result<Canonical, Vec<Fault>> {
    let mut faults = request.ids.faults();
    let mut params = Params::parse(request.query);
    faults.append(&mut params.faults);
    let Some(body) = request.body else { return Err(faults) };

    let mut members = Members::parse(body, request.limits.max_json_depth);
    let named = named(&mut members);
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
            body: members.canonical(),
            asked: Asked::Transcript(Transcript { kind, id, with_summary }),
        }),
        _ => Err(faults),
    }
}

/// The id that counts. All are checked, those that the upstream ignores are taken out.
fn named(members: &mut Members) -> Option<(Kind, String)> {
    let mut first = None;
    let mut any = false;
    for (name, kind, shape) in NAMED_BY {
        any |= members.has(name);
        let Some(id) = members.string(name, "a string") else { continue };
        if let Err(expected) = shape(&id) {
            members.fault(name, format_args!("is {}; it is {expected}", shown(&id)));
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
    first
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
        members.put("skip", 0);
    }
}

/// The members every transcript has; no status is among them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    conversation_info: Info<'a>,
    #[expect(dead_code, reason = "looked for, not used")]
    conversation_history: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    #[serde(borrow)]
    session_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    call_id: Option<Cow<'a, str>>,
}

/// It is the session asked for, if a session was asked for; the `callId` that comes back can be
/// another than the one that was sent.
fn read(asked: &Asked, body: &[u8]) -> Result<Reading, Misfit> {
    let Asked::Transcript(Transcript { kind, id, .. }) = asked else { return Err(Misfit::Identity) };
    let body: Body<'_> = serde_json::from_slice(body).map_err(|error| Misfit::from_json(&error))?;
    let Info { session_id, call_id } = body.conversation_info;
    if *kind == Kind::Session && session_id.as_ref().is_some_and(|session| session != id) {
        return Err(Misfit::Identity);
    }
    let mut known_by = vec![(*kind, id.clone())];
    let told = [(Kind::Session, session_id), (Kind::Call, call_id)];
    known_by.extend(told.into_iter().filter_map(|(kind, id)| Some((kind, id?.into_owned()))));
    Ok(Reading { phase: Phase::Unknown, sightings: Vec::new(), known_by, bot: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_by(kind: Kind, id: &str) -> Asked {
        Asked::Transcript(Transcript { kind, id: id.to_owned(), with_summary: false })
    }

    #[test]
    fn a_transcript_is_known_by_what_was_asked_and_by_what_it_names() {
        let body = br#"{"conversationInfo":{"sessionId":"s1","callId":"k1"},"conversationHistory":[]}"#;
        let reading = read(&asked_by(Kind::Call, "k0"), body).expect("the right shape");
        let expected = [(Kind::Call, "k0"), (Kind::Session, "s1"), (Kind::Call, "k1")];
        assert_eq!(reading.known_by, expected.map(|(kind, id)| (kind, id.to_owned())));
        assert_eq!(reading.phase, Phase::Unknown);
    }

    #[test]
    fn another_session_is_no_answer() {
        let body = br#"{"conversationInfo":{"sessionId":"s2"},"conversationHistory":[]}"#;
        assert_eq!(read(&asked_by(Kind::Session, "s1"), body), Err(Misfit::Identity));
        assert!(read(&asked_by(Kind::Call, "s1"), body).is_ok());
    }
}
