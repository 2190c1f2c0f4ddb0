//! The store: moka, bounded in bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::notification::RemovalCause;
use moka::sync::Cache;
use prometheus_client::metrics::counter::Counter;

use super::entry::Entry;
use crate::routes::Key;

/// Entries by key. When it is full, what is asked for least goes first (TinyLFU).
pub struct Memory {
    entries: Cache<Key, Arc<Entry>>,
}

/// Lets go of memory when an entry is of no use any more. Freshness is judged on every look-up, by
/// the gateway's own clock; this is housekeeping.
struct EndOfUse;

impl moka::Expiry<Key, Arc<Entry>> for EndOfUse {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.lifetime.whole())
    }

    fn expire_after_update(
        &self,
        _: &Key,
        entry: &Arc<Entry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.lifetime.whole())
    }
}

impl Memory {
    /// A store of at most `capacity` bytes; `evictions` counts what had to go for want of room.
    pub fn new(capacity: u64, evictions: Counter) -> Self {
        let entries = Cache::builder()
            .max_capacity(capacity)
            .weigher(|key: &Key, entry: &Arc<Entry>| entry.weight(key))
            .expire_after(EndOfUse)
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evictions.inc();
                }
            })
            .build();
        Self { entries }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    pub fn put(&self, key: Key, entry: Arc<Entry>) {
        self.entries.insert(key, entry);
    }

    pub fn remove(&self, key: &Key) {
        self.entries.invalidate(key);
    }

    /// Entries and bytes, after the housekeeping that is due.
    pub fn size(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }
}
