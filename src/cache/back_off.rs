//! After a fill that failed, the next one for the same answer waits a little.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use moka::sync::Cache;

use crate::routes::Key;

/// Failures remembered at a time. With more of them the upstream is down, and its breaker opens.
const MOST_REMEMBERED: u64 = 10_000;

/// Until when fills that failed are not repeated, on the clock's uptime. Keys are remembered by
/// their hash: at worst a fill waits in vain.
pub struct BackOff {
    length: Duration,
    until: Cache<u64, Duration>,
    hasher: RandomState,
}

impl BackOff {
    pub fn new(length: Duration) -> Self {
        Self { length, until: Cache::new(MOST_REMEMBERED), hasher: RandomState::new() }
    }

    /// How much longer to wait at `now`.
    pub fn left(&self, key: &Key, now: Duration) -> Duration {
        let until = self.until.get(&self.hasher.hash_one(key)).unwrap_or_default();
        until.saturating_sub(now)
    }

    /// A fill has ended.
    pub fn note(&self, key: &Key, failed: bool, now: Duration) {
        let key = self.hasher.hash_one(key);
        if failed && !self.length.is_zero() {
            self.until.insert(key, now.saturating_add(self.length));
        } else if self.until.contains_key(&key) {
            self.until.invalidate(&key);
        }
    }
}
