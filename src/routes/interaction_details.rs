//! `POST …/account/{accountId}/v2/interactionDetails`: all conversations of a window.

use std::borrow::Cow;
use std::collections::BTreeSet;

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::body::Members;
use super::date::{self, Date, LONGEST_WINDOW, Refused, Window};
use super::names::Names;
use super::openapi::{Description, Parameter};
use super::params::{MOST_OFFSET, Params};
use super::query::{IdentityProof, Misfit, Reading, Requested};
use super::{Base, Canonical, Listed, Request, RequestLimits, Route, RouteName, Scope, shown};
use crate::clock::UnixMillis;
use crate::error::Fault;
use crate::json::{Object, Owner, Texts};
use crate::lifecycle::phase::{Phase, Summary};
use crate::lifecycle::sightings::{self, IdKind, Sighting};

pub const ROUTE: Route = Route {
    name: RouteName::InteractionDetails,
    method: Method::POST,
    names: NAMES,
    listed: &[
        Listed { at: &[], members: &["accountId", "data", "numResults"] },
        Listed { at: &["data", "*"], members: LISTED_OF_ROW },
    ],
    paths: &[
        "/agentassist/api/public/analytics/account/{accountId}/v2/interactionDetails",
        "/agentassist/api/public/analytics/account/{accountId}/v2/calldetails",
    ],
    scope: Scope::Analytics,
    base: Base::ContactCenter,
    describe,
    parse,
    read,
};

const MOST_LIMIT: u64 = 100;
const NAMES: Names = Names {
    query: &["limit", "offset"],
    body: &[
        "startDate",
        "endDate",
        "timeZoneOffset",
        "bots",
        "channels",
        "queues",
        "selectedFields",
        "direction",
        "isAutomation",
    ],
};
const LISTED_OF_ROW: &[&str] = &[
    "accountId",
    "automationBotIDs",
    "botId",
    "campaigninfo",
    "channel",
    "channelSpecificUserId",
    "conversationId",
    "csatFeedback",
    "csatScore",
    "customerinfo",
    "destinations",
    "Direction",
    "disconnectingEvent",
    "dispositionRemarks",
    "dispositions",
    "errorDetails",
    "finalStatus",
    "isVoicemail",
    "lastIntentuserInput",
    "likeDislikeScore",
    "metaInfo",
    "npsScore",
    "orgId",
    "reason",
    "sessionEndTime",
    "sessionId",
    "sessionleveltags",
    "sessionStartTime",
    "skills",
    "smartStatus",
    "snoozeinfo",
    "surveyType",
    "userId",
    "userleveltags",
];
/// Filters: an empty one filters nothing.
const FILTERS: [&str; 3] = ["bots", "channels", "queues"];
const DIRECTIONS: [&str; 3] = ["Inbound", "Outbound", "Both"];
const DATE: &str =
    "`yyyy-mm-dd HH:mm:ss` or `yyyy-mm-dd` of a year from 1970 to 2999, for example \"2026-02-16\"";
/// The contract shows 630 and −500, which are no zone's; UTC+14 is the farthest there is.
const FARTHEST_MINUTES: i32 = 14 * 60;
const OFFSET: &str =
    "a whole number of minutes from -840 to 840, west of Greenwich positive, for example -330 for India";

/// The final statuses of a row that has ended. TRANSIENT_OPEN is live although such a row carries
/// a `sessionEndTime`; anything else, or none, is live too.
const OVER: [&str; 4] = ["CLOSED", "BotResolved", "Dropped", "USER ABANDONED"];

fn describe(_: RequestLimits) -> Description {
    let date = |text: &str| json!({ "type": "string", "pattern": date::pattern(), "description": text });
    let set = |text: &str| json!({ "type": "array", "items": { "type": "string" }, "description": text });
    Description {
        summary: "All conversations of a window",
        text: "One row for each conversation, bot-only ones included, of at most seven days. A window comes out of \
               the cache once it is past and all its rows are over.",
        parameters: vec![
            Parameter {
                name: "limit",
                schema: json!({ "type": "integer", "minimum": 1, "maximum": MOST_LIMIT, "default": MOST_LIMIT }),
                text: "Rows of a page.",
            },
            Parameter {
                name: "offset",
                schema: json!({ "type": "integer", "minimum": 0, "maximum": MOST_OFFSET, "default": 0 }),
                text: "Pages to skip, or rows: the vendor has said both.",
            },
        ],
        body: json!({
            "type": "object",
            "required": ["startDate", "endDate", "timeZoneOffset"],
            "properties": {
                "startDate": date("`yyyy-mm-dd` or `yyyy-mm-dd HH:mm:ss`, in the zone of `timeZoneOffset`."),
                "endDate": date("Not before `startDate`, and at most seven days after it. A day alone means all of it."),
                "timeZoneOffset": {
                    "type": "integer",
                    "minimum": -FARTHEST_MINUTES,
                    "maximum": FARTHEST_MINUTES,
                    "description": "Minutes, west of Greenwich positive, for example -330 for India. Times in the answer are in this zone.",
                },
                "bots": set("Filter; empty is none."),
                "channels": set("Filter; empty is none."),
                "queues": set("Filter; empty is none."),
                "selectedFields": set("Members of a row to send along: skills, customerinfo, userleveltags, sessionleveltags, campaigninfo, snoozeinfo."),
                "direction": { "type": "string", "enum": DIRECTIONS },
                "isAutomation": { "type": "boolean" },
            },
            "examples": [{
                "startDate": "2026-02-16",
                "endDate": "2026-02-22",
                "timeZoneOffset": -330,
                "selectedFields": ["skills"],
            }],
        }),
        answer: json!({
            "type": "object",
            "properties": {
                "numResults": { "type": "integer", "description": "Rows of the page, or of all pages: the vendor has not said." },
                "data": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "sessionId": { "type": "string" },
                            "conversationId": { "type": "string", "description": "Missing where no agent was involved." },
                            "botId": { "type": "string" },
                            "channel": { "type": "string" },
                            "sessionStartTime": { "type": "string" },
                            "sessionEndTime": { "type": "string" },
                            "finalStatus": { "type": "string", "description": "CLOSED, BotResolved, Dropped and USER ABANDONED are over." },
                        },
                    },
                },
            },
        }),
    }
}

