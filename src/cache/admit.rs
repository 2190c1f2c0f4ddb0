//! Whether an answer may be kept, and for how long. Pure, but for what [`Sightings`] remembers.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::entry::{Entry, Lifetime, PhaseSource, Tag, jittered};
use super::group::Group;
use super::variants::Variants;
use crate::clock::Moment;
use crate::error::{Error, Kind};
use crate::fetch::answer::{Answer, ContentType};
use crate::lifecycle::phase::{Phase, Rule, RulePart, Ruling};
use crate::lifecycle::sightings::{HashedId, Sighting, Sightings};
use crate::routes::{IdentityProof, Misfit, Query, Reading, Requested};

/// Why an answer that callers get is not stored. The same word in `Cache-Status`, log, metric and
/// test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It goes on.
    Live,
    /// Over, but not for long enough, and `over_ttl` is zero.
    NotSettled,
    /// Nobody has said whether it is over.
    UnknownPhase,
    /// Not a 200.
    Status,
    /// A 200 that is not of the route's shape: an encrypted payload, an error envelope, a page.
    UnexpectedShape,
    /// A 200 of the right shape that does not show that it is what was asked for.
    UnprovenIdentity,
    /// A transcript of which no other answer has said that its session is the bot's in the path.
    UnprovenBot,
    /// Settled, but its lifetime is configured to be zero.
    ZeroLifetime,
    /// Larger than what is held.
    TooLarge,
    /// Purged while it was fetched.
    Purged,
    /// There is one that was asked for later.
    Superseded,
    /// The store is full of what is asked for more.
    NoRoom,
    /// For a reason that this caller does not learn: it lies in what is kept from it.
    NotStored,
    /// Whoever asked for it wants it stored by nobody.
    NoStore,
}

impl Reason {
    /// All of them, in their order.
    pub const ALL: [Self; 14] = [
        Self::Live,
        Self::NotSettled,
        Self::UnknownPhase,
        Self::Status,
        Self::UnexpectedShape,
        Self::UnprovenIdentity,
        Self::UnprovenBot,
        Self::ZeroLifetime,
        Self::TooLarge,
        Self::Purged,
        Self::Superseded,
        Self::NoRoom,
        Self::NotStored,
        Self::NoStore,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::NotSettled => "not-settled",
            Self::UnknownPhase => "unknown-phase",
            Self::Status => "status",
            Self::UnexpectedShape => "unexpected-shape",
            Self::UnprovenIdentity => "unproven-identity",
            Self::UnprovenBot => "unproven-bot",
            Self::ZeroLifetime => "zero-lifetime",
            Self::TooLarge => "too-large",
            Self::Purged => "purged",
            Self::Superseded => "superseded",
            Self::NoRoom => "no-room",
            Self::NotStored => "not-stored",
            Self::NoStore => "no-store",
        }
    }
}

/// Why nobody gets a complete exchange's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Withheld {
    /// Its JSON ends in the middle.
    Cut,
    /// It is about another conversation or session than was asked for.
    AnotherRecord,
    /// It names another account than was asked about.
    AnotherAccount,
}

impl Withheld {
    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::AnotherRecord => "another-record",
            Self::AnotherAccount => "another-account",
        }
    }
}

impl From<Withheld> for Error {
    fn from(withheld: Withheld) -> Self {
        let detail = match withheld {
            Withheld::Cut => return Self::incomplete_answer("the upstream's answer ends in the middle"),
            Withheld::AnotherRecord => "the upstream's answer is about something else than was asked",
            Withheld::AnotherAccount => "the upstream's answer is another account's",
        };
        Self::new(Kind::UpstreamInvalid, detail)
    }
}

/// An answer that callers get, and what is to be done with it.
#[derive(Debug)]
pub struct Judgement {
    pub entry: Arc<Entry>,
    /// Whether it may be stored.
    pub verdict: Result<(), Reason>,
    /// What the conversations in it are called.
    pub names: Vec<HashedId>,
    /// What it said of them.
    pub sightings: Vec<Sighting>,
}

