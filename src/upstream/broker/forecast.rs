//! What will be, if nothing happens but that time passes: where the pool stands, and who will be
//! served when.

use std::collections::HashMap;
use std::time::Duration;

use super::{Broker, QueuedCall, Ticket, amount};
use crate::config::Rate;

/// A look ahead goes by steps of at most this: what is kept for others melts with time.
pub const STEP: Duration = Duration::from_secs(1);

/// The least by which time moves on.
pub const INSTANT: Duration = Duration::from_millis(1);

/// Where a pool stands, for as long as nobody calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Availability {
    /// Calls there is room for at once.
    pub left: u32,
    /// When all have come back; with none left, when one has.
    pub resets_at: Duration,
    /// When the next call leaves a window: from then on there is more room than is said here.
    pub holds_until: Duration,
}

impl Broker {
    /// How many calls there is room for, if nothing happens but that time passes.
    pub fn availability(&self, now: Duration) -> Availability {
        let is_refused = self.refused_until > now;
        let left = |rate: &Rate| amount(rate).saturating_sub(self.all.within(rate.window, now));
        let left = if is_refused { 0 } else { self.rates.iter().map(left).min().unwrap_or(0) };
        let resets_at = if left == 0 {
            // What is under way counts until a window after its end, which is now at the earliest.
            let room = |rate: &Rate| self.all.room_at(amount(rate), rate.window).unwrap_or(now + rate.window);
            self.rates.iter().map(room).max().unwrap_or(now).max(self.refused_until)
        } else {
            let empty = |rate: &Rate| self.all.empty_at(rate.window, now);
            self.rates.iter().map(empty).min().unwrap_or(now)
        };
        let leaves = |rate: &Rate| Some(self.all.oldest(rate.window, now)? + rate.window);
        let changes = self.rates.iter().filter_map(leaves).chain(is_refused.then_some(self.refused_until));
        Availability {
            left: u32::try_from(left).unwrap_or(u32::MAX),
            resets_at,
            holds_until: changes.min().unwrap_or(Duration::MAX),
        }
    }

    /// Takes out of the queues whoever cannot be served in time, and if more than `most` wait, those
    /// who would be served last. With each, how long until there would be room for it.
    pub fn shed(&mut self, now: Duration, most: usize) -> Vec<(Ticket, Duration)> {
        let plan = self.forecast(now);
        let late = plan
            .iter()
            .enumerate()
            .filter(|(place, (waiting, at))| *place >= most || *at > waiting.deadline)
            .map(|(_, (waiting, at))| (waiting.ticket, at.saturating_sub(now)))
            .collect::<Vec<_>>();
        for (ticket, _) in &late {
            self.withdraw(*ticket);
        }
        late
    }

    /// Everybody who waits and when they will be served, if nobody else comes.
    fn forecast(&self, now: Duration) -> Vec<(QueuedCall, Duration)> {
        let deadlines: HashMap<Ticket, QueuedCall> = self
            .queues
            .values()
            .flat_map(|queue| queue.backlog.iter().map(|waiting| (waiting.ticket, *waiting)))
            .collect();
        let mut plan = Vec::with_capacity(deadlines.len());
        if deadlines.is_empty() {
            return plan;
        }
        let mut ahead = self.clone();
        ahead.all.end_all(now);
        let mut at = now;
        while plan.len() < deadlines.len() {
            for (ticket, _) in ahead.grant(at) {
                ahead.end(at);
                plan.extend(deadlines.get(&ticket).map(|waiting| (*waiting, at)));
            }
            // Without a window that ever opens there is nothing to see ahead.
            let Some(next) = ahead.next_grant(at) else { break };
            // The further off, the longer the steps.
            at += next.saturating_sub(at).min(STEP.max(next.saturating_sub(at) / 4)).max(INSTANT);
        }
        plan
    }
}
