//! The time that the stand-in lives by: the machine's, or one that a test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A shared clock in Unix milliseconds. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock; it cannot be moved.
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// A clock that stands still at `unix_millis` until it is moved.
    pub fn starting_at(unix_millis: i64) -> Clock {
        Clock(Source::Manual(Arc::new(AtomicI64::new(unix_millis))))
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis),
            Source::Manual(now) => now.load(Ordering::SeqCst),
        }
    }

    /// Moves a manual clock forward.
    ///
    /// # Panics
    /// On the system clock, which is a mistake in the test.
    pub fn advance(&self, by: Duration) {
        self.manual().fetch_add(millis(by), Ordering::SeqCst);
    }

    /// Sets a manual clock, backwards too.
    ///
    /// # Panics
    /// On the system clock, which is a mistake in the test.
    pub fn set_ms(&self, unix_millis: i64) {
        self.manual().store(unix_millis, Ordering::SeqCst);
    }

    #[expect(clippy::panic, reason = "only tests move a clock, and a test may fail by panicking")]
    fn manual(&self) -> &AtomicI64 {
        match &self.0 {
            Source::Manual(now) => now,
            Source::System => panic!("the system clock cannot be moved: use Clock::starting_at"),
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
