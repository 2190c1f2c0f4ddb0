//! E3: a transcript, and a summary when asked (contract §5).

use serde::Deserialize;

use super::super::Conversation;
use super::super::json::{Json, empty_list, list, object};
use super::super::options::Switches;
use super::super::refusal::Refusal;
use super::super::time::utc;
use super::super::wire::Request;
use super::conversation::padding;
use super::limit;

/// A well-formed question.
pub(crate) struct Ask {
    /// What strict mode says to it although it is answered.
    pub(crate) objection: Option<String>,
    /// Whether a summary is to be made.
    pub(crate) summary: bool,
    id: Id,
    skip: usize,
    limit: usize,
    lang: String,
}

/// What a transcript was asked by, in the order in which one beats the next.
enum Id {
    Session(String),
    Call(String),
    Conversation(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    session_id: Option<String>,
    call_id: Option<String>,
    conversation_id: Option<String>,
    skip: Option<usize>,
    offset: Option<usize>,
    limit: Option<usize>,
    lang: Option<String>,
    #[serde(default)]
    is_summary_required: bool,
}

impl Ask {
    pub(crate) fn parse(request: &Request, switches: &Switches) -> Result<Ask, Refusal> {
        let body: Body =
            serde_json::from_slice(&request.body).map_err(|error| Refusal::arguments(error.to_string()))?;
        let id = (body.session_id.map(Id::Session))
            .or(body.call_id.map(Id::Call))
            .or(body.conversation_id.map(Id::Conversation))
            .ok_or_else(|| Refusal::arguments("no sessionId, callId or conversationId"))?;
        let limit = limit(body.limit, switches.history_limit, switches.over_limit)?;
        Ok(Ask {
            objection: limit.objection,
            summary: body.is_summary_required,
            id,
            skip: body.skip.or(body.offset).unwrap_or(0),
            limit: limit.rows,
            lang: body.lang.unwrap_or_else(|| "en".to_owned()),
        })
    }

    /// The transcript of the one record that is meant. For an id that nobody has, an empty
    /// transcript without identity: the contract is silent, and a 200 that proves nothing is the
    /// harder answer to be careful with.
    pub(crate) fn answer<'a>(
        &self,
        mut records: impl Iterator<Item = &'a Conversation>,
        summary: Option<u64>,
        now_ms: i64,
    ) -> Json {
        let found = records.find(|record| record.stage(now_ms).is_some() && self.means(record));
        let mut body = match found {
            Some(record) => self.render(record, now_ms),
            None => object([
                ("conversationInfo", object([])),
                ("conversationFlow", empty_list()),
                ("conversationHistory", empty_list()),
            ]),
        };
        if let (Some(_), Some(nth)) = (found, summary) {
            body.push("summary", self.summarise(nth, now_ms));
        }
        body
    }

    fn means(&self, record: &Conversation) -> bool {
        match &self.id {
            Id::Session(id) => *id == record.session_id,
            Id::Call(id) => *id == record.call_id,
            Id::Conversation(id) => record.has_agent && *id == record.conversation_id,
        }
    }

    fn render(&self, record: &Conversation, now_ms: i64) -> Json {
        let with_agent = matches!(self.id, Id::Conversation(_));
        let messages = record
            .message_times(now_ms)
            .enumerate()
            .skip(self.skip)
            .take(self.limit)
            .map(|(nth, at_ms)| message(record, nth, at_ms, with_agent));
        object([
            ("conversationInfo", info(record, now_ms)),
            ("conversationFlow", list([flow()])),
            ("conversationHistory", list(messages)),
        ])
    }

    /// Another text each time, as a language model gives.
    fn summarise(&self, nth: u64, now_ms: i64) -> Json {
        let text = format!("The customer asked for an agent and was helped. [{}, version {nth}]", self.lang);
        object([("ConversationSummary", text.into()), ("time", utc(now_ms).into())])
    }
}

fn info(record: &Conversation, now_ms: i64) -> Json {
    let mut info = object([
        ("userId", (&record.user_id).into()),
        ("callId", (&record.answered_call_id).into()),
        ("sessionStartTime", utc(record.start_ms).into()),
    ]);
    if record.has_agent && now_ms >= record.accepted_ms() {
        info.push("agentHandOffTime", utc(record.accepted_ms()));
    }
    let user = [("firstName", "Asha".into()), ("lastName", "Rao".into()), ("phoneNumber", Json::Null)];
    info.push("userDetails", object(user));
    info.push("currentTask", "null");
    info.push("sessionId", &record.session_id);
    info
}

fn flow() -> Json {
    object([
        ("status", "completedTask".into()),
        ("messageStoreId", "xxx".into()),
        ("taskName", "ConnectToAgent".into()),
    ])
}

fn message(record: &Conversation, nth: usize, at_ms: i64, with_agent: bool) -> Json {
    let from_user = nth % 2 == 1;
    let author = match (from_user, with_agent) {
        (true, _) => "user",
        (false, true) => "agent",
        (false, false) => "bot",
    };
    let text = if nth == 0 && record.padding > 0 {
        padding(record)
    } else {
        format!("Message {nth} from the {author}.").into()
    };
    let component = object([
        ("_id", format!("cp-{}", record.part_id(&format!("message {nth}"))).into()),
        ("cT", "text".into()),
        ("data", object([("text", text)])),
        ("thumbnails", empty_list()),
    ]);
    let source = if record.is_voice() { "audiocodes" } else { "rtm" };
    object([
        ("channels", list([object([("type", source.into())])])),
        ("type", if from_user { "incoming" } else { "outgoing" }.into()),
        ("status", if from_user { "received" } else { "pending" }.into()),
        ("createdOn", utc(at_ms).into()),
        ("lmodifiedOn", utc(at_ms).into()),
        ("createdBy", (&record.user_id).into()),
        ("components", list([component])),
        ("isBB", 0.into()),
        ("lang", "en".into()),
        ("ire", true.into()),
        ("timestampValue", at_ms.into()),
        ("sT", 0.into()),
    ])
}

/// The transcript of a record that nobody asked for.
pub(crate) fn of_somebody_else(record: &Conversation, now_ms: i64) -> Json {
    let ask = Ask {
        objection: None,
        summary: false,
        id: Id::Session(record.session_id.clone()),
        skip: 0,
        limit: 100,
        lang: "en".to_owned(),
    };
    ask.answer(std::iter::once(record), None, now_ms)
}
