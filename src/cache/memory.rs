//! The store: moka, bounded in bytes, and beside it the index of groups.
//!
//! Look-ups go to moka alone. Whatever changes the store goes through one lock, so that a purge and
//! a fill that lands are one before the other. moka evicts when it likes, on any thread; what left
//! is written down and taken out of the index under the lock, at the next change.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use prometheus_client::metrics::counter::Counter;

use super::doorkeeper::Doorkeeper;
use super::entry::{Entry, Freshness};
use super::group::Group;
use super::index::{Index, Serial};
use super::purge::{Began, Meant, Removed, Tombstones};
use crate::clock::{Clock, Moment};
use crate::lifecycle::sightings::Sighting;
use crate::routes::{Key, RouteName};

/// Answers remembered that made what was stored void: more than there are calls within a deadline.
const MOST_VOIDED: usize = 1024;

/// Requests for what is not stored, until a full store lets it in: with two, what is asked for once pushes
/// nothing out.
const ASKS: u32 = 2;

/// The part of the capacity, an eighth, up to which an answer pushes others out; a heavier one is stored only where
/// there is room.
const LARGEST_SHARE: u64 = 8;

/// Rounds of moka's housekeeping after a change. One ends after a tenth of a second, whatever is left to do.
const MOST_ROUNDS: u32 = 10;

/// Entries by key. When it is full, what was asked for longest ago goes first, and what comes is let in once it
/// has been asked for [`ASKS`] times.
pub struct Memory {
    slots: Cache<Key, Slot, RandomState>,
    capacity: u64,
    doorkeeper: Mutex<Doorkeeper>,
    hasher: RandomState,
    departed: Departed,
    writes: Mutex<Writes>,
}

#[derive(Clone)]
struct Slot {
    entry: Arc<Entry>,
    serial: Serial,
    /// When the fill that brought it began.
    began: Began,
}

#[derive(Default)]
struct Writes {
    index: Index,
    tombstones: Tombstones,
    last: Serial,
    /// What was last declared void, and when the answer that did so was asked for.
    voided: VecDeque<(Key, Moment)>,
}

impl Writes {
    /// Whether an answer asked for at `asked_at` was made void by a later one. It can land after that: a purge or a
    /// refresh detaches fills that go on.
    fn is_void(&self, key: &Key, asked_at: Moment) -> bool {
        let mut voided = self.voided.iter();
        voided.any(|(voided, told_at)| voided == key && told_at.is_after(asked_at))
    }
}

/// What has left the store and is still in the index.
type Departed = Arc<Mutex<Vec<(Serial, Arc<[Group]>)>>>;

/// Lets go of memory when an entry is of no use any more. Freshness is judged on every look-up;
/// this is housekeeping.
struct EndOfUse(Clock);

impl EndOfUse {
    fn left(&self, Slot { entry, .. }: &Slot) -> Duration {
        entry.lifetime.whole().saturating_sub(self.0.moment().since(entry.answer.asked_at))
    }
}

impl moka::Expiry<Key, Slot> for EndOfUse {
    fn expire_after_create(&self, _: &Key, slot: &Slot, _: Instant) -> Option<Duration> {
        Some(self.left(slot))
    }

    fn expire_after_update(&self, _: &Key, slot: &Slot, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(self.left(slot))
    }
}

/// Why an entry was not put into the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It alone is heavier than the store may be.
    TooHeavy,
    /// It was purged while it was fetched.
    Purged,
    /// It is older than what made it void.
    Outdated,
    /// What is stored was asked for later, or an answer that was has made this one void.
    Superseded,
    /// The store is full, and this has not been asked for often enough to push anything out.
    NoRoom,
}

