//! `GET …/public/{streamId}/conversations/{conversationId}`: one conversation, as it is now.

use std::borrow::Cow;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::names::Names;
use super::openapi::{Description, Parameter};
use super::params::Params;
use super::query::{IdentityProof, Misfit, Reading, Requested};
use super::{Base, Canonical, Listed, Request, RequestLimits, Route, RouteName, Scope, date, ids, shown};
use crate::error::Fault;
use crate::json::{Object, Owner, Text};
use crate::lifecycle::phase::{Phase, Summary};
use crate::lifecycle::sightings::{self, IdKind, Sighting};

pub const ROUTE: Route = Route {
    name: RouteName::Conversation,
    method: Method::GET,
    names: NAMES,
    listed: &[Listed { at: &[], members: LISTED }],
    paths: &["/agentassist/api/v1/public/{streamId}/conversations/{conversationId}"],
    scope: Scope::Analytics,
    base: Base::ContactCenter,
    describe,
    parse,
    read,
};

const MOST_LIMIT: u64 = 100;
const NAMES: Names = Names { query: &["limit", "dateFrom", "dateTo", "conversationId"], body: &[] };

const LISTED: &[&str] = &[
    "_id",
    "__v",
    "acceptedAt",
    "accountId",
    "agentDesktopMeta",
    "botId",
    "botSessionId",
    "botSIPURI",
    "callbackOpted",
    "CallIDData",
    "contactFlow",
    "conversationId",
    "conversationType",
    "createdAt",
    "dispositions",
    "endTime",
    "formData",
    "isDeveloper",
    "isProactiveAgentAssistEnabled",
    "keyIntentName",
    "keyIntentUserInput",
    "language",
    "notes",
    "orgId",
    "participants",
    "phoneNumber",
    "priority",
    "queues",
    "sentimentTone",
    "skills",
    "source",
    "startSessionTime",
    "startTime",
    "status",
    "surveyRequired",
    "timestampValue",
    "transferDetails",
    "updatedAt",
    "userId",
    "userInfo",
    "waitTime",
];

/// The statuses of a conversation that has ended. ACTIVE, IDLE, OPEN, OVERDUE, and whatever the
/// vendor comes up with, are live.
const OVER: [&str; 2] = ["CLOSED", "TERMINATED"];

fn describe(_: RequestLimits) -> Description {
    let date = || json!({ "type": "string", "pattern": date::pattern_of_moments(), "examples": ["2026-02-16", "2026-02-16 12:00:00", "2026-02-16T12:00:00Z"] });
    let (id, _) = ids::pattern("conversationId");
    Description {
        summary: "One conversation, as it is now",
        text: "The conversation's record: participants, queues, times, dispositions. It is over, and comes out of \
               the cache, once `status` is CLOSED or TERMINATED.\n\nParameters that are not listed are passed on. \
               Each parameter is sent once.",
        parameters: vec![
            Parameter {
                name: "limit",
                schema: json!({ "type": "integer", "minimum": 1, "maximum": MOST_LIMIT }),
                text: "Passed on.",
            },
            Parameter { name: "dateFrom", schema: date(), text: "Passed on." },
            Parameter { name: "dateTo", schema: date(), text: "Passed on; not before `dateFrom`." },
            Parameter {
                name: "conversationId",
                schema: json!({ "type": "string", "pattern": id }),
                text: "The same as in the path, or left out; not together with `dateFrom` or `dateTo`.",
            },
        ],
        body: Value::Null,
        answer: json!({
            "type": "object",
            "properties": {
                "_id": { "type": "string", "description": "The conversation's id." },
                "status": { "type": "string", "description": "ACTIVE, CLOSED, IDLE, OPEN, OVERDUE, TERMINATED, and what the vendor may add." },
                "botId": { "type": "string" },
                "botSessionId": { "type": "string", "description": "The session of its transcript." },
                "startTime": { "type": "string" },
                "endTime": { "type": "string" },
                "updatedAt": { "type": "string" },
            },
        }),
    }
}

fn parse(request: &Request<'_>) -> Result<Canonical, Vec<Fault>> {
    let mut faults = request.ids.faults();
    let path_id = request.ids.conversation().unwrap_or_default();
    let mut params = Params::parse(request.query, &NAMES);
    params.whole_number("limit", 1, MOST_LIMIT, None);

    let dates = ["dateFrom", "dateTo"];
    let mut moments = [None, None];
    for (name, moment) in dates.into_iter().zip(&mut moments) {
        let Some(text) = params.get(name) else { continue };
        *moment = date::moment(text);
        if moment.is_none() {
            let problem = format!(
                "is {}; it is `yyyy-mm-dd`, `yyyy-mm-dd HH:mm:ss` or an RFC 3339 time, of a year from 1970 to 2999",
                shown(text)
            );
            params.fault(name, problem);
        }
    }
    if let [Some(from), Some(to)] = moments
        && to < from
    {
        params.fault("dateTo", "is before `dateFrom`");
    }
    if let Some(id) = params.get("conversationId") {
        if id != path_id {
            let problem = format!("is {}, but the path says {}; leave it out", shown(id), shown(path_id));
            params.fault("conversationId", problem);
        }
        if dates.iter().any(|name| params.get(name).is_some()) {
            params.fault(
                "conversationId",
                "cannot be combined with `dateFrom` and `dateTo`; send one or the other",
            );
        }
    }

    let query = params.canonical();
    faults.append(&mut params.faults);
    if faults.is_empty() {
        let requested = Requested::Conversation { id: path_id.to_owned() };
        Ok(Canonical {
            query,
            body: String::new(),
            plain_body: None,
            drops_text: params.drops_text,
            requested,
        })
    } else {
        Err(faults)
    }
}

