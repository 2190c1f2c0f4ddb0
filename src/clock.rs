//! The one source of time. Decisions never read a clock: they are handed a [`UnixMillis`] or a
//! [`Moment`].
//!
//! Tests hold a manual clock and move it; nothing in the crate waits for time in another way than
//! [`Clock::sleep`], except the deadlines of real exchanges on real sockets.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

/// RFC 3339 in UTC, to the millisecond: the one format of all lines that the gateway writes.
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", jiff::Timestamp::from_millisecond(self.0).unwrap_or_default())
    }
}

/// A moment on both clocks. The time of day is what answers speak of, and it can be set; the uptime
/// only goes forward, so it says what came first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    pub wall: UnixMillis,
    /// Since the clock was made.
    pub uptime: Duration,
}

impl Moment {
    /// How long ago `earlier` was, by the clock that says more: one that is set back makes nothing
    /// younger, and what lay there while the machine slept (the uptime stood still) is as old as it is.
    pub fn since(self, earlier: Self) -> Duration {
        self.uptime.saturating_sub(earlier.uptime).max(self.wall.since(earlier.wall))
    }

    pub fn is_after(self, other: Self) -> bool {
        self.uptime > other.uptime
    }
}

/// Tells the time: the system's, or one that a test moves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System {
        started: Instant,
    },
    /// `now` less `start` is the uptime; the time of day is `ahead` of `now`.
    Manual {
        start: i64,
        now: AtomicI64,
        ahead: AtomicI64,
        moved: Notify,
        sleepers: Sleepers,
        /// Time on sockets passes on it too.
        governs: bool,
    },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Arc::new(Source::System { started: Instant::now() }))
    }

    /// A clock that stands still at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: UnixMillis) -> Self {
        Self::moved_by_hand(start, false)
    }

    /// The same, for a simulation in which the other party lives by it too: what happens on sockets takes no
    /// time but what this clock is moved by.
    pub fn governing(start: UnixMillis) -> Self {
        Self::moved_by_hand(start, true)
    }

    fn moved_by_hand(start: UnixMillis, governs: bool) -> Self {
        let (now, ahead, moved) = (AtomicI64::new(start.0), AtomicI64::new(0), Notify::new());
        let sleepers = Sleepers::default();
        Self(Arc::new(Source::Manual { start: start.0, now, ahead, moved, sleepers, governs }))
    }

    /// Moves a manual clock forward and wakes who sleeps on it. The system's clock does not move.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { now, moved, .. } = &*self.0 {
            now.fetch_add(i64::try_from(by.as_millis()).unwrap_or(0), Ordering::SeqCst);
            moved.notify_waiters();
        }
    }

    /// Sets a manual clock's time of day forward or back, as an operator does; the uptime goes on.
    pub fn set_by(&self, millis: i64) {
        if let Source::Manual { ahead, .. } = &*self.0 {
            ahead.fetch_add(millis, Ordering::SeqCst);
        }
    }

    /// How many sleep on a manual clock that have to sleep for exactly `duration` and are not due yet. With it a test
    /// proves that somebody waits, or that a task which sleeps again and again has woken and done its work.
    pub fn asleep_for(&self, duration: Duration) -> usize {
        match &*self.0 {
            Source::System { .. } => 0,
            Source::Manual { sleepers, .. } => sleepers.count(duration, self.uptime()),
        }
    }

    /// The time of day. It can jump when an operator sets the machine's clock.
    pub fn now(&self) -> UnixMillis {
        match &*self.0 {
            Source::System { .. } => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Manual { now, ahead, .. } => {
                UnixMillis(now.load(Ordering::SeqCst).saturating_add(ahead.load(Ordering::SeqCst)))
            }
        }
    }

    /// Both clocks.
    pub fn moment(&self) -> Moment {
        Moment { wall: self.now(), uptime: self.uptime() }
    }

    /// Time since the clock was made. It never jumps, so windows and limits count on it.
    pub fn uptime(&self) -> Duration {
        match &*self.0 {
            Source::System { started } => started.elapsed(),
            Source::Manual { start, now, .. } => {
                UnixMillis(now.load(Ordering::SeqCst)).since(UnixMillis(*start))
            }
        }
    }

    /// Waits until `duration` has passed, as the timeout of somebody who waits for others. With a manual clock it has to
    /// pass on the machine's clock as well: however far a test moves time, and however slow the
    /// machine is, an exchange on real sockets is not given up before it can have happened.
    pub async fn timeout(&self, duration: Duration) {
        if let Source::Manual { governs: false, .. } = &*self.0 {
            tokio::join!(self.sleep(duration), tokio::time::sleep(duration));
        } else {
            self.sleep(duration).await;
        }
    }

    /// Waits until `duration` has passed for what happens on a socket: on the machine's clock, unless a
    /// manual one governs.
    pub async fn on_sockets(&self, duration: Duration) {
        if let Source::Manual { governs: true, .. } = &*self.0 {
            self.sleep(duration).await;
        } else {
            tokio::time::sleep(duration).await;
        }
    }

    /// Waits until `duration` has passed on this clock.
    pub async fn sleep(&self, duration: Duration) {
        match &*self.0 {
            Source::System { .. } => tokio::time::sleep(duration).await,
            Source::Manual { moved, sleepers, .. } => {
                let wake = self.uptime().saturating_add(duration);
                let _asleep = sleepers.fall_asleep(duration, wake);
                loop {
                    let mut move_seen = std::pin::pin!(moved.notified());
                    // Registered before the time is read: a move in between is not missed.
                    move_seen.as_mut().enable();
                    if self.uptime() >= wake {
                        return;
                    }
                    move_seen.await;
                }
            }
        }
    }
}

