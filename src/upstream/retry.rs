//! How often a call that failed is made again, and after how long. Pure, but for the account that
//! the budget keeps.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::config::Retry;

/// Retries that may be saved up: those of a quiet time must not all be spent on one bad minute.
const MAX_RETRY_CREDIT: i64 = 10;

/// Repeats of any kind that may be saved up. As many calls as this can be under way over kept
/// connections at a time.
const MAX_CREDIT: i64 = 1000;

/// In hundredths of a call.
const CALL: i64 = 100;

/// Repeats are paid for by first calls: each pays a part of one. So of `n` requests that need the
/// upstream there are never more than `n` and that part of `n` calls.
pub struct Budget {
    per_call: AtomicI64,
    /// For repeats of any kind.
    credit: AtomicI64,
    /// Of these, for retries.
    retry_credit: AtomicI64,
}

/// A repeat that is paid for. Paid back when it is dropped, unless it was made.
pub struct RetryPermit<'a> {
    budget: &'a Budget,
    is_retry: bool,
}

impl Budget {
    /// A repeat for each hundred calls in `percent`.
    pub fn new(percent: u32) -> Self {
        let per_call = AtomicI64::new(percent.into());
        Self { per_call, credit: AtomicI64::new(0), retry_credit: AtomicI64::new(0) }
    }

    /// Another part of a repeat for each call from here on.
    pub fn reshape(&self, percent: u32) {
        self.per_call.store(percent.into(), Ordering::Relaxed);
    }

    /// A first call was made.
    pub fn deposit(&self) {
        let per_call = self.per_call.load(Ordering::Relaxed);
        add(&self.credit, per_call, MAX_CREDIT);
        add(&self.retry_credit, per_call, MAX_RETRY_CREDIT);
    }

    /// Leave to make one more call, if there is one.
    pub fn reserve(&self) -> Option<RetryPermit<'_>> {
        take(&self.credit).then(|| RetryPermit { budget: self, is_retry: false })
    }

    /// Leave to make a call again that failed.
    pub fn reserve_retry(&self) -> Option<RetryPermit<'_>> {
        let mut permit = self.reserve()?;
        permit.is_retry = take(&self.retry_credit);
        permit.is_retry.then_some(permit)
    }
}

impl RetryPermit<'_> {
    /// The repeat is made.
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
