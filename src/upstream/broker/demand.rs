//! The demand of a client: what it has used of its share, and what it is likely to use soon, judged by what it has used
//! lately. That much is reserved for it while other clients take surplus.

use std::collections::VecDeque;
use std::time::Duration;

use super::STEP;
use crate::config::Rate;

/// A burst is remembered for at least this long, and for at most twice as long.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// The pool counts a call from its end, the client from when it was due. So the peak is taken over a window that is
/// longer by one part in so many.
const SLACK: u32 = 20;

/// The calls of a client, or of the background lane, as they count against a share.
///
/// A call within the share counts from the time at which it was due: when it arrived, or when the share had room again.
/// The time at which the pool had room for it does not matter. Otherwise a burst that had to wait would delay the next
/// one, and so on.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    /// When each call was due, in order.
    due: VecDeque<Duration>,
    /// The most calls that a window has held, in the current period and in the one before.
    peak: usize,
    last_peak: usize,
    period_start: Duration,
}

impl Demand {
    /// Counts a call that was due then. `rate` is the first of the pool.
    pub fn take(&mut self, due: Duration, rate: &Rate) {
        let place = self.due.partition_point(|other| *other <= due);
        self.due.insert(place, due);
        let age = due.saturating_sub(self.period_start);
        if age >= REMEMBERED_FOR {
            self.last_peak = if age < REMEMBERED_FOR * 2 { self.peak } else { 0 };
            self.peak = 0;
            self.period_start = due;
        }
        self.peak = self.peak.max(self.within(rate.window + rate.window / SLACK, due));
    }

    /// The last call was never sent.
    pub fn give_back(&mut self) {
        self.due.pop_back();
    }

    /// Drops calls that were due two or more of the longest windows ago. Those of the window before are still needed:
    /// a call may be counted late, at the time when it was due.
    pub fn forget(&mut self, now: Duration, longest: Duration) {
        while self.due.front().is_some_and(|at| now.saturating_sub(*at) >= longest * 2) {
            self.due.pop_front();
        }
    }

    /// How many calls a window holds.
    pub fn within(&self, window: Duration, now: Duration) -> usize {
        self.due.len() - self.due.partition_point(|at| now.saturating_sub(*at) >= window)
    }

    /// When a window holds fewer than `share` calls. `None`: never.
    pub fn room_at(&self, share: usize, window: Duration) -> Option<Duration> {
        let Some(last_to_leave) = self.due.len().checked_sub(share) else { return Some(Duration::ZERO) };
        self.due.get(last_to_leave).map(|at| *at + window)
    }

    /// How much more of `share` the client is likely to use in the window of `rate`. A client that has just begun:
    /// the whole share. A steady client: what its pace comes to in a window. A client with bursts: the largest recent
    /// one, for the next may come at any moment; only the first window of a pool is narrow enough to feel a burst.
    pub fn expected(&self, share: usize, rate: &Rate, is_first: bool, now: Duration) -> usize {
        let used = self.within(rate.window, now);
        let pace = self.due.get(self.due.len() - used).map_or(0, |first| {
            let age = now.saturating_sub(*first).max(STEP).as_millis();
            usize::try_from(used as u128 * rate.window.as_millis() / age).unwrap_or(usize::MAX)
        });
        let burst = if is_first { self.burst(now) } else { 0 };
        pace.max(burst).min(share).saturating_sub(used)
    }

    fn burst(&self, now: Duration) -> usize {
        match now.saturating_sub(self.period_start) {
            age if age < REMEMBERED_FOR => self.peak.max(self.last_peak),
            age if age < REMEMBERED_FOR * 2 => self.peak,
            _ => 0,
        }
    }
}
