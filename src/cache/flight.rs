//! One fill per key at a time, in a task of its own.
//!
//! Why not moka's `try_get_with`: it ties the fill to the first caller. When that one hangs up the
//! next waiter starts over, and a failure is retried by each waiter in turn. Here a caller who
//! leaves cancels only his own wait, and those who wait share whatever comes, failures too.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The fills under way, by key.
pub struct Flights<K, T> {
    flying: Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>,
}

/// A place in a flight.
pub struct Ticket<T> {
    landing: watch::Receiver<Option<T>>,
    /// Somebody else had started it.
    pub joined: bool,
}

/// Takes a flight off the board when it ends, however it ends.
struct OnBoard<K: Eq + Hash, T> {
    flying: Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>,
    key: K,
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub fn new() -> Self {
        Self { flying: Arc::default() }
    }

    /// Joins the flight for `key`, or starts one with `fill`. The fill must look up the store again
    /// before it calls anybody, and store what it got before it returns: then whoever finds no
    /// flight finds the stored answer.
    pub fn join_or_start<F>(&self, key: &K, fill: impl FnOnce() -> F) -> Ticket<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flying = locked(&self.flying);
        let vacant = match flying.entry(key.clone()) {
            Entry::Occupied(flight) => return Ticket { landing: flight.get().clone(), joined: true },
            Entry::Vacant(vacant) => vacant,
        };
        let (landed, landing) = watch::channel(None);
        vacant.insert(landing.clone());
        drop(flying);

        let on_board = OnBoard { flying: self.flying.clone(), key: key.clone() };
        let fill = fill();
        tokio::spawn(async move {
            // Moved in, so that it is dropped when the task is: after a panic too.
            let _on_board = on_board;
            let outcome = fill.await;
            landed.send_replace(Some(outcome));
        });
        Ticket { landing, joined: false }
    }
}

impl<T: Clone> Ticket<T> {
    /// What the fill returned; `None` if it panicked.
    pub async fn landed(mut self) -> Option<T> {
        let outcome = self.landing.wait_for(Option::is_some).await.ok()?;
        outcome.clone()
    }
}

impl<K: Eq + Hash, T> Drop for OnBoard<K, T> {
    fn drop(&mut self) {
        locked(&self.flying).remove(&self.key);
    }
}

/// The board is never left half-changed, so a panic elsewhere does not spoil it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn those_who_come_while_it_flies_share_one_fill() {
        let flights = Flights::<u8, u8>::new();
        let fills = Arc::new(AtomicUsize::new(0));
        let (go, gate) = oneshot::channel::<()>();
        let gate = gate;
        let counted = fills.clone();
        let first = flights.join_or_start(&1, || async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = gate.await;
            7
        });
        let others: Vec<_> = (0..100)
            .map(|_| {
                let counted = fills.clone();
                flights.join_or_start(&1, || async move {
                    counted.fetch_add(1, Ordering::SeqCst);
                    8
                })
            })
            .collect();
        assert!(!first.joined);
        assert!(others.iter().all(|ticket| ticket.joined));
        drop(first); // The first caller hangs up.
        go.send(()).expect("the fill waits");
        for ticket in others {
            assert_eq!(ticket.landed().await, Some(7));
        }
        assert_eq!(fills.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_fill_that_panics_lets_go_of_its_waiters_and_its_key() {
        let flights = Flights::<u8, u8>::new();
        let ticket = flights.join_or_start(&1, || async { panic!("on purpose") });
        assert_eq!(ticket.landed().await, None);
        let ticket = flights.join_or_start(&1, || async { 9 });
        assert_eq!(ticket.landed().await, Some(9));
    }
}
