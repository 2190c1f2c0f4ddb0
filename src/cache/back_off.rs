//! After a fill that failed, the next one for the same answer waits a little.

use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;
use hashlink::LruCache;

use crate::routes::Key;

/// Failures remembered at a time, the latest ones.
const MOST_REMEMBERED: usize = 10_000;

/// Until when fills that failed are not repeated, on the clock's uptime. Keys are remembered by
/// their hash: at worst a fill waits in vain.
pub struct BackOff {
    length: Duration,
    until: Mutex<LruCache<u64, Duration, RandomState>>,
    hasher: RandomState,
}

impl BackOff {
    pub fn new(length: Duration) -> Self {
        let until = LruCache::with_hasher(MOST_REMEMBERED, RandomState::default());
        Self { length, until: Mutex::new(until), hasher: RandomState::default() }
    }

    /// No change is left half done by a panic: there is none to panic between two steps.
    fn until(&self) -> MutexGuard<'_, LruCache<u64, Duration, RandomState>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much longer to wait at `now`.
    pub fn left(&self, key: &Key, now: Duration) -> Duration {
        let until = self.until();
        // As a rule nothing has failed, and there is nothing to look for.
        if until.is_empty() {
            return Duration::ZERO;
        }
        until.peek(&self.hasher.hash_one(key)).map_or(Duration::ZERO, |until| until.saturating_sub(now))
    }

    /// A fill has ended.
    pub fn note(&self, key: &Key, failed: bool, now: Duration) {
        let mut until = self.until();
        if failed && !self.length.is_zero() {
            until.insert(self.hasher.hash_one(key), now.saturating_add(self.length));
        } else if !until.is_empty() {
            until.remove(&self.hasher.hash_one(key));
        }
    }
}
