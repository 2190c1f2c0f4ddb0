//! What will happen if only time passes: how many calls the pool has room for, and when each queued call is served.

use std::collections::HashMap;
use std::time::Duration;

use super::{Broker, QueuedCall, Ticket, amount};
use crate::config::Rate;

/// The largest step of a forecast: what is reserved for others shrinks with time.
pub const STEP: Duration = Duration::from_secs(1);

/// The smallest step.
pub const INSTANT: Duration = Duration::from_millis(1);

/// What a pool has room for, as long as no further call arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Availability {
    /// Calls that would be granted at once.
    pub left: u32,
    /// When the window is empty; if nothing is left, when one call is.
    pub resets_at: Duration,
    /// When the next call leaves a window. Until then these numbers hold.
    pub holds_until: Duration,
}

impl Broker {
    /// What there is room for from `now` on.
    pub fn availability(&self, now: Duration) -> Availability {
        let is_refused = self.refused_until > now;
        let left = |rate: &Rate| amount(rate).saturating_sub(self.all.within(rate.window, now));
        let left = if is_refused { 0 } else { self.rates.iter().map(left).min().unwrap_or(0) };
        let resets_at = if left == 0 {
            // A call in flight counts until a window after its end, which is now at the earliest.
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

    /// Removes the calls that cannot be served by their deadline, and of more than `max_waiting` calls those that
    /// would be served last. Returns them with the time until each would have been served.
    pub fn shed(&mut self, now: Duration, max_waiting: usize) -> Vec<(Ticket, Duration)> {
        let forecast = self.forecast(now);
        let late = forecast
            .iter()
            .enumerate()
            .filter(|(place, (waiting, at))| *place >= max_waiting || *at > waiting.deadline)
            .map(|(_, (waiting, at))| (waiting.ticket, at.saturating_sub(now)))
            .collect::<Vec<_>>();
        for (ticket, _) in &late {
            self.withdraw(*ticket);
        }
        late
    }

    /// Every queued call and the time at which it is served, in that order, if no further call arrives.
    fn forecast(&self, now: Duration) -> Vec<(QueuedCall, Duration)> {
        let queued: HashMap<Ticket, QueuedCall> = self
            .queues
            .values()
            .flat_map(|queue| queue.backlog.iter().map(|waiting| (waiting.ticket, *waiting)))
            .collect();
        let mut served = Vec::with_capacity(queued.len());
        if queued.is_empty() {
            return served;
        }
        let mut ahead = self.clone();
        ahead.all.end_all(now);
        let mut at = now;
        while served.len() < queued.len() {
            for (ticket, _) in ahead.grant(at) {
                ahead.end(at);
                served.extend(queued.get(&ticket).map(|waiting| (*waiting, at)));
            }
            // No window ever has room.
            let Some(next) = ahead.next_grant(at) else { break };
            // A grant that is far away is approached in longer steps.
            at += next.saturating_sub(at).min(STEP.max(next.saturating_sub(at) / 4)).max(INSTANT);
        }
        served
    }
}
