//! What the upstream allows: rolling windows, reserved before a call is made.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::config::Rate;

/// The calls of one pool, as far back as its longest window reaches. Pure: time is handed in, as
/// time since the clock's start.
#[derive(Debug)]
struct Windows {
    rates: Vec<Rate>,
    calls: VecDeque<Duration>,
    closed_until: Duration,
}

impl Windows {
    fn new(rates: &[Rate]) -> Self {
        Self { rates: rates.to_vec(), calls: VecDeque::new(), closed_until: Duration::ZERO }
    }

    /// Counts one call at `now`, or says how long to wait before there is room for one.
    fn reserve(&mut self, now: Duration) -> Result<(), Duration> {
        let wait = self.wait(now);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        let longest = self.rates.iter().map(|rate| rate.window).max().unwrap_or_default();
        while self.calls.front().is_some_and(|call| now.saturating_sub(*call) >= longest) {
            self.calls.pop_front();
        }
        self.calls.push_back(now);
        Ok(())
    }

    fn wait(&self, now: Duration) -> Duration {
        let closed = self.closed_until.saturating_sub(now);
        self.rates
            .iter()
            .map(|rate| {
                // With `amount` calls in the window, room comes when the oldest of them leaves it.
                let Some(nth_last) = self.calls.len().checked_sub(rate.amount as usize) else {
                    return Duration::ZERO;
                };
                let oldest = self.calls.get(nth_last).copied().unwrap_or_default();
                (oldest + rate.window).saturating_sub(now)
            })
            .fold(closed, Duration::max)
    }

    /// Calls there is room for at once.
    fn available(&self, now: Duration) -> u32 {
        if self.closed_until > now {
            return 0;
        }
        let left = |rate: &Rate| {
            let used =
                self.calls.iter().rev().take_while(|call| now.saturating_sub(**call) < rate.window).count();
            rate.amount.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
        };
        self.rates.iter().map(left).min().unwrap_or(u32::MAX)
    }
}

/// One pool: those who wait for it go in the order they came.
pub struct Pool {
    windows: Mutex<Windows>,
    turn: tokio::sync::Mutex<()>,
    waiting: tokio::sync::Semaphore,
    clock: Clock,
}

/// There is no room in time; there may be after this long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted(pub Duration);

impl Pool {
    /// A pool with these windows, for which at most `max_waiting` requests wait.
    pub fn new(rates: &[Rate], max_waiting: usize, clock: Clock) -> Self {
        Self {
            windows: Mutex::new(Windows::new(rates)),
            turn: tokio::sync::Mutex::new(()),
            waiting: tokio::sync::Semaphore::new(max_waiting.min(tokio::sync::Semaphore::MAX_PERMITS)),
            clock,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Windows, Duration) -> T) -> T {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut windows, self.clock.uptime())
    }

    /// Reserves one call. Waits for room if it will come before `deadline` (time since the clock's
    /// start), and says so at once if not.
    pub async fn reserve(&self, deadline: Duration) -> Result<(), Exhausted> {
        let exhausted = || Exhausted(self.with(|windows, now| windows.wait(now)).max(Duration::from_secs(1)));
        let _place = self.waiting.try_acquire().map_err(|_| exhausted())?;
        let _turn = self.turn.lock().await;
        loop {
            let (wait, now) = match self.with(|windows, now| (windows.reserve(now), now)) {
                (Ok(()), _) => return Ok(()),
                (Err(wait), now) => (wait, now),
            };
            if now + wait > deadline {
                return Err(Exhausted(wait));
            }
            self.clock.sleep(wait).await;
        }
    }

    /// The upstream said that there is no room: for `wait` no call is made.
    pub fn close_for(&self, wait: Duration) {
        self.with(|windows, now| windows.closed_until = windows.closed_until.max(now + wait));
    }

    /// Calls there is room for at once.
    pub fn available(&self) -> u32 {
        self.with(|windows, now| windows.available(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn rate(amount: u32, window: u64) -> Rate {
        Rate { amount, window: seconds(window) }
    }

    #[test]
    fn a_window_rolls() {
        let mut windows = Windows::new(&[rate(2, 60)]);
        assert_eq!(windows.reserve(seconds(0)), Ok(()));
        assert_eq!(windows.reserve(seconds(50)), Ok(()));
        assert_eq!(windows.reserve(seconds(59)), Err(seconds(1)));
        assert_eq!(windows.reserve(seconds(60)), Ok(()));
        assert_eq!(windows.reserve(seconds(61)), Err(seconds(49)));
        assert_eq!(windows.available(seconds(110)), 1);
    }

    #[test]
    fn all_windows_of_a_pool_hold() {
        let mut windows = Windows::new(&[rate(2, 60), rate(3, 3600)]);
        for now in [0, 1, 60] {
            assert_eq!(windows.reserve(seconds(now)), Ok(()));
        }
        assert_eq!(windows.reserve(seconds(200)), Err(seconds(3400)));
        assert_eq!(windows.reserve(seconds(3600)), Ok(()));
    }

    #[tokio::test]
    async fn who_cannot_be_served_in_time_is_told_at_once() {
        let clock = Clock::manual(UnixMillis(0));
        let pool = Pool::new(&[rate(1, 60)], 10, clock.clone());
        assert_eq!(pool.reserve(seconds(30)).await, Ok(()));
        assert_eq!(pool.reserve(seconds(30)).await, Err(Exhausted(seconds(60))));
        clock.advance(seconds(60));
        assert_eq!(pool.reserve(seconds(90)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_refusal_by_the_upstream_closes_the_pool_for_a_while() {
        let clock = Clock::manual(UnixMillis(0));
        let pool = Pool::new(&[rate(60, 60)], 10, clock.clone());
        pool.close_for(seconds(60));
        assert_eq!(pool.available(), 0);
        assert_eq!(pool.reserve(seconds(30)).await, Err(Exhausted(seconds(60))));
        clock.advance(seconds(60));
        assert_eq!(pool.reserve(seconds(90)).await, Ok(()));
    }

    proptest::proptest! {
        /// Whatever the bursts, no window ever holds more calls than its amount.
        #[test]
        fn no_window_ever_holds_too_many(gaps in proptest::collection::vec(0_u64..20, 1..300)) {
            let rates = [rate(5, 30), rate(12, 120)];
            let mut windows = Windows::new(&rates);
            let mut now = seconds(0);
            let mut granted: Vec<Duration> = Vec::new();
            for gap in gaps {
                now += seconds(gap);
                if windows.reserve(now).is_ok() {
                    granted.push(now);
                }
                for rate in &rates {
                    let within = granted.iter().filter(|call| now - **call < rate.window).count();
                    proptest::prop_assert!(within <= rate.amount as usize);
                }
            }
        }
    }
}