/// Who sleeps on a manual clock: for how long and until when, and how many of them.
#[derive(Default, Debug)]
struct Sleepers(Mutex<BTreeMap<(Duration, Duration), usize>>);

impl Sleepers {
    /// One more, until the result is dropped.
    fn fall_asleep(&self, duration: Duration, wake: Duration) -> Asleep<'_> {
        self.change((duration, wake), |count| count + 1);
        Asleep { sleepers: self, entry: (duration, wake) }
    }

    fn count(&self, duration: Duration, now: Duration) -> usize {
        let sleepers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let later = (Bound::Excluded((duration, now)), Bound::Included((duration, Duration::MAX)));
        sleepers.range(later).map(|(_, count)| count).sum()
    }

    fn change(&self, entry: (Duration, Duration), change: impl FnOnce(usize) -> usize) {
        let mut sleepers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match change(sleepers.remove(&entry).unwrap_or_default()) {
            0 => {}
            count => drop(sleepers.insert(entry, count)),
        }
    }
}

/// One who sleeps on a manual clock.
struct Asleep<'a> {
    sleepers: &'a Sleepers,
    entry: (Duration, Duration),
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.sleepers.change(self.entry, |count| count.saturating_sub(1));
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

    #[test]
    fn age_is_what_the_clock_says_that_says_more() {
        let moment = |wall, uptime| Moment { wall: UnixMillis(wall), uptime: Duration::from_millis(uptime) };
        let asked = moment(10_000, 500);
        for (now, age) in [
            (moment(12_000, 2_500), 2_000),
            (moment(0, 2_500), 2_000),       // set back
            (moment(60_000, 2_500), 50_000), // set forward, or asleep
            (moment(0, 500), 0),
        ] {
            assert_eq!(now.since(asked), Duration::from_millis(age), "{now:?}");
        }
        assert!(moment(0, 501).is_after(asked) && !asked.is_after(asked));
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_its_time_has_come_and_not_before() {
        const TEN: Duration = Duration::from_secs(10);
        let clock = Clock::manual(UnixMillis(0));
        let sleeper = {
            let clock = clock.clone();
            tokio::spawn(async move { clock.sleep(TEN).await })
        };
        while clock.asleep_for(TEN) != 1 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished() && clock.asleep_for(TEN) == 1);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.asleep_for(TEN), 0, "it is due");
        assert!(sleeper.await.is_ok());
    }

    #[tokio::test]
    async fn who_sleeps_is_counted_until_he_is_due_or_gone() {
        let clock = Clock::manual(UnixMillis(0));
        let [one, two] = [1, 2].map(Duration::from_secs);
        let mut sleepers = [one, one, two].map(|duration| Box::pin(clock.sleep(duration)));
        assert_eq!(clock.asleep_for(one), 0, "nobody has begun to");
        for sleeper in &mut sleepers {
            assert!(futures_util::poll!(sleeper).is_pending());
        }
        assert_eq!((clock.asleep_for(one), clock.asleep_for(two)), (2, 1));
        let [gone, ..] = sleepers;
        drop(gone);
        assert_eq!((clock.asleep_for(one), clock.asleep_for(two)), (1, 1));
        clock.advance(one);
        assert_eq!((clock.asleep_for(one), clock.asleep_for(two)), (0, 1), "one is due");
    }

    #[test]
    fn times_before_one_another_are_zero_apart() {
        assert_eq!(UnixMillis(5).since(UnixMillis(9)), Duration::ZERO);
        assert_eq!(UnixMillis(-1).seconds(), -1);
    }
}
