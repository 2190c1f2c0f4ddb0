//! One element of `data[]` in interaction details, in the vendor's order and disorder.

use super::super::Conversation;
use super::super::conversation::{Said, Stage};
use super::super::json::{Json, empty_list, list, object};
use super::super::time::{naive, utc};

/// How a search wants its rows.
pub(super) struct Rendering<'a> {
    /// Minutes; east of GMT is negative.
    pub(super) offset_minutes: i64,
    pub(super) selected_fields: &'a [String],
}

impl Rendering<'_> {
    fn time(&self, ms: i64) -> Json {
        naive(ms, self.offset_minutes).into()
    }

    fn selects(&self, field: &str) -> bool {
        self.selected_fields.iter().any(|selected| selected == field)
    }
}

/// The row of a record that exists at `now_ms`.
pub(super) fn render(record: &Conversation, rendering: &Rendering<'_>, now_ms: i64) -> Json {
    let stage = record.stage(now_ms).unwrap_or(Stage::Queued);
    if record.has_agent {
        conversation(record, rendering, stage, now_ms)
    } else {
        session(record, rendering, stage)
    }
}

/// `TRANSIENT_OPEN` until closed: `smartStatus` never decides (contract §4).
fn final_status(record: &Conversation, stage: Stage) -> Option<Json> {
    match &record.final_status {
        Said::Always(status) => Some(status.into()),
        Said::Nothing => None,
        Said::Life if stage < Stage::Closed => Some("TRANSIENT_OPEN".into()),
        Said::Life if record.has_agent => Some("CLOSED".into()),
        Said::Life => Some("BotResolved".into()),
    }
}

/// The end as shown: a live row has one too, equal to its start (sample).
fn shown_end_ms(record: &Conversation, stage: Stage) -> i64 {
    match record.end_ms {
        Some(end_ms) if stage >= Stage::Ended => end_ms,
        _ => record.start_ms,
    }
}

fn session(record: &Conversation, rendering: &Rendering<'_>, stage: Stage) -> Json {
    let mut row = object([
        ("sessionId", (&record.session_id).into()),
        ("channel", (&record.channel).into()),
        ("sessionStartTime", rendering.time(record.start_ms)),
        ("sessionEndTime", rendering.time(shown_end_ms(record, stage))),
        ("botId", (&record.stream).into()),
        ("userId", (&record.user_id).into()),
        ("channelSpecificUserId", channel_user(record)),
        ("orgId", org(record)),
        ("smartStatus", "CLOSED AT BOT".into()),
        ("reason", "".into()),
        ("disconnectingEvent", "".into()),
    ]);
    if !drifts(record) {
        row.push("errorDetails", "");
    }
    if let Some(status) = final_status(record, stage) {
        row.push("finalStatus", status);
    }
    row.push("automationBotIDs", list([&record.stream]));
    row
}

fn conversation(record: &Conversation, rendering: &Rendering<'_>, stage: Stage, now_ms: i64) -> Json {
    let drifts = drifts(record);
    let closed = stage >= Stage::Closed;
    let mut row = object([
        ("conversationId", (&record.conversation_id).into()),
        ("sessionId", (&record.session_id).into()),
        ("channel", (&record.channel).into()),
        ("isVoicemail", if drifts { false.into() } else { "NO".into() }),
        ("Direction", record.direction.into()),
    ]);
    if rendering.selects("skills") {
        row.push("skills", empty_list());
    }
    if let Some(status) = final_status(record, stage) {
        row.push("finalStatus", status);
    }
    row.push("smartStatus", if closed { "CLOSED" } else { "" });
    let reason = if drifts { "Reason" } else { "reason" };
    row.push(reason, if closed { "Resolved" } else { "" });
    row.push("disconnectingEvent", if closed { "User Hangup" } else { "" });
    if !drifts {
        row.push("errorDetails", "");
    }
    row.push("botId", &record.stream);
    let dispositions = match stage {
        Stage::Wrapped => (list(["Resolved"]), list(["Helped the customer."])),
        _ => (empty_list(), empty_list()),
    };
    row.push("dispositions", dispositions.0);
    row.push("dispositionRemarks", dispositions.1);
    row.push("metaInfo", meta(record));
    if rendering.selects("customerinfo") {
        row.push(if drifts { "customerInfo" } else { "customerinfo" }, customer());
    }
    row.push("sessionStartTime", rendering.time(record.start_ms));
    row.push("sessionEndTime", rendering.time(shown_end_ms(record, stage)));
    row.push("channelSpecificUserId", channel_user(record));
    row.push("userId", &record.user_id);
    row.push("destinations", list([queue_entry(record, rendering, stage)]));
    if let Some(survey) = record.survey.as_ref().filter(|survey| survey.at_ms <= now_ms) {
        row.push("csatScore", survey.csat_score);
        row.push("surveyType", "csat");
        row.push("csatFeedback", &survey.feedback);
    }
    for field in ["userleveltags", "sessionleveltags"] {
        if rendering.selects(field) {
            row.push(field, empty_list());
        }
    }
    if rendering.selects("campaigninfo") {
        let fields = [("attempt", "".into()), ("contactStatus", "".into())];
        row.push("campaigninfo", object(fields));
    }
    row
}

