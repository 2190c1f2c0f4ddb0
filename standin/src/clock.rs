//! The time that the stand-in lives by: the machine's, or one that a test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

/// A shared clock in Unix milliseconds. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    now_ms: AtomicI64,
    moved: Notify,
}

impl Clock {
    /// The machine's clock; it cannot be moved.
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// A clock that stands still at `unix_millis` until it is moved.
    pub fn starting_at(unix_millis: i64) -> Clock {
        let now_ms = AtomicI64::new(unix_millis);
        Clock(Source::Manual(Arc::new(Manual { now_ms, moved: Notify::new() })))
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis),
            Source::Manual(manual) => manual.now_ms.load(Ordering::SeqCst),
        }
    }

    /// Moves a manual clock forward.
    ///
    /// # Panics
    /// On the system clock, which is a mistake in the test.
    pub fn advance(&self, by: Duration) {
        self.manual().now_ms.fetch_add(millis(by), Ordering::SeqCst);
        self.manual().moved.notify_waiters();
    }

    /// Waits until it shows this time.
    pub(super) async fn reaches(&self, unix_millis: i64) {
        match &self.0 {
            Source::System => {
                let left = u64::try_from(unix_millis - self.now_ms()).unwrap_or(0);
                tokio::time::sleep(Duration::from_millis(left)).await;
            }
            Source::Manual(manual) => loop {
                let mut moved = std::pin::pin!(manual.moved.notified());
                // Registered before the time is read: a move in between is not missed.
                moved.as_mut().enable();
                if self.now_ms() >= unix_millis {
                    return;
                }
                moved.await;
            },
        }
    }

    /// Sets a manual clock, backwards too.
    ///
    /// # Panics
    /// On the system clock, which is a mistake in the test.
    pub fn set_ms(&self, unix_millis: i64) {
        self.manual().now_ms.store(unix_millis, Ordering::SeqCst);
        self.manual().moved.notify_waiters();
    }

    #[expect(clippy::panic, reason = "only tests move a clock, and a test may fail by panicking")]
    fn manual(&self) -> &Manual {
        match &self.0 {
            Source::Manual(manual) => manual,
            Source::System => panic!("the system clock cannot be moved: use Clock::starting_at"),
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
