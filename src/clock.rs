//! The one source of time. Decisions never read a clock: they are handed a [`UnixMillis`].
//!
//! Tests hold a manual clock and move it; nothing in the crate waits for time in another way than
//! [`Clock::sleep`], except the deadlines of real exchanges on real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This time, later by `duration`; saturates at the end of time.
    pub fn plus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long ago `earlier` was, seen from here; zero if it is still to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whole seconds since the epoch, as JWT's `NumericDate` wants them (RFC 7519 §2).
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// Tells the time: the system's, or one that a test moves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System { started: Instant },
    Manual { start: i64, now: AtomicI64, moved: Notify },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Arc::new(Source::System { started: Instant::now() }))
    }

    /// A clock that stands still at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: UnixMillis) -> Self {
        Self(Arc::new(Source::Manual { start: start.0, now: AtomicI64::new(start.0), moved: Notify::new() }))
    }

    /// Moves a manual clock forward and wakes who sleeps on it. The system's clock does not move.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { now, moved, .. } = &*self.0 {
            now.store(self.now().plus(by).0, Ordering::SeqCst);
            moved.notify_waiters();
        }
    }

    /// The time of day. It can jump when an operator sets the machine's clock.
    pub fn now(&self) -> UnixMillis {
        match &*self.0 {
            Source::System { .. } => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Manual { now, .. } => UnixMillis(now.load(Ordering::SeqCst)),
        }
    }

    /// Time since the clock was made. It never jumps, so windows and limits count on it.
    pub fn uptime(&self) -> Duration {
        match &*self.0 {
            Source::System { started } => started.elapsed(),
            Source::Manual { start, .. } => self.now().since(UnixMillis(*start)),
        }
    }

    /// Waits until `duration` has passed on this clock.
    pub async fn sleep(&self, duration: Duration) {
        match &*self.0 {
            Source::System { .. } => tokio::time::sleep(duration).await,
            Source::Manual { moved, .. } => {
                let wake = self.now().plus(duration);
                loop {
                    let mut move_seen = std::pin::pin!(moved.notified());
                    // Registered before the time is read: a move in between is not missed.
                    move_seen.as_mut().enable();
                    if self.now() >= wake {
                        return;
                    }
                    move_seen.await;
                }
            }
        }
    }
}

/// The rate limiter's view of the same clock.
impl governor::clock::Clock for Clock {
    type Instant = governor::nanos::Nanos;

    fn now(&self) -> Self::Instant {
        self.uptime().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_it_is_moved() {
        let clock = Clock::manual(UnixMillis(1_000));
        assert_eq!(clock.now(), UnixMillis(1_000));
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now(), UnixMillis(3_000));
        assert_eq!(clock.uptime(), Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_its_time_has_come_and_not_before() {
        let clock = Clock::manual(UnixMillis(0));
        let sleeper = {
            let clock = clock.clone();
            tokio::spawn(async move { clock.sleep(Duration::from_secs(10)).await })
        };
        tokio::task::yield_now().await; // It is asleep from here on.
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        assert!(sleeper.await.is_ok());
    }

    #[test]
    fn times_before_one_another_are_zero_apart() {
        assert_eq!(UnixMillis(5).since(UnixMillis(9)), Duration::ZERO);
        assert_eq!(UnixMillis(-1).seconds(), -1);
    }
}