impl Memory {
    /// A store of at most `capacity` bytes; `evictions` counts what had to go for want of room.
    pub fn new(capacity: u64, evictions: Counter, clock: Clock) -> Self {
        let departed = Departed::default();
        let leave = departed.clone();
        let slots = Cache::builder()
            .max_capacity(capacity)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|key: &Key, slot: &Slot| slot.entry.weight(key))
            .expire_after(EndOfUse(clock))
            .eviction_listener(move |_, slot: Slot, cause| {
                if cause == RemovalCause::Size {
                    evictions.inc();
                }
                locked(&leave).push((slot.serial, slot.entry.groups.clone()));
            })
            .build_with_hasher(RandomState::default());
        Self {
            slots,
            capacity,
            doorkeeper: Mutex::new(Doorkeeper::new(capacity)),
            hasher: RandomState::default(),
            departed,
            writes: Mutex::default(),
        }
    }

    /// What a request finds. Counts as a request for it where there is nothing.
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        let found = self.peek(key);
        if found.is_none() {
            locked(&self.doorkeeper).ask(self.hasher.hash_one(key));
        }
        found
    }

    /// The same, where nothing is to be counted.
    pub fn peek(&self, key: &Key) -> Option<Arc<Entry>> {
        self.slots.get(key).map(|slot| slot.entry)
    }

    /// The moment a fill begins: what is purged from now on, it cannot bring back.
    pub fn now(&self) -> Began {
        locked(&self.writes).tombstones.now()
    }

    /// Stores what was fetched by a fill that began at `began`, unless it has been purged since or
    /// `is_outdated` by then. The new entry takes the place of one that was asked for earlier: a
    /// flight that a purge has detached can land after the one that came after it.
    pub fn put(
        &self,
        key: Key,
        entry: Arc<Entry>,
        began: Began,
        is_outdated: impl FnOnce() -> bool,
    ) -> Result<(), Refused> {
        if u64::from(entry.weight(&key)) > self.capacity {
            return Err(Refused::TooHeavy);
        }
        let mut writes = locked(&self.writes);
        if writes.tombstones.forbid(began, key.route().name, &entry.groups) {
            return Err(Refused::Purged);
        }
        if is_outdated() {
            return Err(Refused::Outdated);
        }
        let asked_at = entry.answer.asked_at;
        if self.is_newer(&key, asked_at) || writes.is_void(&key, asked_at) {
            return Err(Refused::Superseded);
        }
        if !self.lets_in(&key, entry.weight(&key).into()) {
            // What this one would have replaced is out of date.
            self.slots.invalidate(&key);
            self.tidy(&mut writes);
            return Err(Refused::NoRoom);
        }
        self.insert(&mut writes, key.clone(), entry, began);
        // It may be of no use any more.
        if self.slots.contains_key(&key) { Ok(()) } else { Err(Refused::NoRoom) }
    }

    /// Whether there is room for an entry of that weight, or it has been asked for often enough to push others
    /// out. Then it counts from nothing again: once it is pushed out itself, it is like any other.
    fn lets_in(&self, key: &Key, weight: u64) -> bool {
        let held = self.peek(key).map(|held| u64::from(held.weight(key)));
        let has_room = || {
            let others = self.slots.weighted_size().saturating_sub(held.unwrap_or(0));
            others.saturating_add(weight) <= self.capacity
        };
        let has_room = has_room() || {
            // What is of no use any more may still be counted.
            self.slots.run_pending_tasks();
            has_room()
        };
        let hash = self.hasher.hash_one(key);
        let mut doorkeeper = locked(&self.doorkeeper);
        let is_wanted = held.is_some() || doorkeeper.asks(hash) >= ASKS;
        let lets_in = has_room || is_wanted && weight <= self.capacity / LARGEST_SHARE;
        if lets_in {
            doorkeeper.forget(hash);
        }
        lets_in
    }

    /// Whether what is stored was asked for after that.
    fn is_newer(&self, key: &Key, asked_at: Moment) -> bool {
        self.peek(key).is_some_and(|held| held.answer.asked_at.is_after(asked_at))
    }

    /// Weighs an entry again that has grown by a variant, if it is still there. It was let in before, and pushes out
    /// others if it must.
    pub fn weigh(&self, key: &Key, entry: &Arc<Entry>) {
        let mut writes = locked(&self.writes);
        let held = self.slots.get(key);
        let Some(slot) = held.filter(|slot| Arc::ptr_eq(&slot.entry, entry)) else { return };
        writes.index.remove(slot.serial, &entry.groups);
        self.insert(&mut writes, key.clone(), slot.entry, slot.began);
    }

    fn insert(&self, writes: &mut Writes, key: Key, entry: Arc<Entry>, began: Began) {
        writes.last += 1;
        let serial = writes.last;
        writes.index.add(serial, &entry.groups, &key);
        self.slots.insert(key, Slot { entry, serial, began });
        // Now, not some time: between two rounds of its housekeeping moka holds more than it may.
        for _ in 0..MOST_ROUNDS {
            self.slots.run_pending_tasks();
            if self.slots.weighted_size() <= self.capacity {
                break;
            }
        }
        self.tidy(writes);
    }

    /// Takes out of the index what has left the store.
    fn tidy(&self, writes: &mut Writes) {
        let departed = std::mem::take(&mut *locked(&self.departed));
        for (serial, groups) in departed {
            writes.index.remove(serial, &groups);
        }
    }

    /// Removes what an answer asked for at `asked_at` makes void, but not what was asked for later.
    pub fn remove(&self, key: &Key, asked_at: Moment) {
        let mut writes = locked(&self.writes);
        if !self.is_newer(key, asked_at) {
            self.slots.invalidate(key);
            writes.voided.push_front((key.clone(), asked_at));
            writes.voided.truncate(MOST_VOIDED);
        }
        self.tidy(&mut writes);
    }

    /// Removes all that is meant, fresh and stale, and keeps fills under way from bringing it back.
    pub fn purge(&self, meant: impl FnOnce() -> Meant) -> Removed {
        let mut writes = locked(&self.writes);
        // Under the lock: what is said about names from now on goes through `link`, after this.
        let meant = meant();
        let takes = |key: &Key, slot: &Slot| meant.takes(key.route().name, &slot.entry.groups);
        let keys: Vec<Key> = match meant.indexed() {
            Some(groups) => groups.into_iter().flat_map(|group| writes.index.keys(group)).collect(),
            None => self.slots.iter().map(|(key, _)| Key::clone(&key)).collect(),
        };
        let mut removed = Removed::default();
        for key in keys {
            if let Some(slot) = self.slots.get(&key).filter(|slot| takes(&key, slot)) {
                self.slots.invalidate(&key);
                removed.count(key.route().name, slot.entry.weight(&key).into());
            }
        }
        writes.tombstones.put_up(meant);
        self.tidy(&mut writes);
        removed
    }

    /// Takes in which names are one conversation's. What was purged under one of them before that was
    /// known takes along what is stored, or being fetched, under the others.
    pub fn link(&self, sightings: &[Sighting]) {
        let mut writes = locked(&self.writes);
        if !writes.tombstones.any_named() {
            return;
        }
        for Sighting { names, .. } in sightings {
            let groups: Vec<Group> = names.iter().copied().map(Group::named).collect();
            if !writes.tombstones.learn(&groups) {
                continue;
            }
            for key in groups.into_iter().flat_map(|group| writes.index.keys(group)) {
                let route = key.route().name;
                let is_meant = |slot: &Slot| writes.tombstones.forbid(slot.began, route, &slot.entry.groups);
                if self.slots.get(&key).is_some_and(|slot| is_meant(&slot)) {
                    self.slots.invalidate(&key);
                }
            }
        }
        self.tidy(&mut writes);
    }

    /// Drops what was stored as over about groups that an answer asked for at `live_at` has shown
    /// live.
    pub fn reopen(&self, groups: &[Group], live_at: Moment) {
        let mut writes = locked(&self.writes);
        for key in groups.iter().flat_map(|group| writes.index.keys(*group)) {
            if self.slots.get(&key).is_some_and(|slot| slot.entry.is_voided_by_life_at(live_at)) {
                self.slots.invalidate(&key);
            }
        }
        self.tidy(&mut writes);
    }

    /// A fresh transcript with a summary that holds all that the one under `plain` would.
    pub fn summarised(&self, plain: &Key, now: Moment) -> Option<(Key, Arc<Entry>)> {
        // No other route's answers hold one another.
        if plain.route().name != RouteName::ConversationDetails {
            return None;
        }
        let keys = locked(&self.writes).index.keys(Group::plain(plain));
        let mut held = keys.into_iter().filter_map(|key| Some((key.clone(), self.peek(&key)?)));
        held.find(|(_, entry)| matches!(entry.freshness(now), Freshness::Fresh { .. }))
    }

    /// Whether this very entry is stored under `key`.
    pub fn holds(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        self.peek(key).is_some_and(|held| Arc::ptr_eq(&held, entry))
    }

    /// Entries and bytes, after the housekeeping that is due.
    pub fn size(&self) -> (u64, u64) {
        let mut writes = locked(&self.writes);
        self.slots.run_pending_tasks();
        self.tidy(&mut writes);
        (self.slots.entry_count(), self.slots.weighted_size())
    }
}

/// No change is left half done by a panic: there is none to panic between two steps.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
