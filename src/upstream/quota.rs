//! The rolling windows of the upstream's quota. Pure: time is passed in, as time since the clock's start.

use std::collections::VecDeque;
use std::time::Duration;

/// The calls of the longest window.
///
/// The upstream counts a call at some moment between its start and its end, and does not say when. So a call in
/// flight is in every window, and a call that has ended counts from its end. Then no delay between gateway and
/// upstream can put one call too many into a window of the upstream.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    in_flight: usize,
    /// When the other calls ended, in order.
    ended: VecDeque<Duration>,
}

impl Calls {
    /// One more call is in flight.
    pub fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// A call in flight has ended. For an abandoned call `at` is in the future: the upstream may count it until then.
    pub fn end(&mut self, at: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let place = self.ended.partition_point(|other| *other <= at);
        self.ended.insert(place, at);
    }

    /// A call in flight was never sent.
    pub fn give_back(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// All calls in flight end now, for a forecast.
    pub fn end_all(&mut self, now: Duration) {
        for _ in 0..std::mem::take(&mut self.in_flight) {
            self.end(now);
        }
    }

    /// Drops calls that are in no window.
    pub fn forget(&mut self, now: Duration, longest: Duration) {
        while self.ended.front().is_some_and(|at| now.saturating_sub(*at) >= longest) {
            self.ended.pop_front();
        }
    }

    fn ended_within(&self, window: Duration, now: Duration) -> usize {
        self.ended.len() - self.ended.partition_point(|at| now.saturating_sub(*at) >= window)
    }

    /// How many calls a window holds.
    pub fn within(&self, window: Duration, now: Duration) -> usize {
        self.in_flight + self.ended_within(window, now)
    }

    /// When a window holds fewer than `amount` calls. `None`: not before a call in flight ends.
    pub fn room_at(&self, amount: usize, window: Duration) -> Option<Duration> {
        let Some(last_to_leave) = (self.ended.len() + self.in_flight).checked_sub(amount) else {
            return Some(Duration::ZERO);
        };
        self.ended.get(last_to_leave).map(|at| *at + window)
    }

    /// The end of the oldest call in a window.
    pub fn oldest(&self, window: Duration, now: Duration) -> Option<Duration> {
        self.ended.get(self.ended.len() - self.ended_within(window, now)).copied()
    }

    /// When a window is empty, if the calls in flight end now.
    pub fn empty_at(&self, window: Duration, now: Duration) -> Duration {
        let youngest = if self.in_flight > 0 { Some(now) } else { self.ended.back().copied() };
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
        Calls { in_flight: 0, ended: at.iter().copied().map(seconds).collect() }
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
    fn a_call_in_flight_does_not_age() {
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