fn parse(request: &Request<'_>) -> Result<Canonical, Vec<Fault>> {
    let mut faults = request.ids.faults();
    let mut params = Params::parse(request.query, &NAMES);
    params.whole_number("limit", 1, MOST_LIMIT, Some(MOST_LIMIT));
    params.whole_number("offset", 0, MOST_OFFSET, Some(0));
    faults.append(&mut params.faults);
    let Some(body) = request.body else { return Err(faults) };

    let mut members = Members::parse(body, request.limits.max_json_depth, &NAMES);
    for name in FILTERS {
        members.set(name, true);
    }
    // What no list and an empty list select, nobody has said; they stay apart.
    members.set("selectedFields", false);
    members.boolean("isAutomation", None);
    if let Some(direction) = members.string("direction", "one of \"Inbound\", \"Outbound\", \"Both\"")
        && !DIRECTIONS.contains(&direction.as_str())
    {
        members.fault(
            "direction",
            format_args!("is {}; it is one of \"Inbound\", \"Outbound\", \"Both\"", shown(&direction)),
        );
    }
    let window = window(&mut members);
    let offset_minutes = members.minutes("timeZoneOffset", -FARTHEST_MINUTES, FARTHEST_MINUTES, OFFSET);
    if !members.has("timeZoneOffset") && members.is_readable() {
        members.fault("timeZoneOffset", format_args!("is missing; it is {OFFSET}"));
    }
    faults.append(&mut members.faults);

    match (window, offset_minutes) {
        (Some(window), Some(offset_minutes)) if faults.is_empty() => {
            let canonical = window.canonical();
            if canonical.start != window.start {
                members.put("startDate", canonical.start.to_string());
            }
            let utc = |local| date::to_utc(local, offset_minutes);
            let (Some(start), Some(end)) = (utc(window.start.start()), utc(window.end.end())) else {
                return Err(vec![Fault::at_pointer("/endDate", "`endDate` is beyond the calendar")]);
            };
            Ok(Canonical {
                query: params.canonical(),
                body: members.canonical(),
                plain_body: None,
                drops_text: params.drops_text || members.drops_text,
                requested: Requested::Window { start, end, offset_minutes },
            })
        }
        _ => Err(faults),
    }
}

/// Both dates, if they are there and make a window the upstream serves.
fn window(members: &mut Members) -> Option<Window> {
    let mut date = |name: &'static str| {
        if !members.has(name) && members.is_readable() {
            members.fault(name, format_args!("is missing; it is {DATE}"));
        }
        let text = members.string(name, DATE)?;
        let date = Date::parse(&text);
        if date.is_none() {
            members.fault(name, format_args!("is {}; it is {DATE}", shown(&text)));
        }
        date
    };
    let (start, end) = (date("startDate"), date("endDate"));
    let window = Window { start: start?, end: end? };
    match window.check() {
        Ok(()) => return Some(window),
        Err(Refused::EndsBeforeItStarts) => members.fault(
            "endDate",
            format_args!(
                "is {end}, before `startDate`, which is {start}",
                end = window.end,
                start = window.start
            ),
        ),
        Err(Refused::TooLong { length, last_end }) => members.fault(
            "endDate",
            format_args!(
                "is {end}, which makes a window of {hours} from {start}; the upstream serves at most seven \
                 days: end at {last_end}, and ask for the rest apart",
                end = window.end,
                start = window.start,
                hours = days_and_more(length),
            ),
        ),
    }
    None
}

