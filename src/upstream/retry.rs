//! How often a call that failed is made again, and after how long. Pure, but for the account that
//! the budget keeps.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::config::Retry;

/// Repeats that may be saved up: those of a quiet time must not all be spent on one bad minute.
const MOST_SAVED: i64 = 10;

/// Repeats that may be owed for connections that the upstream closed while they lay idle. Such a
/// call is mostly one that the upstream never saw.
const MOST_OWED: i64 = 5;

/// In hundredths of a call.
const CALL: i64 = 100;

/// Repeats are paid for by first calls: each pays a part of one. So of `n` requests that need the
/// upstream there are never more than `n` and that part of `n` calls.
pub struct Budget {
    per_call: i64,
    credit: AtomicI64,
}

impl Budget {
    /// A repeat for each hundred calls in `percent`.
    pub fn new(percent: u32) -> Self {
        Self { per_call: percent.into(), credit: AtomicI64::new(0) }
    }

    /// A first call was made.
    pub fn deposit(&self) {
        let more = |credit: i64| Some((credit + self.per_call).min(MOST_SAVED * CALL));
        let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Leave to make one more call.
    pub fn withdraw(&self) -> bool {
        self.take(0)
    }

    /// Leave to make one more call in place of one that the upstream has hardly seen.
    pub fn overdraw(&self) -> bool {
        self.take(-MOST_OWED * CALL)
    }

    /// The call was not made after all.
    pub fn refund(&self) {
        self.credit.fetch_add(CALL, Ordering::Relaxed);
    }

    fn take(&self, floor: i64) -> bool {
        let less = |credit: i64| (credit - CALL >= floor).then_some(credit - CALL);
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// How long to wait before the `nth` repeat (from 0): anything from nothing to a bound that doubles
/// each time ("full jitter": those who failed together do not come back together). `random` is
/// uniform over all numbers.
pub fn full_jitter(retry: &Retry, nth: u32, random: u32) -> Duration {
    let bound = retry.first_wait.saturating_mul(2_u32.saturating_pow(nth)).min(retry.longest_wait);
    let nanos = bound.as_nanos() * u128::from(random) / u128::from(u32::MAX);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry =
        Retry { budget: 10, first_wait: Duration::from_millis(100), longest_wait: Duration::from_secs(2) };

    #[test]
    fn ten_calls_pay_for_one_repeat() {
        let budget = Budget::new(10);
        assert!(!budget.withdraw());
        for _ in 0..9 {
            budget.deposit();
        }
        assert!(!budget.withdraw());
        budget.deposit();
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
        budget.refund();
        assert!(budget.withdraw());
    }

    #[test]
    fn no_more_than_ten_repeats_are_saved_up() {
        let budget = Budget::new(10);
        for _ in 0..10_000 {
            budget.deposit();
        }
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 10);
    }

    #[test]
    fn five_repeats_may_be_owed_and_are_paid_back_first() {
        let budget = Budget::new(10);
        assert_eq!((0..100).filter(|_| budget.overdraw()).count(), 5);
        for _ in 0..59 {
            budget.deposit();
        }
        assert!(!budget.withdraw());
        budget.deposit();
        assert!(budget.withdraw());
    }

    #[test]
    fn waits_are_a_random_part_of_a_bound_that_doubles_up_to_the_longest() {
        assert_eq!(full_jitter(&RETRY, 0, 0), Duration::ZERO);
        assert_eq!(full_jitter(&RETRY, 0, u32::MAX), Duration::from_millis(100));
        assert_eq!(full_jitter(&RETRY, 2, u32::MAX), Duration::from_millis(400));
        assert_eq!(full_jitter(&RETRY, 90, u32::MAX), Duration::from_secs(2));
        assert!(full_jitter(&RETRY, 1, u32::MAX / 2) < Duration::from_millis(101));
    }
}
