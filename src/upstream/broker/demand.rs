//! What a client has used of its share, and what it is about to use, going by what it has used
//! lately. That much is kept for it while others live beyond theirs.

use std::collections::VecDeque;
use std::time::Duration;

use super::STEP;
use crate::config::Rate;

/// For how long a burst is remembered, at least; at most for twice as long.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// A call leaves the pool's window later than the client's, by as long as it took. The peak is taken
/// over a window that is longer by one part in so many.
const SLACK: u32 = 20;

/// The calls of a client, or of the background lane, as they count towards a share.
///
/// A call within the share counts from when it was due, which is when it was asked for, or when the
/// share had room again, and not from when the pool at last had room for it. Else one burst that had
/// to wait would be in the way of the next one, and that of the one after it.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    /// In order.
    due: VecDeque<Duration>,
    /// The most calls that a window has held, in this stretch of time and in the one before.
    peak: usize,
    last_peak: usize,
    stretch_began: Duration,
}

impl Demand {
    /// One more call, which was due then. `rate` is the pool's first.
    pub fn take(&mut self, due: Duration, rate: &Rate) {
        let place = self.due.partition_point(|other| *other <= due);
        self.due.insert(place, due);
        let age = due.saturating_sub(self.stretch_began);
        if age >= REMEMBERED_FOR {
            self.last_peak = if age < REMEMBERED_FOR * 2 { self.peak } else { 0 };
            self.peak = 0;
            self.stretch_began = due;
        }
        self.peak = self.peak.max(self.within(rate.window + rate.window / SLACK, due));
    }

    /// The last one was never made.
    pub fn give_back(&mut self) {
        self.due.pop_back();
    }

    /// Drops what no window reaches, not even that of a call that was due a window ago.
    pub fn forget(&mut self, now: Duration, longest: Duration) {
        while self.due.front().is_some_and(|at| now.saturating_sub(*at) >= longest * 2) {
            self.due.pop_front();
        }
    }

    /// How many a window holds.
    pub fn within(&self, window: Duration, now: Duration) -> usize {
        self.due.len() - self.due.partition_point(|at| now.saturating_sub(*at) >= window)
    }

    /// From when on a window holds fewer than `share`; `None`: never.
    pub fn room_at(&self, share: usize, window: Duration) -> Option<Duration> {
        let Some(last_to_leave) = self.due.len().checked_sub(share) else { return Some(Duration::ZERO) };
        self.due.get(last_to_leave).map(|at| *at + window)
    }

    /// What is yet to come of a `share` of the window of `rate`. Just come: the whole share. Who calls
    /// at a pace: as much as that comes to in a window. Who calls in bursts, which only the first of
    /// the pool's windows is narrow enough to feel: as much as the largest one lately, for the next
    /// may come at any moment.
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
        match now.saturating_sub(self.stretch_began) {
            age if age < REMEMBERED_FOR => self.peak.max(self.last_peak),
            age if age < REMEMBERED_FOR * 2 => self.peak,
            _ => 0,
        }
    }
}
