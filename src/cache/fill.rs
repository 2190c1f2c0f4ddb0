//! What happens in a flight: wait, look again, call, judge, store.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;

use super::admit::{self, Reason};
use super::broadcast::Broadcast;
use super::entry::{Entry, Freshness, Lifetime, Tag, jittered};
use super::group::Group;
use super::memory::Refused;
use super::purge::Began;
use super::variants::Variants;
use super::{FlightContext, Inner};
use crate::clock::Moment;
use crate::error::Error;
use crate::fetch::answer::{Answer, Fetched};
use crate::fetch::ending::Ending;
use crate::lifecycle::phase::{Phase, Rule, RulePart, Summary};
use crate::lifecycle::sightings::HashedId;
use crate::routes::{Query, without_summary};

/// What a fill leaves to everyone who waits for it.
pub type FillResult = Result<FillOutcome, Error>;

/// How a fill ended that brought something.
#[derive(Clone, Debug)]
pub enum FillOutcome {
    /// It was there after all.
    Held(Arc<Entry>),
    Fetched(Arc<Entry>, Result<(), Reason>),
    /// Too large to be held.
    Large(Arc<Broadcast>),
}

impl Inner {
    /// Runs in a flight.
    pub(super) async fn fill<F>(
        &self,
        query: &Query,
        rule: &Rule,
        context: &FlightContext,
        fill: impl FnOnce() -> F,
    ) -> FillResult
    where
        F: Future<Output = Result<Fetched, Error>> + Send,
    {
        let mut now = self.clock.moment();
        let wait = self.back_off.left(&query.key, now.uptime);
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
            now = self.clock.moment();
        }
        // Again: another flight may have landed between the caller's look and this one's start.
        if !context.is_revalidation {
            if let Some(entry) = self.memory.peek(&query.key)
                && let Freshness::Fresh { .. } = entry.freshness(now)
            {
                return Ok(FillOutcome::Held(entry));
            }
            let may_store = context.may_store.load(Ordering::Relaxed);
            if let Some(entry) = self.cut_from_summarised(query, rule, now, may_store) {
                return Ok(FillOutcome::Held(entry));
            }
        }
        let filled = self.fetch(query, rule, context, fill()).await;
        let backs_off = ending(&filled).is_some_and(|ending| ending.consequences().backs_off);
        self.back_off.note(&query.key, backs_off, self.clock.uptime());
        filled
    }

    /// Calls, judges, and stores what may be stored.
    async fn fetch(
        &self,
        query: &Query,
        rule: &Rule,
        context: &FlightContext,
        call: impl Future<Output = Result<Fetched, Error>>,
    ) -> FillResult {
        let began = self.memory.now();
        match call.await? {
            Fetched::Large(large, bounds) => {
                Ok(FillOutcome::Large(Broadcast::open(large, bounds, self.clock.clone())))
            }
            Fetched::Whole(answer) => {
                let may_store = context.may_store.load(Ordering::Relaxed);
                self.take_in(query, rule, answer, began, may_store)
            }
        }
    }

    fn take_in(
        &self,
        query: &Query,
        rule: &Rule,
        answer: Answer,
        began: Began,
        may_store: bool,
    ) -> FillResult {
        let judgement = admit::judge(query, rule, &self.seen, answer).inspect_err(|withheld| {
            self.metrics.upstream.withheld(query.route, withheld.as_str());
        })?;
        let (entry, names) = (judgement.entry, judgement.names);
        let (account, asked_at) = (&query.account, entry.answer.asked_at);
        self.memory.link(&judgement.sightings);
        self.compare(query, &entry);

        // Names that are live by this answer, or by one that was asked for later and has already come.
        let live_at =
            |name: &HashedId| self.seen.get(account, *name).filter(|known| known.phase == Phase::Live);
        let live = names.iter().filter(|name| live_at(name).is_some_and(|known| known.asked_at == asked_at));
        let live: Vec<Group> = live.copied().map(Group::named).collect();
        if !live.is_empty() {
            self.memory.reopen(&live, asked_at);
        }

        let is_outdated =
            || names.iter().filter_map(live_at).any(|known| entry.is_voided_by_life_at(known.asked_at));
        let stored = match judgement.verdict {
            Ok(()) if !may_store => Err(Reason::NoStore),
            Ok(()) => {
                self.memory.put(query.key.clone(), entry.clone(), began, is_outdated).map_err(|refused| {
                    match refused {
                        Refused::TooHeavy => Reason::TooLarge,
                        Refused::Purged => Reason::Purged,
                        Refused::Outdated => Reason::Live,
                        Refused::Superseded => Reason::Superseded,
                        Refused::NoRoom => Reason::NoRoom,
                    }
                })
            }
            Err(reason) => {
                if not_stored(reason, entry.answer.status).consequences().replaces_stored {
                    self.memory.remove(&query.key, asked_at);
                }
                Err(reason)
            }
        };
        Ok(FillOutcome::Fetched(entry, stored))
    }

    /// Counts how often what was called settled has changed after all.
    fn compare(&self, query: &Query, new: &Entry) {
        // A summary is worded anew each time; that says nothing about the conversation.
        if new.answer.status != StatusCode::OK || new.rule_part.is_none() || query.requested.with_summary() {
            return;
        }
        if let Some(old) = self.memory.peek(&query.key)
            && old.rule_part == Some(RulePart::Settled)
        {
            self.metrics.cache.settled_refresh(query.route, old.tag != new.tag);
        }
    }

    /// A transcript cut out of one that is stored with a summary. It is as old as that one, and
    /// kept by its own rule, if it may be.
    pub(super) fn cut_from_summarised(
        &self,
        query: &Query,
        rule: &Rule,
        now: Moment,
        may_store: bool,
    ) -> Option<Arc<Entry>> {
        let began = self.memory.now();
        let (key, whole) = self.memory.summarised(&query.key, now)?;
        let body = without_summary(&whole.answer.body)?;
        let asked_at = whole.answer.asked_at;
        let allowed = rule.lifetime(whole.phase, Summary::NotAsked, asked_at.wall);
        let ttl = jittered(allowed.ttl, &query.key, asked_at);
        let entry = Arc::new(Entry {
            tag: Tag::of(&body),
            answer: Answer { body: body.into(), ..whole.answer.clone() },
            phase: whole.phase,
            phase_source: whole.phase_source,
            rule_part: Some(allowed.rule_part),
            bots: whole.bots.clone(),
            is_opaque: false,
            groups: whole
                .groups
                .iter()
                .filter(|group| **group != Group::plain(&query.key))
                .copied()
                .collect(),
            lifetime: Lifetime { ttl, ..whole.lifetime },
            variants: Variants::default(),
        });
        if !matches!(entry.freshness(now), Freshness::Fresh { .. }) {
            return None;
        }
        if !may_store {
            return Some(entry);
        }
        let is_outdated = || !self.memory.holds(&key, &whole);
        match self.memory.put(query.key.clone(), entry.clone(), began, is_outdated) {
            // It is an answer all the same if there is no room for it.
            Ok(()) | Err(Refused::TooHeavy | Refused::NoRoom) => Some(entry),
            Err(Refused::Purged | Refused::Outdated | Refused::Superseded) => None,
        }
    }
}

/// How the call of a fill ended. `None` if no call was made, or if its answer was stored, so that nothing more
/// follows.
pub fn ending(filled: &FillResult) -> Option<Ending> {
    match filled {
        Ok(FillOutcome::Held(_) | FillOutcome::Fetched(_, Ok(()))) => None,
        Ok(FillOutcome::Fetched(entry, Err(reason))) => Some(not_stored(*reason, entry.answer.status)),
        Ok(FillOutcome::Large(broadcast)) => Some(Ending::Status(broadcast.status())),
        Err(error) => Some(error.into()),
    }
}

/// How a call ended whose answer is not stored.
fn not_stored(reason: Reason, status: StatusCode) -> Ending {
    match reason {
        Reason::UnexpectedShape => Ending::Unreadable,
        Reason::UnprovenIdentity | Reason::UnprovenBot => Ending::Unproven,
        _ => Ending::Status(status),
    }
}