/// A length in days, hours, minutes and seconds, without the parts that are zero.
fn days_and_more(length: jiff::SignedDuration) -> String {
    debug_assert!(length > LONGEST_WINDOW);
    let seconds = length.as_secs();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let shown: Vec<_> = parts
        .iter()
        .filter(|(amount, _)| *amount > 0)
        .map(|(amount, unit)| format!("{amount} {unit}"))
        .collect();
    shown.join(" ")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    data: Vec<Object<Row<'a>>>,
    #[serde(borrow, default)]
    account_id: Owner<'a>,
    /// Its presence is part of the shape. Rows of the page or of all pages: nobody has said.
    #[expect(dead_code, reason = "looked for, not used")]
    num_results: serde::de::IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    #[serde(borrow)]
    final_status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    session_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    conversation_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    session_start_time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    session_end_time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    bot_id: Option<Cow<'a, str>>,
    /// What a transcript is asked for under, where that is not `bot_id`.
    #[serde(rename = "automationBotIDs", borrow, default)]
    automation_bots: Texts<'a>,
    #[serde(borrow, default)]
    account_id: Owner<'a>,
}

impl Row<'_> {
    /// Over since its end; since the window's end where it has none.
    fn phase(&self, window_end: UnixMillis, offset_minutes: i32) -> Phase {
        if !self.final_status.as_ref().is_some_and(|status| OVER.contains(&status.as_ref())) {
            return Phase::Live;
        }
        match &self.session_end_time {
            None => Phase::Closed { since: window_end },
            Some(text) => match date::row_time(text, offset_minutes) {
                Some(since) => Phase::Closed { since },
                None => Phase::Unknown,
            },
        }
    }

    /// Whether it lies wholly before or wholly after the window. By which of its times the upstream
    /// picks a row, nobody has said, so one that touches the window fits.
    fn is_outside(&self, start: UnixMillis, end: UnixMillis, offset_minutes: i32) -> bool {
        let time = |text: &Option<Cow<'_, str>>| date::row_time(text.as_ref()?, offset_minutes);
        let (first, last) = (time(&self.session_start_time), time(&self.session_end_time));
        first.zip(last).is_some_and(|(first, last)| first.min(last) > end || first.max(last) < start)
    }
}

/// Over when every row is, and not before the window itself has ended: the window's end is part of
/// `since`. An empty past window is over.
fn read(requested: &Requested, body: &[u8]) -> Result<Reading, Misfit> {
    let Requested::Window { start, end, offset_minutes } = *requested else { return Err(Misfit::Other) };
    let Object(body): Object<Body<'_>> =
        serde_json::from_slice(body).map_err(|error| Misfit::from_json(&error))?;
    let mut reading = Reading {
        phase: Phase::Closed { since: end },
        sightings: Vec::with_capacity(body.data.len()),
        known_by: Vec::new(),
        bots: Vec::new(),
        accounts: Vec::new(),
        identity: IdentityProof::Proven,
        summary: Summary::NotAsked,
    };
    let mut bots = BTreeSet::new();
    let mut accounts = BTreeSet::from_iter(body.account_id.0);
    for Object(row) in body.data {
        let phase = row.phase(end, offset_minutes);
        reading.phase = reading.phase.and(phase);
        if row.is_outside(start, end, offset_minutes) {
            reading.identity = IdentityProof::Unproven;
        }
        accounts.extend(row.account_id.0);
        let automation = row.automation_bots.0.into_iter().filter_map(|bot| Some(Box::from(bot.0?)));
        let its_bots = row.bot_id.as_deref().map(Box::from).into_iter().chain(automation).collect();
        bots.extend(row.bot_id);
        let named = [(IdKind::Session, row.session_id), (IdKind::Conversation, row.conversation_id)];
        let names: Vec<_> =
            named.into_iter().filter_map(|(kind, id)| Some(sightings::HashedId::new(kind, &id?))).collect();
        // What names nothing is no row of the vendor's: anything may stand in it.
        if names.is_empty() {
            reading.identity = IdentityProof::Unproven;
        }
        reading.sightings.push(Sighting { names, phase, bots: its_bots });
    }
    reading.bots = bots.into_iter().map(Box::from).collect();
    reading.accounts = accounts.into_iter().map(Box::from).collect();
    Ok(reading)
}

/// The phase of the rows of a window's answer that are `own`, by their `botId`: of an empty window, if none is.
pub fn phase_of_own_rows(requested: &Requested, body: &[u8], own: impl Fn(&str) -> bool) -> Phase {
    let Requested::Window { end, offset_minutes, .. } = *requested else { return Phase::Unknown };
    let Ok(Object(body)) = serde_json::from_slice::<Object<Body<'_>>>(body) else { return Phase::Unknown };
    let rows = body.data.iter().filter(|Object(row)| row.bot_id.as_deref().is_some_and(&own));
    rows.map(|Object(row)| row.phase(end, offset_minutes)).fold(Phase::Closed { since: end }, Phase::and)
}

#[cfg(test)]
mod tests;
