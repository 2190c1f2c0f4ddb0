//! The core of the single flight: which fills are in flight, and how their waiters get the outcome. No task is
//! spawned here and no time passes, so that every interleaving of what holds the lock can be tried
//! (tests/loom.rs, which compiles this file with loom's locks). [`Notify`] and [`OnceLock`] stay as they
//! are: of how a waiter is notified, loom tries no more than the order of what happens between locks.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::pin;
use std::sync::OnceLock;

use foldhash::quality::RandomState;
use tokio::sync::Notify;

use super::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The fills under way, by key. `C` is what the waiters of one have in common.
pub struct FlightGroup<K, T, C> {
    state: Arc<Mutex<State<K, T, C>>>,
}

struct State<K, T, C> {
    in_flight: HashMap<K, Flight<T, C>, RandomState>,
    started: u64,
}

struct Flight<T, C> {
    /// A key may be detached and start again while its first flight is still under way.
    number: u64,
    promise: Arc<Promise<T>>,
    common: C,
}

impl<T, C: Clone> Flight<T, C> {
    fn waiter(&self) -> Waiter<T, C> {
        Waiter { promise: self.promise.clone(), common: self.common.clone(), joined: true }
    }
}

/// The outcome of a flight, on its way to the waiters. They are notified in the order in which they came: the one
/// that has waited longest is answered first.
struct Promise<T> {
    /// `None` if the fill did not live to return anything.
    outcome: OnceLock<Option<T>>,
    done: Notify,
}

impl<T> Promise<T> {
    fn send(&self, outcome: Option<T>) {
        if self.outcome.set(outcome).is_ok() {
            self.done.notify_waiters();
        }
    }
}

/// A waiter, and the leader if there was no flight to join.
type Joined<K, T, C> = (Waiter<T, C>, Option<Leader<K, T, C>>);

/// One that waits for the outcome of a flight.
pub struct Waiter<T, C> {
    promise: Arc<Promise<T>>,
    pub common: C,
    /// Coalesced: it joined a flight that was under way.
    pub joined: bool,
}

/// The one that fills, and has to complete the flight. Dropped before, it lets the waiters go: a fill that panicked
/// or was cancelled leaves neither its key taken nor anybody waiting.
pub struct Leader<K: Eq + Hash, T, C> {
    state: Arc<Mutex<State<K, T, C>>>,
    key: K,
    number: u64,
    promise: Arc<Promise<T>>,
    outcome: Option<T>,
}

impl<K: Clone + Eq + Hash, T: Clone, C: Clone> FlightGroup<K, T, C> {
    pub fn new() -> Self {
        let state = State { in_flight: HashMap::default(), started: 0 };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Joins the flight for `key` if it `suits`. Otherwise starts a new one, and returns its leader too. A flight
    /// that does not suit goes on, but the next to come joins the new one.
    pub fn join(
        &self,
        key: &K,
        suits: impl FnOnce(&C) -> bool,
        common: impl FnOnce() -> C,
    ) -> Joined<K, T, C> {
        let mut state = locked(&self.state);
        if let Some(flight) = state.in_flight.get(key).filter(|flight| suits(&flight.common)) {
            return (flight.waiter(), None);
        }
        state.started += 1;
        let number = state.started;
        let promise = Arc::new(Promise { outcome: OnceLock::new(), done: Notify::new() });
        let common = common();
        state
            .in_flight
            .insert(key.clone(), Flight { number, promise: promise.clone(), common: common.clone() });
        let (state, key) = (self.state.clone(), key.clone());
        let leader = Leader { state, key, number, promise: promise.clone(), outcome: None };
        (Waiter { promise, common, joined: false }, Some(leader))
    }

    /// A waiter of the flight for `key` that is under way, if there is one.
    pub fn current(&self, key: &K) -> Option<Waiter<T, C>> {
        locked(&self.state).in_flight.get(key).map(Flight::waiter)
    }

    /// From here on nobody joins the flights of now. Their waiters stay.
    pub fn detach_all(&self) {
        locked(&self.state).in_flight.clear();
    }
}

impl<K: Eq + Hash, T, C> Leader<K, T, C> {
    /// Ends the flight: all waiters get `outcome`.
    pub fn complete(mut self, outcome: T) {
        self.outcome = Some(outcome);
    }
}

impl<K: Eq + Hash, T, C> Drop for Leader<K, T, C> {
    /// Frees the key first and notifies then: a waiter that is answered and asks again does not join this flight.
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        if state.in_flight.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            state.in_flight.remove(&self.key);
        }
        drop(state);
        self.promise.send(self.outcome.take());
    }
}

impl<T: Clone, C> Waiter<T, C> {
    /// What the fill returned; `None` if it did not live to return anything.
    pub async fn outcome(self) -> Option<T> {
        let mut notified = pin!(self.promise.done.notified());
        // From here on the notification is kept, so an outcome that is not there yet is not missed.
        notified.as_mut().enable();
        if self.promise.outcome.get().is_none() {
            notified.await;
        }
        self.promise.outcome.get().cloned().flatten()
    }
}

/// The group is never left half-changed, so a panic elsewhere does not spoil it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
