//! E1: one conversation as a bare object (contract §3).

use super::super::Conversation;
use super::super::conversation::{Said, Stage, uuid};
use super::super::json::{Json, empty_list, list, object};
use super::super::options::OverLimit;
use super::super::refusal::Refusal;
use super::super::time::utc;
use super::super::wire::Request;
use super::{limit, number, parameter};

/// The four parameters that the page lists and no sample sends.
pub(crate) fn check(request: &Request, conversation: &str) -> Result<(), Refusal> {
    limit(number(request, "limit")?, 100, OverLimit::Refuse)?;
    let named = parameter(request, "conversationId")?;
    let dates = [parameter(request, "dateFrom")?, parameter(request, "dateTo")?];
    if named.is_some() && dates.iter().any(Option::is_some) {
        return Err(Refusal::arguments("conversationId together with a date"));
    }
    match named {
        Some(named) if named != conversation => {
            Err(Refusal::arguments("conversationId differs from the path"))
        }
        _ => Ok(()),
    }
}

pub(crate) fn answer(record: Option<&Conversation>, account: &str, now_ms: i64) -> Result<Json, Refusal> {
    record
        .and_then(|record| Some(render(record, record.stage(now_ms)?, account, now_ms)))
        .ok_or(Refusal::NotFound("Conversation not found"))
}

/// A conversation that nobody asked for.
pub(crate) fn of_somebody_else(record: &Conversation, now_ms: i64) -> Json {
    render(record, Stage::Wrapped, super::super::OTHER_ACCOUNT, now_ms)
}

fn render(record: &Conversation, stage: Stage, account: &str, now_ms: i64) -> Json {
    let voice = record.is_voice();
    let taken = stage >= Stage::Active;
    let end_ms = record.end_ms.filter(|_| stage >= Stage::Ended);
    let participants = taken.then(|| participant(record, end_ms));
    let mut body = object([
        ("participants", list(participants)),
        ("transferDetails", empty_list()),
        ("waitTime", (record.accepted_ms() - record.start_ms).into()),
        ("isProactiveAgentAssistEnabled", true.into()),
    ]);
    match &record.status {
        Said::Always(status) => body.push("status", status),
        Said::Nothing => {}
        Said::Life => body.push("status", status(stage)),
    }
    for (name, value) in [
        ("callbackOpted", voice.into()),
        ("contactFlow", empty_list()),
        ("surveyRequired", "YES".into()),
        ("isDeveloper", false.into()),
        ("_id", (&record.conversation_id).into()),
        ("orgId", format!("o-{}", &record.part_id("org")[..12]).into()),
        ("userId", (&record.user_id).into()),
        ("accountId", account.into()),
        ("botId", (&record.stream).into()),
        ("source", if voice { "audiocodes" } else { "rtm" }.into()),
        ("botSessionId", (&record.session_id).into()),
        ("language", "en".into()),
        ("keyIntentName", "TalkToAgent".into()),
        ("keyIntentUserInput", "I want to talk to an agent".into()),
        ("conversationType", if voice { "voice" } else { "messaging" }.into()),
        ("priority", 5.into()),
        ("queues", list([queue(record)])),
        ("startTime", utc(record.start_ms).into()),
    ] {
        body.push(name, value);
    }
    if voice {
        add_voice(&mut body, record);
    }
    if let Some(end_ms) = end_ms {
        body.push("endTime", utc(end_ms));
    }
    body.push("formData", form_data(record));
    body.push("timestampValue", record.start_ms);
    body.push("createdAt", utc(record.start_ms));
    body.push("updatedAt", utc(record.updated_ms(now_ms)));
    body.push("__v", 0);
    body.push("skills", empty_list());
    if taken {
        body.push("acceptedAt", utc(record.accepted_ms()));
    }
    let wrapped_ms = record.wrapped_ms().filter(|_| stage == Stage::Wrapped);
    body.push("notes", list(wrapped_ms.map(|at| note(record, at))));
    if wrapped_ms.is_some() {
        body.push("dispositions", dispositions());
    }
    body.push("userInfo", user_info(record));
    body
}

fn status(stage: Stage) -> &'static str {
    match stage {
        Stage::Queued => "OPEN",
        Stage::Active | Stage::Ended => "ACTIVE",
        Stage::Closed | Stage::Wrapped => "CLOSED",
    }
}

/// Says ACTIVE for ever: nested statuses outlive the conversation (sample).
fn participant(record: &Conversation, end_ms: Option<i64>) -> Json {
    let mut participant = object([
        ("queueId", (&record.queue_id).into()),
        ("queueName", "Default Queue".into()),
        ("agentId", record.agent_id().into()),
        ("name", "Mina Park".into()),
        ("status", "ACTIVE".into()),
        ("assignedAt", utc(record.accepted_ms()).into()),
        ("startTimeStamp", utc(record.accepted_ms()).into()),
    ]);
    if let Some(end_ms) = end_ms {
        participant.push("endTimeStamp", utc(end_ms));
    }
    participant
}

/// Says ACTIVE for ever, too.
fn queue(record: &Conversation) -> Json {
    object([
        ("type", "ASSIGNED".into()),
        ("status", "ACTIVE".into()),
        ("isPreferredAgentTimeoutExpired", true.into()),
        ("id", (&record.queue_id).into()),
        ("name", "Default Queue".into()),
        ("startTime", utc(record.start_ms).into()),
    ])
}

/// A voice record's own `conversationId` is another UUID: the identity is `_id` (contract §3).
fn add_voice(body: &mut Json, record: &Conversation) {
    let digits = record.part_id("voice") + &record.part_id("voice, continued");
    body.push("phoneNumber", "+15550599716");
    body.push("conversationId", uuid(&digits));
    body.push("botSIPURI", "agent5@example.com");
    body.push("CallIDData", &record.call_id);
    body.push("startSessionTime", utc(record.start_ms));
}

fn form_data(record: &Conversation) -> Json {
    let padding = (record.padding > 0).then(|| object([("padding", padding(record))]));
    list(padding)
}

/// Text of the record's `padding` length.
pub(super) fn padding(record: &Conversation) -> Json {
    "lorem ipsum ".chars().cycle().take(record.padding).collect::<String>().into()
}

fn note(record: &Conversation, at_ms: i64) -> Json {
    object([
        ("_id", record.part_id("note").into()),
        ("conversationId", (&record.conversation_id).into()),
        ("note", "Helped the customer; nothing is left open.".into()),
        ("timestamp", utc(at_ms).into()),
    ])
}

fn dispositions() -> Json {
    let set = [("dispositionsSet", "resolution".into()), ("dispositionCodes", "Resolved".into())];
    object([
        ("status", "Resolved".into()),
        ("remarks", "Helped the customer.".into()),
        ("dispositionSets", list([object(set)])),
        ("metaStatus", "AGENT_CLOSED".into()),
    ])
}

fn user_info(record: &Conversation) -> Json {
    object([
        ("profColour", "#ea540c".into()),
        ("activationStatus", "active".into()),
        ("firstName", "Asha".into()),
        ("lastName", "Rao".into()),
        ("_id", (&record.user_id).into()),
        ("city", "Springfield".into()),
        ("country", "India".into()),
        ("ipAddress", "203.0.113.69".into()),
        ("queue", (&record.queue_id).into()),
        ("hostDomain", "https://platform.kore.ai".into()),
        ("os", "Windows".into()),
        ("device", "NA".into()),
    ])
}
