//! What the stand-in is started with, and the switches for what the vendor leaves open.

use std::time::Duration;

use super::{Clock, Conversation, Gate};

/// The account id of [`Account::example`].
pub const EXAMPLE_ACCOUNT: &str = "65269fe0dd9c622245c1aaaa";
/// The stream (= bot) of [`Account::example`].
pub const EXAMPLE_STREAM: &str = "st-24ccdea9-de4e-5139-923f-883c53ffaaaa";
/// The client id of the app of [`Account::example`].
pub const EXAMPLE_CLIENT_ID: &str = "cs-51ea5df2-6742-59f6-b685-e252f419f0e3";
/// The account id of [`Account::other`].
pub const OTHER_ACCOUNT: &str = "65269fe0dd9c622245c1bbbb";
/// The stream (= bot) of [`Account::other`].
pub const OTHER_STREAM: &str = "st-24ccdea9-de4e-5139-923f-883c53ffbbbb";
/// The client id of the app of [`Account::other`].
pub const OTHER_CLIENT_ID: &str = "cs-51ea5df2-6742-59f6-b685-e252f419bbbb";

/// The client secret of the app of [`Account::example`]; worth nothing anywhere.
pub fn example_secret() -> &'static str {
    "not-a-secret-example-only-0000000000000000aaaa"
}

/// The client secret of the app of [`Account::other`]; worth nothing anywhere.
pub fn other_secret() -> &'static str {
    "not-a-secret-example-only-0000000000000000bbbb"
}

/// How a stand-in starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// The port on 127.0.0.1; 0 lets the system choose.
    pub port: u16,
    /// The time for tokens, quotas and the lives of conversations.
    pub clock: Clock,
    /// Everyone the stand-in knows; a stream belongs to one account.
    pub accounts: Vec<Account>,
    /// How it behaves where the contract is open.
    pub switches: Switches,
    /// The records it starts with.
    pub conversations: Vec<Conversation>,
}

impl Default for Options {
    /// [`Account::example`], the system clock, no records.
    fn default() -> Options {
        Options {
            port: 0,
            clock: Clock::system(),
            accounts: vec![Account::example()],
            switches: Switches::default(),
            conversations: Vec::new(),
        }
    }
}

/// A tenant (contract §1, §2).
#[derive(Clone, Debug)]
pub struct Account {
    /// What the `accountId` header and the path of interaction details carry.
    pub id: String,
    /// The apps whose tokens open this account.
    pub apps: Vec<App>,
    /// The streams (= bots) it owns, `st-…`.
    pub streams: Vec<String>,
    /// Calls in any 60 s over all contact-centre routes; the vendor's is 60.
    pub calls_per_minute: usize,
    /// Calls in any 60 s for each bot; the vendor's is 60.
    pub bot_calls_per_minute: usize,
    /// Calls in any 3,600 s for each bot; the vendor's is 1,800.
    pub bot_calls_per_hour: usize,
}

impl Account {
    /// An account with these streams and apps and the vendor's quotas.
    pub fn new(id: &str, streams: &[&str], apps: Vec<App>) -> Account {
        Account {
            id: id.to_owned(),
            apps,
            streams: streams.iter().map(|&stream| stream.to_owned()).collect(),
            calls_per_minute: 60,
            bot_calls_per_minute: 60,
            bot_calls_per_hour: 1_800,
        }
    }

    /// [`EXAMPLE_ACCOUNT`] with one stream and one app that holds both scopes.
    pub fn example() -> Account {
        let app = App::new(EXAMPLE_CLIENT_ID, example_secret());
        Account::new(EXAMPLE_ACCOUNT, &[EXAMPLE_STREAM], vec![app])
    }

    /// [`OTHER_ACCOUNT`], a neighbour to be kept apart from the first.
    pub fn other() -> Account {
        let app = App::new(OTHER_CLIENT_ID, other_secret());
        Account::new(OTHER_ACCOUNT, &[OTHER_STREAM], vec![app])
    }
}

/// An app of an account: who may sign tokens, and for what (contract §2).
#[derive(Clone, Debug)]
pub struct App {
    /// `cs-…`; a token names it as `appId` or `iss`.
    pub client_id: String,
    /// The HS256 key.
    pub client_secret: String,
    /// The APIs it may call.
    pub scopes: Vec<Scope>,
    /// `Some` binds the app to these bots; interaction details then shows only theirs.
    pub bots: Option<Vec<String>>,
    /// *Enforce JTI*: a `jti` is required and good for one call, `exp` at most an hour ahead.
    pub enforce_jti: bool,
}

