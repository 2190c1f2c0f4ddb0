//! How often a failed call is repeated, and after which wait. Pure, except for the credit that the budget counts.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::config::Retry;

/// The most retries that the credit holds: one bad minute must not use up all that a quiet time has earned.
const MAX_RETRY_CREDIT: i64 = 10;

/// The most repeats of any kind that the credit holds. So many calls can be in flight over kept connections at a time.
const MAX_CREDIT: i64 = 1000;

/// One call, in the unit of the credit: hundredths of a call.
const CALL: i64 = 100;

/// The budget of repeats. Each first call adds a part of a repeat to the credit, and each repeat takes one whole. So
/// `n` requests that need the upstream never make more than `n` calls and that part of `n`.
pub struct Budget {
    per_call: AtomicI64,
    /// Credit for repeats of any kind.
    credit: AtomicI64,
    /// The part of it that retries may use.
    retry_credit: AtomicI64,
}

/// One repeat, reserved in the budget. It returns to the credit when it is dropped, unless it was spent.
pub struct RetryPermit<'a> {
    budget: &'a Budget,
    is_retry: bool,
}

impl Budget {
    /// A budget of `percent` repeats for each hundred first calls.
    pub fn new(percent: u32) -> Self {
        let per_call = AtomicI64::new(percent.into());
        Self { per_call, credit: AtomicI64::new(0), retry_credit: AtomicI64::new(0) }
    }

    /// Changes the percentage for the calls from now on.
    pub fn reshape(&self, percent: u32) {
        self.per_call.store(percent.into(), Ordering::Relaxed);
    }

    /// A first call was made.
    pub fn deposit(&self) {
        let per_call = self.per_call.load(Ordering::Relaxed);
        add(&self.credit, per_call, MAX_CREDIT);
        add(&self.retry_credit, per_call, MAX_RETRY_CREDIT);
    }

    /// Reserves a repeat, if the credit holds one.
    pub fn reserve(&self) -> Option<RetryPermit<'_>> {
        take(&self.credit).then(|| RetryPermit { budget: self, is_retry: false })
    }

    /// Reserves the retry of a failed call, if the credit holds one.
    pub fn reserve_retry(&self) -> Option<RetryPermit<'_>> {
        let mut permit = self.reserve()?;
        permit.is_retry = take(&self.retry_credit);
        permit.is_retry.then_some(permit)
    }
}

impl RetryPermit<'_> {
    /// The repeat is made, so its credit is used up.
    pub fn spend(self) {
        std::mem::forget(self);
    }
}

impl Drop for RetryPermit<'_> {
    fn drop(&mut self) {
        add(&self.budget.credit, CALL, MAX_CREDIT);
        if self.is_retry {
            add(&self.budget.retry_credit, CALL, MAX_RETRY_CREDIT);
        }
    }
}

fn add(account: &AtomicI64, hundredths: i64, most: i64) {
    let more = |credit: i64| Some((credit + hundredths).min(most * CALL));
    let _ = account.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
}

fn take(account: &AtomicI64) -> bool {
    let less = |credit: i64| (credit >= CALL).then_some(credit - CALL);
    account.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
}

/// The wait before the `nth` repeat (from 0): a random time up to a bound that doubles with each repeat ("full jitter",
/// so that calls that failed together do not return together). `random` is uniform over all numbers.
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

    fn retries(budget: &Budget, wanted: u32) -> u32 {
        (0..wanted).map(|_| budget.reserve_retry().map(RetryPermit::spend).map_or(0, |()| 1)).sum()
    }

    #[test]
    fn ten_calls_pay_for_one_repeat() {
        let budget = Budget::new(10);
        assert_eq!(retries(&budget, 1), 0);
        for _ in 0..9 {
            budget.deposit();
        }
        assert_eq!(retries(&budget, 1), 0);
        budget.deposit();
        assert_eq!(retries(&budget, 2), 1);
        for _ in 0..10 {
            budget.deposit();
        }
        drop(budget.reserve_retry().expect("one"));
        assert_eq!(retries(&budget, 2), 1);
    }

    #[test]
    fn no_more_than_ten_retries_are_saved_up() {
        let budget = Budget::new(10);
        for _ in 0..10_000 {
            budget.deposit();
        }
        assert_eq!(retries(&budget, 100), 10);
    }

    #[test]
    fn whatever_is_set_aside_is_not_there_for_another_until_it_comes_back_unspent() {
        let budget = Budget::new(10);
        for _ in 0..20 {
            budget.deposit();
        }
        let (first, second) = (budget.reserve().expect("one"), budget.reserve().expect("two"));
        assert_eq!(retries(&budget, 1), 0);
        drop(first);
        second.spend();
        assert_eq!(retries(&budget, 5), 1);
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