/// The union's `QueueEntry`, with the agent who answered, once one did.
fn queue_entry(record: &Conversation, rendering: &Rendering<'_>, stage: Stage) -> Json {
    let mut entry = object([
        ("destinationType", "QueueEntry".into()),
        ("queueId", (&record.queue_id).into()),
        ("queueName", "Default Queue".into()),
        ("CallbackOpted", record.is_voice().into()),
        ("EnterTime", rendering.time(record.start_ms)),
    ]);
    if stage >= Stage::Active {
        entry.push("respondingAgent", agent(record, rendering, stage));
    }
    if record.is_voice() {
        // Unlike its neighbours this one is UTC whatever the offset (contract §4).
        entry.push("CallbackOptedTime", utc(record.start_ms));
    }
    entry
}

fn agent(record: &Conversation, rendering: &Rendering<'_>, stage: Stage) -> Json {
    let accepted_ms = record.accepted_ms();
    let mut agent = object([
        ("agentId", record.agent_id().into()),
        ("agentNotes", empty_list()),
        ("destinationType", "AgentSegment".into()),
        ("status", "Answered".into()),
        ("firstResponseTime", rendering.time(accepted_ms)),
        ("firstResponseDuration", 0.into()),
    ]);
    if let Some(end_ms) = record.end_ms.filter(|_| stage >= Stage::Ended) {
        agent.push("interactionEndTime", rendering.time(end_ms));
        agent.push("interactionDuration", (end_ms - accepted_ms) / 1_000);
    }
    if let Some(wrapped_ms) = record.wrapped_ms().filter(|_| stage == Stage::Wrapped) {
        agent.push("afterCallWorkDuration", record.after_call_work_ms / 1_000);
        agent.push("afterCallWorkEndTime", rendering.time(wrapped_ms));
    }
    agent.push("ConsultingAgents", empty_list());
    agent.push("JoinedUsers", empty_list());
    agent.push("email", "agent5@example.com");
    agent.push("name", "Mina Park");
    agent.push("acceptedTime", rendering.time(accepted_ms));
    agent.push("assignedAt", rendering.time(accepted_ms));
    if rendering.selects("snoozeinfo") {
        agent.push("snoozeinfo", empty_list());
    }
    agent
}

/// Every third record is spelled like the older samples: other cases, other types, less keys.
fn drifts(record: &Conversation) -> bool {
    record.n % 3 == 2
}

fn meta(record: &Conversation) -> Json {
    object([
        ("userId", (&record.user_id).into()),
        ("firstName", "Asha".into()),
        ("lastName", "Rao".into()),
        ("ipAddress", "203.0.113.69".into()),
        ("hostDomain", "https://platform.kore.ai".into()),
    ])
}

fn customer() -> Json {
    object([
        ("CustomerPhone", "+15550599716".into()),
        ("CenterPhone", "".into()),
        ("CustomerFirstName", "Asha".into()),
        ("CustomerLastName", "Rao".into()),
        ("CustomerEmail", "asha.rao@example.com".into()),
    ])
}

/// Null on some rows (contract §4).
fn channel_user(record: &Conversation) -> Json {
    if record.n % 4 == 3 { Json::Null } else { format!("cs-{}", record.part_id("channel user")).into() }
}

fn org(record: &Conversation) -> Json {
    format!("o-{}", &record.part_id("org")[..12]).into()
}
