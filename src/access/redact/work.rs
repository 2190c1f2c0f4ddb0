//! The work that looking into one body takes, counted in steps: about one for each byte that is looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Unreadable;

/// Steps between two looks at whether the work is still wanted: some microseconds.
const STRIDE: u64 = 4096;

/// Counts steps, and ends what takes too many of them or is no longer wanted.
#[derive(Debug)]
pub struct Work {
    steps: u64,
    most: u64,
    next_look: u64,
    is_unwanted: Arc<AtomicBool>,
}

impl Work {
    /// At most so many steps, and none soon after `is_unwanted`.
    pub fn within(most: u64, is_unwanted: Arc<AtomicBool>) -> Self {
        Self { steps: 0, most, next_look: 0, is_unwanted }
    }

    /// As many steps as it takes.
    pub fn unlimited() -> Self {
        Self::within(u64::MAX, Arc::default())
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes so many steps.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Unreadable> {
        self.steps = self.steps.saturating_add(steps as u64);
        if self.steps >= self.next_look { self.look() } else { Ok(()) }
    }

    #[cold]
    fn look(&mut self) -> Result<(), Unreadable> {
        if self.steps > self.most {
            return Err(Unreadable::TooMuchWork);
        }
        if self.is_unwanted.load(Ordering::Relaxed) {
            return Err(Unreadable::Unwanted);
        }
        self.next_look = self.steps.saturating_add(STRIDE).min(self.most.saturating_add(1));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_ends_at_its_limit_and_soon_after_nobody_wants_it() {
        let mut work = Work::within(10_000, Arc::default());
        assert_eq!((0..10_000).try_for_each(|_| work.spend(1)), Ok(()));
        assert_eq!(work.spend(1), Err(Unreadable::TooMuchWork));
        assert_eq!(Work::within(9, Arc::default()).spend(10), Err(Unreadable::TooMuchWork));

        let is_unwanted = Arc::new(AtomicBool::new(false));
        let mut work = Work::within(u64::MAX, is_unwanted.clone());
        assert_eq!(work.spend(100), Ok(()));
        is_unwanted.store(true, Ordering::Relaxed);
        let more = (0..).take_while(|_| work.spend(1).is_ok()).count();
        assert!(more as u64 <= STRIDE, "{more}");
    }
}