/// Judges an answer to `query`. An error is an answer that nobody gets: a cut one, or one about
/// something else.
///
/// Phases and lifetimes are judged at the moment the answer was asked for: what it says was true
/// then, and perhaps not any more when it came.
pub fn judge(query: &Query, rule: &Rule, seen: &Sightings, answer: Answer) -> Result<Judgement, Withheld> {
    if answer.status != StatusCode::OK {
        of_this_account(&query.account, &answer.body)?;
        return Ok(without_reading(query, rule, answer));
    }
    let read = (query.route.read)(&query.requested, &answer.body);
    // The reader does not look into what it passes over, and what is no text is no JSON (RFC 8259 §8.1).
    let is_text = |_: &_| std::str::from_utf8(&answer.body).is_ok();
    let reading = match read.and_then(|reading| Some(reading).filter(is_text).ok_or(Misfit::Shape)) {
        Ok(reading) => reading,
        Err(Misfit::Shape) => {
            of_this_account(&query.account, &answer.body)?;
            let entry = Entry { is_opaque: true, ..bare(query, answer, &[]) };
            let verdict = Err(Reason::UnexpectedShape);
            return Ok(Judgement { entry: entry.into(), verdict, names: Vec::new(), sightings: Vec::new() });
        }
        Err(Misfit::Cut) => {
            return Err(Withheld::Cut);
        }
        Err(Misfit::Other) => return Err(Withheld::AnotherRecord),
    };
    let mut answer = answer;
    // It is JSON, whatever its sender called it.
    answer.content_type.get_or_insert(ContentType::json());
    let asked_at = answer.asked_at;
    let wall = asked_at.wall;
    let account = &query.account;
    if reading.accounts.iter().any(|named| **named != **account) {
        return Err(Withheld::AnotherAccount);
    }
    if !is_proven(query, seen, &reading) {
        return Ok(unread(query, answer, Reason::UnprovenIdentity));
    }
    seen.note(account, &reading.sightings, asked_at);
    let (phase, phase_source) = phase(query, rule, seen, &reading, asked_at);
    // A transcript names no bot. The policy of who may see it is held against the bot in its key.
    let (bots, is_of_its_bot) = match query.requested {
        Requested::Transcript(_) => {
            let bots = seen.bots(account, &reading.known_by);
            let is_named = query.bot.as_deref().is_some_and(|bot| bots.iter().any(|named| **named == *bot));
            (bots, is_named)
        }
        _ => (reading.bots.as_slice().into(), true),
    };
    let allowed = rule.lifetime(phase, reading.summary, wall);
    let verdict = verdict(allowed, is_of_its_bot);
    let lifetime = match verdict {
        Ok(()) => lifetime(query, rule, phase, allowed, asked_at),
        Err(_) => Lifetime::default(),
    };
    let names = names(query, seen, &reading);
    let entry = Entry {
        tag: Tag::of(&answer.body),
        answer,
        phase,
        phase_source,
        rule_part: Some(allowed.rule_part),
        // What is not stored is looked for by nobody.
        groups: verdict.map_or_else(|_| Arc::default(), |()| groups(query, &bots, &names)),
        bots,
        is_opaque: false,
        lifetime,
        variants: Variants::default(),
    };
    Ok(Judgement { entry: entry.into(), verdict, names, sightings: reading.sightings })
}

/// The phase that an answer asked for at `asked_at` shows, and where that comes from.
fn phase(
    query: &Query,
    rule: &Rule,
    seen: &Sightings,
    reading: &Reading,
    asked_at: Moment,
) -> (Phase, PhaseSource) {
    let (said, source) = match reading.phase {
        Phase::Unknown if !reading.known_by.is_empty() => {
            (learnt(query, seen, reading, asked_at), PhaseSource::OtherAnswers)
        }
        said => (said, PhaseSource::OwnBody),
    };
    match query.requested {
        Requested::Window { end, .. } => (said.and(rule.window(end, asked_at.wall)), source),
        _ => (said, source),
    }
}

/// Whether an answer of the right shape may be stored.
fn verdict(allowed: Ruling, is_of_its_bot: bool) -> Result<(), Reason> {
    match allowed.rule_part {
        _ if !allowed.ttl.is_zero() && !is_of_its_bot => Err(Reason::UnprovenBot),
        _ if !allowed.ttl.is_zero() => Ok(()),
        RulePart::Live => Err(Reason::Live),
        RulePart::UnknownPhase => Err(Reason::UnknownPhase),
        RulePart::NotSettled => Err(Reason::NotSettled),
        RulePart::Settled => Err(Reason::ZeroLifetime),
    }
}

/// The lifetime of an answer that is stored. What is not closed may have changed the moment after: it is never served
/// past its lifetime.
fn lifetime(query: &Query, rule: &Rule, phase: Phase, allowed: Ruling, asked_at: Moment) -> Lifetime {
    let is_closed = matches!(phase, Phase::Closed { .. });
    let stale = |allowed: Duration| if is_closed { allowed } else { Duration::ZERO };
    Lifetime {
        ttl: jittered(allowed.ttl, &query.key, asked_at),
        stale_while_revalidate: stale(rule.stale_while_revalidate),
        stale_if_error: stale(rule.stale_if_error),
    }
}

