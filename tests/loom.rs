//! The flight's core, in every interleaving of its locks: one starts and the others join, all hear
//! of the landing, and a fill that dies leaves neither waiters nor a taken key behind. loom does not see into
//! tokio's `Notify` nor into `OnceLock`: that a waiter who has put himself down misses no word is their
//! promise, held to with real threads in src/cache/flight.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../src/cache/flight/board.rs"]
mod board;

/// What the board is made of, here.
mod sync {
    pub use loom::sync::{Arc, Mutex, MutexGuard};
    pub use std::sync::PoisonError;
}

use std::panic::{AssertUnwindSafe, catch_unwind};

use board::Board;
use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

type Shared = Arc<Board<u8, u8, ()>>;

/// Asks once: starts the fill if nobody has, and waits.
fn ask(board: &Shared, fill: impl FnOnce() -> u8) -> (bool, Option<u8>) {
    let (ticket, landing) = board.join(&1, |()| true, || ());
    let ((), started) = (ticket.common, landing.is_some());
    if let Some(landing) = landing {
        // As in a task of its own, where a panic ends the task and drops what it holds.
        let _ = catch_unwind(AssertUnwindSafe(|| landing.land(fill())));
    }
    (started, block_on(ticket.landed()))
}

#[test]
fn all_who_ask_hear_of_a_landing_and_the_key_is_free_again() {
    loom::model(|| {
        let board: Shared = Arc::new(Board::new());
        let asking: Vec<_> = (0..2)
            .map(|n| {
                let board = board.clone();
                thread::spawn(move || ask(&board, || n))
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
        assert!(ask(&board, || 9).0);
    });
}

#[test]
fn who_has_heard_of_a_landing_finds_the_key_free() {
    loom::model(|| {
        let board: Shared = Arc::new(Board::new());
        let (_first, landing) = board.join(&1, |()| true, || ());
        let waiter = {
            let board = board.clone();
            thread::spawn(move || {
                let (ticket, own) = board.join(&1, |()| true, || ());
                if own.is_some() {
                    return;
                }
                assert_eq!(block_on(ticket.landed()), Some(3));
                assert!(board.under_way(&1).is_none());
                // Asked again at once: not the flight that has just been heard of.
                let (ticket, own) = board.join(&1, |()| true, || ());
                assert!(!ticket.joined && own.is_some());
            })
        };
        landing.unwrap().land(3);
        waiter.join().unwrap();
    });
}

#[test]
fn a_fill_that_panics_lets_go_of_everybody() {
    loom::model(|| {
        let board: Shared = Arc::new(Board::new());
        let other = {
            let board = board.clone();
            thread::spawn(move || ask(&board, || 7))
        };
        let (_, mine) = ask(&board, || std::panic::resume_unwind(Box::new(())));
        let (started, theirs) = other.join().unwrap();
        // Mine is lost unless I joined theirs; theirs is lost only if they joined mine.
        assert!(mine.is_none() || mine == Some(7));
        assert!(theirs == Some(7) || !started);
        assert_eq!(ask(&board, || 9), (true, Some(9)));
    });
}

#[test]
fn a_waiter_who_leaves_takes_nobody_along() {
    loom::model(|| {
        let board: Shared = Arc::new(Board::new());
        let leaver = {
            let board = board.clone();
            thread::spawn(move || {
                let (ticket, landing) = board.join(&1, |()| true, || ());
                drop(ticket);
                landing
            })
        };
        let (ticket, landing) = board.join(&1, |()| true, || ());
        assert_eq!(ticket.joined, landing.is_none());
        for landing in [landing, leaver.join().unwrap()].into_iter().flatten() {
            landing.land(5);
        }
        assert_eq!(block_on(ticket.landed()), Some(5));
    });
}

#[test]
fn a_flight_that_was_detached_does_not_end_the_one_that_came_after() {
    loom::model(|| {
        let board: Shared = Arc::new(Board::new());
        let (old, landing) = board.join(&1, |()| true, || ());
        let landing = landing.unwrap();
        let purger = {
            let board = board.clone();
            thread::spawn(move || {
                board.detach_all();
                board.join(&1, |()| true, || ()).1
            })
        };
        landing.land(1);
        let new = purger.join().unwrap();
        assert_eq!(block_on(old.landed()), Some(1));
        // Detached or landed, the old one was not joined, and the new one is still on the board.
        assert!(new.is_some());
        assert!(board.join(&1, |()| true, || ()).1.is_none());
    });
}
