//! A record with a life: what it is, and when which part of its life begins.

use aws_lc_rs::digest::{SHA256, digest};

/// From the session's start until an agent takes it.
const QUEUED_MS: i64 = 5_000;
/// From `endTime` until the record says CLOSED (the sample's `updatedAt`, contract §3).
const CLOSING_MS: i64 = 10_000;
/// From CLOSED until the agent's notes and dispositions are in (contract §6).
const AFTER_CALL_WORK_MS: i64 = 30_000;
/// How long before `closed_at` a conversation began, unless told otherwise.
const TYPICAL_MS: i64 = 600_000;
/// Between two messages.
const MESSAGE_SPACING_MS: i64 = 15_000;

/// One conversation (or bot session) and its life on the clock.
///
/// ```text
/// start ─ 5 s ─► active … end ─ 10 s ─► closed ─ 30 s ─► after-call work done … survey … deleted
/// queued                  ended: has an endTime, still says ACTIVE
/// ```
///
/// Everything follows from `(stream, n, times)`: the same arguments give the same bytes. Times
/// are Unix milliseconds. The account is whichever owns the stream.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// `c-…`, the `_id` of E1; also set (but shown nowhere) for a session without an agent.
    pub conversation_id: String,
    /// 24 hex digits; the first eight are the start in UTC seconds (contract §4).
    pub session_id: String,
    /// What conversation details is asked with.
    pub call_id: String,
    /// What conversation details answers with; by default the same (contract §5).
    pub answered_call_id: String,
    /// `st-…`, the stream (= bot) it happened on.
    pub stream: String,
    /// `u-…`.
    pub user_id: String,
    /// `qu-…`.
    pub queue_id: String,
    /// As the rows of interaction details show it, odd spaces included.
    pub channel: String,
    /// `Inbound` or `Outbound`.
    pub direction: &'static str,
    /// First sign of life.
    pub start_ms: i64,
    /// `endTime`; `None` while nobody has hung up.
    pub end_ms: Option<i64>,
    /// From `end_ms` to CLOSED.
    pub closing_ms: i64,
    /// From CLOSED to notes and dispositions.
    pub after_call_work_ms: i64,
    /// From here on live again, without an end.
    pub reopened_ms: Option<i64>,
    /// From here on gone from every answer.
    pub deleted_ms: Option<i64>,
    /// What the user says about it, and when.
    pub survey: Option<Survey>,
    /// `false`: a session that never reached an agent. It has a row and a transcript but no
    /// conversation.
    pub has_agent: bool,
    /// Messages of the whole life, 15 s apart or closer, so that all fall before the end.
    pub messages: usize,
    /// Extra characters in each answer of E1 and in the first message of E3.
    pub padding: usize,
    pub(super) n: u64,
    pub(super) status: Said,
    pub(super) final_status: Said,
}

/// The answer to a survey, as a row of interaction details shows it.
#[derive(Clone, Debug)]
pub struct Survey {
    /// When it comes in.
    pub at_ms: i64,
    /// `csatScore`.
    pub csat_score: i64,
    /// `csatFeedback`.
    pub feedback: String,
}

/// Where a status comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// From the stage of life.
    Life,
    /// This, whatever the stage.
    Always(String),
    /// The key is missing.
    Nothing,
}

/// How far a life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Queued,
    Active,
    /// Hung up, not yet CLOSED.
    Ended,
    Closed,
    /// After-call work is done.
    Wrapped,
}

impl Conversation {
    /// A conversation that says CLOSED from `closed_ms` on. Its `endTime` is ten seconds
    /// earlier, its start ten minutes before that.
    pub fn closed_at(stream: &str, n: u64, closed_ms: i64) -> Conversation {
        let end_ms = closed_ms - CLOSING_MS;
        Conversation::live(stream, n, end_ms - TYPICAL_MS).ends_at(end_ms)
    }

    /// A conversation that began at `start_ms` and goes on.
    pub fn live(stream: &str, n: u64, start_ms: i64) -> Conversation {
        let id = |what: &str| hash(stream, n, what);
        let call_id = uuid(&id("call"));
        Conversation {
            conversation_id: format!("c-{}", &uuid(&id("conversation"))[1..]),
            session_id: session_id(start_ms, &id("session")),
            answered_call_id: call_id.clone(),
            call_id,
            stream: stream.to_owned(),
            user_id: format!("u-{}", uuid(&id("user"))),
            queue_id: format!("qu-{}", &uuid(&hash(stream, 0, "queue"))[1..]),
            channel: "Web/Mobile Client".to_owned(),
            direction: "Inbound",
            start_ms,
            end_ms: None,
            closing_ms: CLOSING_MS,
            after_call_work_ms: AFTER_CALL_WORK_MS,
            reopened_ms: None,
            deleted_ms: None,
            survey: None,
            has_agent: true,
            messages: 6,
            padding: 0,
            n,
            status: Said::Life,
            final_status: Said::Life,
        }
    }

    /// Moves the start; the session id follows, as it carries the start.
    #[must_use]
    pub fn starts_at(mut self, start_ms: i64) -> Conversation {
        self.start_ms = start_ms;
        self.session_id = session_id(start_ms, &hash(&self.stream, self.n, "session"));
        self
    }

    /// Hung up at `end_ms`; CLOSED ten seconds later.
    #[must_use]
    pub fn ends_at(mut self, end_ms: i64) -> Conversation {
        self.end_ms = Some(end_ms);
        self
    }

    /// Live again from `ms` on.
    #[must_use]
    pub fn reopened_at(mut self, ms: i64) -> Conversation {
        self.reopened_ms = Some(ms);
        self
    }