/// Refuses a body that nobody reads if it names another account where a record or its wrapper would.
fn of_this_account(account: &str, body: &[u8]) -> Result<(), Withheld> {
    // Of what is further down, some is about other systems' accounts (a row's `metaInfo`).
    const DEEPEST: usize = 3;
    fn names_another(value: &Value, account: &str, depth: usize) -> bool {
        match value {
            _ if depth > DEEPEST => false,
            Value::Array(items) => items.iter().any(|item| names_another(item, account, depth + 1)),
            Value::Object(members) => members.iter().any(|(name, member)| match (&**name, member) {
                ("accountId", Value::String(named)) => named != account,
                ("accountId", Value::Number(named)) => named.to_string() != account,
                ("accountId", _) => true,
                ("metaInfo" | "userInfo", _) => false,
                _ => names_another(member, account, depth + 1),
            }),
            _ => false,
        }
    }
    if memchr::memmem::find(body, b"\"accountId\"").is_none() {
        return Ok(());
    }
    match serde_json::from_slice(body) {
        Ok(value) if names_another(&value, account, 0) => Err(Withheld::AnotherAccount),
        _ => Ok(()),
    }
}

/// Whether the body is what was asked for, by its own word or by what was seen before.
fn is_proven(query: &Query, seen: &Sightings, reading: &Reading) -> bool {
    match &reading.identity {
        IdentityProof::Proven => true,
        IdentityProof::ProvenIf(name) => {
            let known = query.requested.name().and_then(|asked| seen.get(&query.account, asked));
            known.is_some_and(|known| known.names.contains(name))
        }
        IdentityProof::Unproven => false,
    }
}

/// What other answers have said of the conversation: over only if every name of it that is known
/// is. One that ended after this answer was asked for was not over in it.
fn learnt(query: &Query, seen: &Sightings, reading: &Reading, asked_at: Moment) -> Phase {
    let known = reading.known_by.iter().filter_map(|name| seen.get(&query.account, *name));
    match known.map(|known| known.phase).reduce(Phase::and) {
        Some(Phase::Closed { since }) if since > asked_at.wall => Phase::Live,
        Some(phase) => phase,
        None => Phase::Unknown,
    }
}

/// All that the conversations in a body are called, here and in other answers.
fn names(query: &Query, seen: &Sightings, reading: &Reading) -> Vec<HashedId> {
    let sighted = reading.sightings.iter().flat_map(|sighting| &sighting.names);
    let mut names: Vec<HashedId> = query.requested.name().into_iter().chain(sighted.copied()).collect();
    for name in &reading.known_by {
        names.push(*name);
        if let Some(known) = seen.get(&query.account, *name) {
            names.extend(known.names.iter());
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

fn groups(query: &Query, bots: &[Box<str>], names: &[HashedId]) -> Arc<[Group]> {
    let bots = query.bot.as_deref().into_iter().chain(bots.iter().map(AsRef::as_ref)).map(Group::bot);
    let mut groups: Vec<Group> = std::iter::once(Group::account(&query.account))
        .chain(bots)
        .chain(names.iter().copied().map(Group::named))
        .chain(query.plain.as_ref().map(Group::plain))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups.into()
}

/// Not a 200: only "there is none" may be kept, and only for as long as the rule says.
fn without_reading(query: &Query, rule: &Rule, answer: Answer) -> Judgement {
    if answer.status != StatusCode::NOT_FOUND || rule.not_found_ttl.is_zero() {
        return unread(query, answer, Reason::Status);
    }
    let ttl = jittered(rule.not_found_ttl, &query.key, answer.asked_at);
    let names: Vec<HashedId> = query.requested.name().into_iter().collect();
    let entry = Entry { lifetime: Lifetime { ttl, ..Lifetime::default() }, ..bare(query, answer, &names) };
    Judgement { entry: entry.into(), verdict: Ok(()), names, sightings: Vec::new() }
}

/// An answer that is passed on unread.
fn unread(query: &Query, answer: Answer, reason: Reason) -> Judgement {
    let entry = bare(query, answer, &[]);
    Judgement { entry: entry.into(), verdict: Err(reason), names: Vec::new(), sightings: Vec::new() }
}

fn bare(query: &Query, answer: Answer, names: &[HashedId]) -> Entry {
    Entry {
        tag: Tag::of(&answer.body),
        answer,
        phase: Phase::Unknown,
        phase_source: PhaseSource::OwnBody,
        rule_part: None,
        groups: groups(query, &[], names),
        bots: Box::default(),
        is_opaque: false,
        lifetime: Lifetime::default(),
        variants: Variants::default(),
    }
}
