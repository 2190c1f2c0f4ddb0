//! The core of the flights: who is in the air, and how word of a landing gets round. No task is
//! spawned here and no time passes, so that every interleaving of what holds the lock can be tried
//! (tests/loom.rs, which compiles this file with loom's locks). [`Notify`] and [`OnceLock`] stay as they
//! are: of how a waiter hears, loom tries no more than the order of what happens between locks.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::pin;
use std::sync::OnceLock;

use foldhash::quality::RandomState;
use tokio::sync::Notify;

use super::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The fills under way, by key. `C` is what all on board of one have in common.
pub struct Board<K, T, C> {
    state: Arc<Mutex<State<K, T, C>>>,
}

struct State<K, T, C> {
    flying: HashMap<K, Flight<T, C>, RandomState>,
    started: u64,
}

struct Flight<T, C> {
    /// A key may be taken off the board and start again while its first flight is in the air.
    number: u64,
    word: Arc<Word<T>>,
    common: C,
}

impl<T, C: Clone> Flight<T, C> {
    fn ticket(&self) -> Ticket<T, C> {
        Ticket { word: self.word.clone(), common: self.common.clone(), joined: true }
    }
}

/// Word of a landing. Those who wait for it hear in the order in which they came: who has waited longest is
/// answered first.
struct Word<T> {
    /// `None` if the fill did not live to return anything.
    outcome: OnceLock<Option<T>>,
    is_out: Notify,
}

impl<T> Word<T> {
    fn tell(&self, outcome: Option<T>) {
        if self.outcome.set(outcome).is_ok() {
            self.is_out.notify_waiters();
        }
    }
}

/// A place in a flight, and the duty to land it, for whoever starts it.
type Boarding<K, T, C> = (Ticket<T, C>, Option<Landing<K, T, C>>);

/// A place in a flight.
pub struct Ticket<T, C> {
    word: Arc<Word<T>>,
    pub common: C,
    /// Somebody else had started it.
    pub joined: bool,
}

/// The duty to land. Dropped without having landed, it lets the waiters go: a fill that panicked
/// or was cancelled leaves neither its key taken nor anybody waiting.
pub struct Landing<K: Eq + Hash, T, C> {
    state: Arc<Mutex<State<K, T, C>>>,
    key: K,
    number: u64,
    word: Arc<Word<T>>,
    outcome: Option<T>,
}

impl<K: Clone + Eq + Hash, T: Clone, C: Clone> Board<K, T, C> {
    pub fn new() -> Self {
        let state = State { flying: HashMap::default(), started: 0 };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A place in the flight for `key` that is under way; with the duty to land it, if there was none, or none
    /// that `will_do`. One that will not do stays in the air, but whoever comes next joins the new one.
    pub fn join(
        &self,
        key: &K,
        will_do: impl FnOnce(&C) -> bool,
        common: impl FnOnce() -> C,
    ) -> Boarding<K, T, C> {
        let mut state = locked(&self.state);
        if let Some(flight) = state.flying.get(key).filter(|flight| will_do(&flight.common)) {
            return (flight.ticket(), None);
        }
        state.started += 1;
        let number = state.started;
        let word = Arc::new(Word { outcome: OnceLock::new(), is_out: Notify::new() });
        let common = common();
        state.flying.insert(key.clone(), Flight { number, word: word.clone(), common: common.clone() });
        let (state, key) = (self.state.clone(), key.clone());
        let duty = Landing { state, key, number, word: word.clone(), outcome: None };
        (Ticket { word, common, joined: false }, Some(duty))
    }

    /// A place in the flight for `key` that is under way, if there is one.
    pub fn under_way(&self, key: &K) -> Option<Ticket<T, C>> {
        locked(&self.state).flying.get(key).map(Flight::ticket)
    }

    /// From here on nobody joins what is in the air now. Those on board stay.
    pub fn detach_all(&self) {
        locked(&self.state).flying.clear();
    }
}

impl<K: Eq + Hash, T, C> Landing<K, T, C> {
    /// Tells all who wait.
    pub fn land(mut self, outcome: T) {
        self.outcome = Some(outcome);
    }
}

impl<K: Eq + Hash, T, C> Drop for Landing<K, T, C> {
    /// Frees the key first and tells then: whoever has heard and asks again gets no place in this flight.
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        if state.flying.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            state.flying.remove(&self.key);
        }
        drop(state);
        self.word.tell(self.outcome.take());
    }
}

impl<T: Clone, C> Ticket<T, C> {
    /// What the fill returned; `None` if it did not live to return anything.
    pub async fn landed(self) -> Option<T> {
        let mut told = pin!(self.word.is_out.notified());
        // From here on it is heard, so what is not out yet is not missed.
        told.as_mut().enable();
        if self.word.outcome.get().is_none() {
            told.await;
        }
        self.word.outcome.get().cloned().flatten()
    }
}

/// The board is never left half-changed, so a panic elsewhere does not spoil it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