/// The members that say what it is and whether it is over. `participants[].status` and
/// `queues[].status` stay ACTIVE on a closed conversation, so only the top level counts. A member of
/// another type than documented is as good as none: it must not hide whose conversation it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(rename = "_id", borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    status: Text<'a>,
    #[serde(borrow, default)]
    end_time: Text<'a>,
    #[serde(borrow, default)]
    updated_at: Text<'a>,
    #[serde(borrow, default)]
    account_id: Owner<'a>,
    #[serde(borrow, default)]
    bot_id: Text<'a>,
    #[serde(borrow, default)]
    bot_session_id: Text<'a>,
    /// On voice: a UUID of the call, not this conversation's id.
    #[serde(borrow, default)]
    conversation_id: Text<'a>,
    #[serde(rename = "CallIDData", borrow, default)]
    call_id_data: Text<'a>,
}

fn read(requested: &Requested, body: &[u8]) -> Result<Reading, Misfit> {
    let Requested::Conversation { id } = requested else { return Err(Misfit::Other) };
    let Object(body): Object<Body<'_>> =
        serde_json::from_slice(body).map_err(|error| Misfit::from_json(&error))?;
    if body.id != *id {
        return Err(Misfit::Other);
    }
    let phase = phase(&body);
    let named = [
        (IdKind::Conversation, Some(&body.id)),
        (IdKind::Session, body.bot_session_id.0.as_ref()),
        (IdKind::Call, body.conversation_id.0.as_ref()),
        (IdKind::Call, body.call_id_data.0.as_ref()),
    ];
    let names =
        named.into_iter().filter_map(|(kind, id)| Some(sightings::HashedId::new(kind, id?))).collect();
    let bot = body.bot_id.0.map(Box::from);
    Ok(Reading {
        phase,
        sightings: vec![Sighting { names, phase, bots: bot.clone().into_iter().collect() }],
        known_by: Vec::new(),
        // One that names no bot is nobody's: only who may see them all gets it.
        bots: vec![bot.unwrap_or_default()],
        accounts: body.account_id.0.map(Box::from).into_iter().collect(),
        identity: IdentityProof::Proven,
        summary: Summary::NotAsked,
    })
}

/// Over since the later of its end and its last change. Closed, but with neither of them readable:
/// over for how long is not known, so it is not taken for over.
fn phase(body: &Body<'_>) -> Phase {
    if !body.status.0.as_ref().is_some_and(|status| OVER.contains(&status.as_ref())) {
        return Phase::Live;
    }
    let ends = [&body.end_time.0, &body.updated_at.0];
    match ends.into_iter().flatten().filter_map(|text| date::utc(text)).max() {
        Some(since) => Phase::Closed { since },
        None => Phase::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    fn reading(body: &str) -> Result<Reading, Misfit> {
        read(&Requested::Conversation { id: "c-1".to_owned() }, body.as_bytes())
    }

    fn phase_of(members: &str) -> Phase {
        reading(&format!(r#"{{"_id":"c-1"{members}}}"#)).expect("the right shape").phase
    }

    #[test]
    fn only_closed_and_terminated_are_over() {
        let end = r#","endTime":"1970-01-01T00:00:01.000Z""#;
        for status in ["CLOSED", "TERMINATED"] {
            let over = phase_of(&format!(r#","status":"{status}"{end}"#));
            assert_eq!(over, Phase::Closed { since: UnixMillis(1000) }, "{status}");
        }
        for status in ["ACTIVE", "IDLE", "OPEN", "OVERDUE", "closed", "CLOSED ", "SOMETHING_NEW", ""] {
            assert_eq!(phase_of(&format!(r#","status":"{status}"{end}"#)), Phase::Live, "{status}");
        }
        assert_eq!(phase_of(end), Phase::Live);
    }

    #[test]
    fn over_counts_from_the_later_of_end_and_update() {
        let ended = r#","status":"CLOSED","endTime":"1970-01-01T00:00:01Z""#;
        let updated = r#","updatedAt":"1970-01-01T00:00:11Z""#;
        assert_eq!(phase_of(&format!("{ended}{updated}")), Phase::Closed { since: UnixMillis(11_000) });
        assert_eq!(phase_of(r#","status":"CLOSED","endTime":"yesterday""#), Phase::Unknown);
    }

    #[test]
    fn a_nested_status_does_not_decide() {
        let nested = r#","status":"ACTIVE","queues":[{"status":"CLOSED"}],"endTime":"1970-01-01T00:00:01Z""#;
        assert_eq!(phase_of(nested), Phase::Live);
    }

    #[test]
    fn a_member_of_another_type_does_not_hide_whose_conversation_it_is() {
        let odd = r#","botId":"st-2","status":1,"endTime":5,"CallIDData":{},"botSessionId":null"#;
        let read = reading(&format!(r#"{{"_id":"c-1"{odd}}}"#)).expect("the right shape");
        assert_eq!((read.bots, read.phase), (vec!["st-2".into()], Phase::Live));
        assert_eq!(reading(&format!(r#"{{"_id":"c-2"{odd}}}"#)), Err(Misfit::Other));
    }

    #[test]
    fn what_is_not_the_conversation_asked_for_is_no_answer() {
        assert_eq!(reading(r#"{"_id":"c-2","status":"CLOSED"}"#), Err(Misfit::Other));
        assert_eq!(reading(r#"{"status":"CLOSED"}"#), Err(Misfit::Shape));
        assert_eq!(reading("<html>"), Err(Misfit::Shape));
        assert_eq!(reading(r#"["c-1"]"#), Err(Misfit::Shape));
        assert_eq!(reading(r#"{"_id":"c-1","status":"CLO"#), Err(Misfit::Cut));
        assert_eq!(reading(""), Err(Misfit::Cut));
    }
}
