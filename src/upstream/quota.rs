//! What the upstream allows: rolling windows. Pure: time is handed in, as time since the clock's
//! start.

use std::collections::VecDeque;
use std::time::Duration;

/// Calls, as far back as a window may reach.
///
/// The upstream counts a call at some moment between its start and its end, and does not say when.
/// So a call under way is in every window, and one that has ended is as young as its end: then no
/// delay between the two parties can put one call too many into a window of the upstream's.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    under_way: usize,
    /// When the others ended, in order.
    ended: VecDeque<Duration>,
}

impl Calls {
    /// One more is under way.
    pub fn begin(&mut self) {
        self.under_way += 1;
    }

    /// One of those under way has ended; or it was given up, and the upstream may count it until this
    /// time to come.
    pub fn end(&mut self, at: Duration) {
        self.under_way = self.under_way.saturating_sub(1);
        let place = self.ended.partition_point(|other| *other <= at);
        self.ended.insert(place, at);
    }

    /// One of those under way was never made.
    pub fn give_back(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// All that are under way end, for a look into the future.
    pub fn end_all(&mut self, now: Duration) {
        for _ in 0..std::mem::take(&mut self.under_way) {
            self.end(now);
        }
    }

    /// Drops what no window reaches.
    pub fn forget(&mut self, now: Duration, longest: Duration) {
        while self.ended.front().is_some_and(|at| now.saturating_sub(*at) >= longest) {
            self.ended.pop_front();
        }
    }

    fn ended_within(&self, window: Duration, now: Duration) -> usize {
        self.ended.len() - self.ended.partition_point(|at| now.saturating_sub(*at) >= window)
    }

    /// How many a window holds.
    pub fn within(&self, window: Duration, now: Duration) -> usize {
        self.under_way + self.ended_within(window, now)
    }

    /// From when on a window holds fewer than `amount`; `None`: not before one under way ends.
    pub fn room_at(&self, amount: usize, window: Duration) -> Option<Duration> {
        let Some(last_to_leave) = (self.ended.len() + self.under_way).checked_sub(amount) else {
            return Some(Duration::ZERO);
        };
        self.ended.get(last_to_leave).map(|at| *at + window)
    }

    /// The end of the oldest call in a window.
    pub fn oldest(&self, window: Duration, now: Duration) -> Option<Duration> {
        self.ended.get(self.ended.len() - self.ended_within(window, now)).copied()
    }

    /// From when on a window holds none, if those under way end at once.
    pub fn empty_at(&self, window: Duration, now: Duration) -> Duration {
        let youngest = if self.under_way > 0 { Some(now) } else { self.ended.back().copied() };
        youngest.map_or(now, |at| at + window).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ended(at: &[u64]) -> Calls {
        Calls { under_way: 0, ended: at.iter().copied().map(seconds).collect() }
    }

    #[test]
    fn a_window_rolls() {
        let calls = ended(&[0, 50]);
        assert_eq!(calls.within(seconds(60), seconds(59)), 2);
        assert_eq!(calls.within(seconds(60), seconds(60)), 1);
        assert_eq!(calls.room_at(2, seconds(60)), Some(seconds(60)));
        assert_eq!(calls.room_at(1, seconds(60)), Some(seconds(110)));
        assert_eq!(calls.room_at(3, seconds(60)), Some(seconds(0)));
    }

    #[test]
    fn a_call_under_way_does_not_age() {
        let mut calls = Calls::default();
        calls.begin();
        assert_eq!(calls.within(seconds(60), seconds(3600)), 1);
        assert_eq!(calls.room_at(1, seconds(60)), None);
        calls.end(seconds(3600));
        assert_eq!(calls.room_at(1, seconds(60)), Some(seconds(3660)));
    }

    #[test]
    fn a_call_that_was_never_made_leaves_no_trace() {
        let mut calls = Calls::default();
        calls.begin();
        calls.give_back();
        assert_eq!(calls.within(seconds(60), seconds(0)), 0);
        assert_eq!(calls.room_at(1, seconds(60)), Some(seconds(0)));
    }

    #[test]
    fn what_no_window_reaches_is_forgotten() {
        let mut calls = ended(&[0, 30, 70]);
        calls.forget(seconds(90), seconds(60));
        assert_eq!(calls.ended, [seconds(70)]);
        assert_eq!(calls.oldest(seconds(60), seconds(100)), Some(seconds(70)));
        assert_eq!(calls.oldest(seconds(60), seconds(130)), None);
    }
}
