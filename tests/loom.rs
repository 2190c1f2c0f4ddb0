//! The group of flights, in every interleaving of its locks: one leads and the others join, all get
//! the outcome, and a fill that dies leaves neither waiters nor a taken key behind. loom does not see into
//! tokio's `Notify` nor into `OnceLock`: that a waiter that has registered misses no outcome is their
//! promise, held to with real threads in src/cache/single_flight.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../src/cache/single_flight/group.rs"]
mod group;

/// What the group is made of, here.
mod sync {
    pub use loom::sync::{Arc, Mutex, MutexGuard};
    pub use std::sync::PoisonError;
}

use std::panic::{AssertUnwindSafe, catch_unwind};

use group::FlightGroup;
use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

type Shared = Arc<FlightGroup<u8, u8, ()>>;

/// Asks once: starts the fill if nobody has, and waits.
fn ask(group: &Shared, fill: impl FnOnce() -> u8) -> (bool, Option<u8>) {
    let (waiter, leader) = group.join(&1, |()| true, || ());
    let ((), started) = (waiter.common, leader.is_some());
    if let Some(leader) = leader {
        // As in a task of its own, where a panic ends the task and drops what it holds.
        let _ = catch_unwind(AssertUnwindSafe(|| leader.complete(fill())));
    }
    (started, block_on(waiter.outcome()))
}

#[test]
fn every_waiter_gets_the_outcome_and_the_key_is_free_again() {
    loom::model(|| {
        let group: Shared = Arc::new(FlightGroup::new());
        let asking: Vec<_> = (0..2)
            .map(|n| {
                let group = group.clone();
                thread::spawn(move || ask(&group, || n))
            })
            .collect();
        let heard: Vec<_> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
        assert!(heard.iter().any(|(started, _)| *started));
        assert!(heard.iter().all(|(_, outcome)| outcome.is_some()));
        // Who joined heard what the other one's fill brought.
        for (n, (started, outcome)) in heard.iter().enumerate() {
            let own = u8::try_from(n).unwrap();
            assert_eq!(*outcome, Some(if *started { own } else { 1 - own }));
        }
        assert!(ask(&group, || 9).0);
    });
}

#[test]
fn a_waiter_that_has_the_outcome_finds_the_key_free() {
    loom::model(|| {
        let group: Shared = Arc::new(FlightGroup::new());
        let (_first, leader) = group.join(&1, |()| true, || ());
        let waiter = {
            let group = group.clone();
            thread::spawn(move || {
                let (waiter, own) = group.join(&1, |()| true, || ());
                if own.is_some() {
                    return;
                }
                assert_eq!(block_on(waiter.outcome()), Some(3));
                assert!(group.current(&1).is_none());
                // Asked again at once: not the flight that has just been heard of.
                let (waiter, own) = group.join(&1, |()| true, || ());
                assert!(!waiter.joined && own.is_some());
            })
        };
        leader.unwrap().complete(3);
        waiter.join().unwrap();
    });
}

#[test]
fn a_fill_that_panics_lets_go_of_everybody() {
    loom::model(|| {
        let group: Shared = Arc::new(FlightGroup::new());
        let other = {
            let group = group.clone();
            thread::spawn(move || ask(&group, || 7))
        };
        let (_, mine) = ask(&group, || std::panic::resume_unwind(Box::new(())));
        let (started, theirs) = other.join().unwrap();
        // Mine is lost unless I joined theirs; theirs is lost only if they joined mine.
        assert!(mine.is_none() || mine == Some(7));
        assert!(theirs == Some(7) || !started);
        assert_eq!(ask(&group, || 9), (true, Some(9)));
    });
}

#[test]
fn a_waiter_who_leaves_takes_nobody_along() {
    loom::model(|| {
        let group: Shared = Arc::new(FlightGroup::new());
        let leaver = {
            let group = group.clone();
            thread::spawn(move || {
                let (waiter, leader) = group.join(&1, |()| true, || ());
                drop(waiter);
                leader
            })
        };
        let (waiter, leader) = group.join(&1, |()| true, || ());
        assert_eq!(waiter.joined, leader.is_none());
        for leader in [leader, leaver.join().unwrap()].into_iter().flatten() {
            leader.complete(5);
        }
        assert_eq!(block_on(waiter.outcome()), Some(5));
    });
}

#[test]
fn a_flight_that_was_detached_does_not_end_the_one_that_came_after() {
    loom::model(|| {
        let group: Shared = Arc::new(FlightGroup::new());
        let (old, leader) = group.join(&1, |()| true, || ());
        let leader = leader.unwrap();
        let purger = {
            let group = group.clone();
            thread::spawn(move || {
                group.detach_all();
                group.join(&1, |()| true, || ()).1
            })
        };
        leader.complete(1);
        let new = purger.join().unwrap();
        assert_eq!(block_on(old.outcome()), Some(1));
        // Detached or completed, the old one was not joined, and the new one is still under way.
        assert!(new.is_some());
        assert!(group.join(&1, |()| true, || ()).1.is_none());
    });
}