impl App {
    /// An app with both scopes, bound to no bot, without *Enforce JTI*.
    pub fn new(client_id: &str, client_secret: &str) -> App {
        App {
            client_id: client_id.to_owned(),
            client_secret: client_secret.to_owned(),
            scopes: vec![Scope::Analytics, Scope::ChatHistory],
            bots: None,
            enforce_jti: false,
        }
    }
}

/// An API scope of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// *SmartAssist Analytics*: conversation and interaction details.
    Analytics,
    /// *Bot Builder: Chat History*: conversation details.
    ChatHistory,
}

/// Readings of the contract's open questions, and the stand-in's temper.
#[derive(Clone, Debug)]
pub struct Switches {
    /// Record in [`violations`](super::Standin::violations) what a good gateway never does.
    pub strict: bool,
    /// In strict mode, expect POST bodies compact, with sorted and unrepeated members.
    pub canonical_bodies: bool,
    /// What `offset` counts in interaction details.
    pub offset: Offset,
    /// What a `limit` above the maximum gets (both paged routes).
    pub over_limit: OverLimit,
    /// What `numResults` counts.
    pub num_results: NumResults,
    /// How the vendor reads "not more than seven days".
    pub range: Range,
    /// Whether `/agentassist/*` insists on an `accountId` header.
    pub account_id_required: bool,
    /// How a call beyond a quota is refused.
    pub quota_refusal: QuotaRefusal,
    /// `false`: quotas are neither enforced nor watched.
    pub enforce_quota: bool,
    /// Real time that every answer takes.
    pub latency: Duration,
    /// Time on its own clock that every answer takes.
    pub lag: Duration,
    /// Real time that a summary adds.
    pub summary_latency: Duration,
    /// What becomes of a connection after its first answer.
    pub keep_alive: KeepAlive,
    /// What arrives lies unread until this gate opens.
    pub stalled: Option<Gate>,
    /// Every page of interaction details begins with the last row of the page before.
    pub repeat_rows: bool,
    /// Whether a conversation or session is found under its own stream or bot alone, or under any of its account
    /// (contract §11).
    pub held_to_path: bool,
    /// Default and maximum of `limit` in conversation details; the vendor names neither.
    pub history_limit: usize,
}

impl Default for Switches {
    /// Strict, quotas enforced, no delay; otherwise the newer or stricter reading.
    fn default() -> Switches {
        Switches {
            strict: true,
            canonical_bodies: true,
            offset: Offset::Pages,
            over_limit: OverLimit::Clamp,
            num_results: NumResults::Page,
            range: Range::SevenDays,
            account_id_required: true,
            quota_refusal: QuotaRefusal::TooManyWithRetryAfter,
            enforce_quota: true,
            latency: Duration::ZERO,
            lag: Duration::ZERO,
            summary_latency: Duration::ZERO,
            keep_alive: KeepAlive::Kept,
            stalled: None,
            repeat_rows: false,
            held_to_path: true,
            history_limit: 100,
        }
    }
}

/// What `offset` counts in interaction details (contract §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// Pages of `limit` rows, at most 10 (pages since 2024-11).
    Pages,
    /// Rows (pages up to 2024-09).
    Documents,
}

/// What a `limit` above the maximum gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// The maximum is taken instead.
    Clamp,
    /// 412.
    Refuse,
}

/// What `numResults` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumResults {
    /// The rows of this page.
    Page,
    /// All rows of the window.
    Total,
}

/// The edge of "not more than seven days".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// 7 × 24 h of effective window: at most seven inclusive dates.
    SevenDays,
    /// `endDate` − `startDate` is at most seven days as written: eight inclusive dates.
    EightDates,
}

/// What becomes of a connection after its first answer, which promises to keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// It is kept.
    Kept,
    /// It is closed: it has been idle for too long.
    ClosedWhenIdle,
    /// It is closed at the very moment at which the next request arrives, which nobody reads.
    ClosedWhenReused,
}

/// How a call beyond a quota is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaRefusal {
    /// 429 with `Retry-After` in seconds.
    TooManyWithRetryAfter,
    /// 429 alone.
    TooMany,
    /// The same error body under 200.
    ErrorUnder200,
}