    /// Gone from `ms` on.
    #[must_use]
    pub fn deleted_at(mut self, ms: i64) -> Conversation {
        self.deleted_ms = Some(ms);
        self
    }

    /// E1's top-level `status`, whatever the stage.
    #[must_use]
    pub fn with_status(mut self, status: &str) -> Conversation {
        self.status = Said::Always(status.to_owned());
        self
    }

    /// No top-level `status` in E1.
    #[must_use]
    pub fn without_status(mut self) -> Conversation {
        self.status = Said::Nothing;
        self
    }

    /// E2's `finalStatus`, whatever the stage.
    #[must_use]
    pub fn with_final_status(mut self, status: &str) -> Conversation {
        self.final_status = Said::Always(status.to_owned());
        self
    }

    /// No `finalStatus` in E2.
    #[must_use]
    pub fn without_final_status(mut self) -> Conversation {
        self.final_status = Said::Nothing;
        self
    }

    /// A session that the bot handled alone.
    #[must_use]
    pub fn without_agent(mut self) -> Conversation {
        self.has_agent = false;
        self
    }

    /// The channel as shown; `"Voice"` adds the voice fields to E1.
    #[must_use]
    pub fn on_channel(mut self, channel: &str) -> Conversation {
        self.channel = channel.to_owned();
        self
    }

    /// A call made to the user, not by them.
    #[must_use]
    pub fn outbound(mut self) -> Conversation {
        self.direction = "Outbound";
        self
    }

    /// A CSAT answer that comes in at `at_ms`.
    #[must_use]
    pub fn surveyed_at(mut self, at_ms: i64, csat_score: i64) -> Conversation {
        self.survey = Some(Survey { at_ms, csat_score, feedback: "Quick and friendly.".to_owned() });
        self
    }

    /// How many messages the whole life has.
    #[must_use]
    pub fn with_messages(mut self, messages: usize) -> Conversation {
        self.messages = messages;
        self
    }

    /// A `callId` in the answer that differs from the one asked with.
    #[must_use]
    pub fn answering_call_id(mut self, call_id: &str) -> Conversation {
        self.answered_call_id = call_id.to_owned();
        self
    }

    /// Bodies larger by about this many bytes.
    #[must_use]
    pub fn padded(mut self, bytes: usize) -> Conversation {
        self.padding = bytes;
        self
    }

    /// The stage at `now_ms`; `None` before the start and after the deletion.
    pub(super) fn stage(&self, now_ms: i64) -> Option<Stage> {
        let reached = |moment: Option<i64>| moment.is_some_and(|at| now_ms >= at);
        if now_ms < self.start_ms || reached(self.deleted_ms) {
            return None;
        }
        Some(if now_ms < self.accepted_ms() {
            Stage::Queued
        } else if reached(self.reopened_ms) || !reached(self.end_ms) {
            Stage::Active
        } else if !reached(self.closed_ms()) {
            Stage::Ended
        } else if !reached(self.wrapped_ms()) {
            Stage::Closed
        } else {
            Stage::Wrapped
        })
    }

    /// When the record last changed, as `updatedAt` tells it.
    pub(super) fn updated_ms(&self, now_ms: i64) -> i64 {
        let moments = [Some(self.accepted_ms()), self.closed_ms(), self.wrapped_ms(), self.reopened_ms];
        let past = moments.into_iter().flatten().filter(|&at| at <= now_ms);
        past.max().unwrap_or(self.start_ms)
    }

    /// When an agent took it.
    pub(super) fn accepted_ms(&self) -> i64 {
        self.start_ms + QUEUED_MS
    }

    pub(super) fn closed_ms(&self) -> Option<i64> {
        self.end_ms.map(|end| end + self.closing_ms)
    }

    pub(super) fn wrapped_ms(&self) -> Option<i64> {
        self.closed_ms().map(|closed| closed + self.after_call_work_ms)
    }

    /// When each message that exists at `now_ms` was written, oldest first.
    pub(super) fn message_times(&self, now_ms: i64) -> impl Iterator<Item = i64> {
        let count = i64::try_from(self.messages).unwrap_or(i64::MAX);
        let spacing = match self.end_ms {
            Some(end) => ((end - self.start_ms) / count.max(1)).clamp(1, MESSAGE_SPACING_MS),
            None => MESSAGE_SPACING_MS,
        };
        let start_ms = self.start_ms;
        (0..count).map(move |i| start_ms + i * spacing).take_while(move |&at| at <= now_ms)
    }

    /// An id of its own for a part of the record: a message, a note.
    pub(super) fn part_id(&self, what: &str) -> String {
        hash(&self.stream, self.n, what)[..24].to_owned()
    }

    /// The name of its agent.
    pub(super) fn agent_id(&self) -> String {
        format!("u-{}", uuid(&hash(&self.stream, self.n % 5, "agent")))
    }

    pub(super) fn is_voice(&self) -> bool {
        self.channel.trim() == "Voice"
    }
}

/// 64 hex digits that depend on nothing but the arguments.
fn hash(stream: &str, n: u64, what: &str) -> String {
    hex::encode(digest(&SHA256, format!("{stream}/{n}/{what}").as_bytes()))
}

/// The form of a UUID, from the first 32 hex digits.
pub(super) fn uuid(hex: &str) -> String {
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]];
    parts.join("-")
}

fn session_id(start_ms: i64, hex: &str) -> String {
    let seconds = u32::try_from(start_ms.div_euclid(1_000)).unwrap_or(0);
    format!("{seconds:08x}{}", &hex[..16])
}
