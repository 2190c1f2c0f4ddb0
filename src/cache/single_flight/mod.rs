//! One fill per key at a time, in a task of its own.
//!
//! Why not moka's `try_get_with`: it ties the fill to the first caller. When that one hangs up the
//! next waiter starts over, and a failure is retried by each waiter in turn. Here a caller who
//! leaves cancels only his own wait, and those who wait share whatever comes, failures too.

mod group;

use std::hash::Hash;

use group::FlightGroup;
pub use group::Waiter;

/// What the group is made of; loom's in its test.
mod sync {
    pub use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
}

/// The fills under way, by key. `C` is what the waiters of one have in common.
pub struct SingleFlight<K, T, C>(FlightGroup<K, T, C>);

impl<K, T, C> SingleFlight<K, T, C>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
    C: Clone + Send + 'static,
{
    pub fn new() -> Self {
        Self(FlightGroup::new())
    }

    /// Joins the flight for `key`, if it `suits`, or starts one with `fill`. `fill` must look into the store again
    /// before it calls the upstream, and store the answer before it returns. So a request that comes too late to join
    /// finds the answer in the store.
    pub fn join_or_start<F>(
        &self,
        key: &K,
        suits: impl FnOnce(&C) -> bool,
        common: impl FnOnce() -> C,
        fill: impl FnOnce(C) -> F,
    ) -> Waiter<T, C>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (waiter, leader) = self.0.join(key, suits, common);
        if let Some(leader) = leader {
            let fill = fill(waiter.common.clone());
            // On the heap from the start: a call in its many states is some kilobytes, which the runtime
            // would move each time its task takes another state.
            let fill = Box::pin(fill);
            tokio::spawn(async move {
                let outcome = fill.await;
                leader.complete(outcome);
            });
        }
        waiter
    }

    /// A waiter of the flight for `key` that is under way, if there is one.
    pub fn current(&self, key: &K) -> Option<Waiter<T, C>> {
        self.0.current(key)
    }

    /// From here on nobody joins the flights of now.
    pub fn detach_all(&self) {
        self.0.detach_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{self, TryRecvError};
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::group::Leader;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn those_who_come_while_it_flies_share_one_fill() {
        let flights = SingleFlight::<u8, u8, ()>::new();
        let fills = Arc::new(AtomicUsize::new(0));
        let (go, gate) = oneshot::channel::<()>();
        let counted = fills.clone();
        let first = flights.join_or_start(
            &1,
            |()| true,
            || (),
            |()| async move {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = gate.await;
                7
            },
        );
        let others: Vec<_> = (0..100)
            .map(|_| {
                let counted = fills.clone();
                flights.join_or_start(
                    &1,
                    |()| true,
                    || (),
                    |()| async move {
                        counted.fetch_add(1, Ordering::SeqCst);
                        8
                    },
                )
            })
            .collect();
        assert!(!first.joined);
        assert!(others.iter().all(|waiter| waiter.joined));
        drop(first); // The first caller hangs up.
        go.send(()).expect("the fill waits");
        for waiter in others {
            assert_eq!(waiter.outcome().await, Some(7));
        }
        assert_eq!(fills.load(Ordering::SeqCst), 1);
    }

    /// What loom does not see into (tests/loom.rs): an outcome that comes just while a waiter registers.
    #[tokio::test]
    async fn no_outcome_is_missed_however_closely_it_follows() {
        // Where the two have a core each this is a second; where they share one, they hardly ever meet.
        const MOST_ROUNDS: u32 = 100_000;
        const MOST_TIME: Duration = Duration::from_secs(3);
        let group = FlightGroup::<u8, u32, ()>::new();
        let (leaders, fills) = mpsc::channel::<(u32, Leader<u8, u32, ()>)>();
        let filler = thread::spawn(move || {
            let mut idle = 0_u32;
            loop {
                match fills.try_recv() {
                    Ok((round, leader)) => {
                        idle = 0;
                        (0..round % 64).for_each(|_| hint::spin_loop());
                        leader.complete(round);
                    }
                    // Wide awake at first, or it would always be later than the waiter.
                    Err(TryRecvError::Empty) if idle < 1000 => {
                        idle += 1;
                        hint::spin_loop();
                    }
                    Err(TryRecvError::Empty) => thread::yield_now(),
                    Err(TryRecvError::Disconnected) => break,
                }
            }
        });
        let start = Instant::now();
        for round in (0..MOST_ROUNDS).take_while(|_| start.elapsed() < MOST_TIME) {
            let (waiter, leader) = group.join(&1, |()| true, || ());
            leaders.send((round, leader.expect("the last one has completed"))).expect("a filler");
            let outcome = tokio::time::timeout(Duration::from_secs(10), waiter.outcome());
            assert_eq!(outcome.await.expect("no outcome is missed"), Some(round));
        }
        drop(leaders);
        filler.join().expect("no panic");
    }

    #[tokio::test]
    async fn waiters_are_notified_in_the_order_in_which_they_came() {
        let flights = SingleFlight::<u8, u8, ()>::new();
        let (go, gate) = oneshot::channel::<()>();
        let mut fill = Some(|()| async move {
            let _ = gate.await;
            7
        });
        let notified = Arc::new(Mutex::new(Vec::new()));
        let waiting: Vec<_> = (0..100)
            .map(|n| {
                let waiter = match fill.take() {
                    Some(fill) => flights.join_or_start(&1, |()| true, || (), fill),
                    None => flights.join_or_start(&1, |()| true, || (), |()| async { 8 }),
                };
                let notified = notified.clone();
                tokio::spawn(async move {
                    assert_eq!(waiter.outcome().await, Some(7));
                    notified.lock().expect("no panic").push(n);
                })
            })
            .collect();
        // All of them have begun to wait.
        tokio::task::yield_now().await;
        go.send(()).expect("the fill waits");
        for task in waiting {
            task.await.expect("notified");
        }
        assert_eq!(*notified.lock().expect("no panic"), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn who_will_not_do_with_the_flight_under_way_starts_one_that_the_others_join() {
        let flights = SingleFlight::<u8, u8, u8>::new();
        let (go, gate) = oneshot::channel::<()>();
        let waits = |()| async move {
            let _ = gate.await;
            1
        };
        let old = flights.join_or_start(&1, |_| true, || 1, |_| waits(()));
        let new = flights.join_or_start(&1, |common| *common == 2, || 2, |_| async { 2 });
        let third = flights.join_or_start(&1, |_| true, || 3, |_| async { 3 });
        assert_eq!([old.joined, new.joined, third.joined], [false, false, true]);
        assert_eq!((new.outcome().await, third.outcome().await), (Some(2), Some(2)));
        go.send(()).expect("the fill waits");
        assert_eq!(old.outcome().await, Some(1));
        assert!(flights.current(&1).is_none());
    }

    #[tokio::test]
    async fn a_fill_that_panics_lets_go_of_its_waiters_and_its_key() {
        let flights = SingleFlight::<u8, u8, ()>::new();
        let waiter = flights.join_or_start(&1, |()| true, || (), |()| async { panic!("on purpose") });
        assert_eq!(waiter.outcome().await, None);
        let waiter = flights.join_or_start(&1, |()| true, || (), |()| async { 9 });
        assert_eq!(waiter.outcome().await, Some(9));
    }

    #[tokio::test]
    async fn who_comes_after_all_were_detached_does_not_join_and_the_old_landing_takes_nothing_away() {
        let flights = SingleFlight::<u8, u8, ()>::new();
        let (go, gate) = oneshot::channel::<()>();
        let old = flights.join_or_start(
            &1,
            |()| true,
            || (),
            |()| async move {
                let _ = gate.await;
                1
            },
        );
        flights.detach_all();
        let (go_on, second_gate) = oneshot::channel::<()>();
        let new = flights.join_or_start(
            &1,
            |()| true,
            || (),
            |()| async move {
                let _ = second_gate.await;
                2
            },
        );
        assert!(!new.joined);
        go.send(()).expect("the fill waits");
        assert_eq!(old.outcome().await, Some(1));
        tokio::task::yield_now().await;
        assert!(flights.join_or_start(&1, |()| true, || (), |()| async { 3 }).joined);
        go_on.send(()).expect("the fill waits");
        assert_eq!(new.outcome().await, Some(2));
    }
}
