//! What is known of one connection while it lives, and what it has been told to do.
//!
//! The connection's socket and its requests write here, the listener's watch reads, a few times a
//! second and for all connections at once. So no connection has a timer and no request reads a
//! clock on account of time-outs: hyper's own for heads costs a boxed timer for each request.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Waker};

/// What a connection has been told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Order {
    /// Nothing: serve.
    Serve,
    /// The next answer is the last one: it says `Connection: close`.
    Last,
    /// No request but those under way.
    Finish,
    /// End at once.
    Close,
    /// End at once, and let the kernel throw away what it has not yet sent.
    Reset,
}

/// What a peer may send for each request: the head, and what HTTP/2 says beside it. More is a flood of frames that ask
/// for nothing. The body comes on top, and as much again as the peer has taken of answers: it opens its window for them.
const MOST_READ: u64 = 1024 * 1024;

/// One connection's state; counters only grow.
#[derive(Default, Debug)]
pub struct Pulse {
    read: AtomicU64,
    /// What it may read for each request, and up to where it may read now.
    most_read: u64,
    may_read: AtomicU64,
    /// Bytes that the kernel took; of HTTP/2, bytes of content and heads.
    written: AtomicU64,
    /// The socket took nothing when it was last offered something.
    is_blocked: AtomicBool,
    begun: AtomicU64,
    under_way: AtomicU32,
    /// Bodies that have more to give and are not asked for it.
    held_up: AtomicU32,
    /// Answers of HTTP/2 that have begun to go out and not ended.
    unfinished: AtomicU32,
    /// `read` when the last request ended.
    read_at_end: AtomicU64,
    speaks_http2: AtomicBool,
    order: AtomicU8,
    /// Whoever watches wants to know whether the peer is still there.
    is_asked: AtomicBool,
    /// Of the connection's task.
    waker: Mutex<Option<Waker>>,
}

/// A [`Pulse`] at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Reading {
    /// Bytes off the socket, TLS included.
    pub read: u64,
    /// Bytes that the kernel took; of HTTP/2, those of content and heads.
    pub written: u64,
    /// The peer does not take what there is for it.
    pub is_blocked: bool,
    /// Requests ever begun.
    pub begun: u64,
    /// Requests not yet answered whole.
    pub under_way: u32,
    /// A part of another head has come. Not told of HTTP/2, where a peer may say other things.
    pub has_more: bool,
}

impl Pulse {
    // All of it is counted by the connection's own task, where its requests are polled too: so it is loaded
    // and stored, which is cheaper than a locked add.

    /// Of a connection whose requests have bodies up to so many bytes.
    pub fn new(max_body: u64) -> Self {
        let most_read = MOST_READ.saturating_add(max_body);
        Self { most_read, may_read: AtomicU64::new(most_read), ..Self::default() }
    }

    /// Whether it may read on: not if its peer has sent much more than its requests can be.
    pub fn has_read(&self, bytes: usize) -> bool {
        let read = self.read.load(Relaxed) + bytes as u64;
        self.read.store(read, Relaxed);
        read <= self.may_read.load(Relaxed)
    }

    pub fn is_flooded(&self) -> bool {
        self.read.load(Relaxed) > self.may_read.load(Relaxed)
    }

    pub fn has_written(&self, bytes: usize) {
        if !self.speaks_http2.load(Relaxed) {
            self.written.store(self.written.load(Relaxed) + bytes as u64, Relaxed);
        }
        self.blocked(false);
    }

    /// Of what goes out over HTTP/2, bytes that are progress, and the answers that have not gone out to their ends.
    pub fn has_handed_on(&self, bytes: u64, unfinished: u32) {
        self.written.store(self.written.load(Relaxed) + bytes, Relaxed);
        self.unfinished.store(unfinished, Relaxed);
        if bytes > 0 {
            self.may_read_more(bytes);
        }
    }

    /// The socket took nothing (true), or has nothing left to take.
    pub fn blocked(&self, is_blocked: bool) {
        // Read before written: the line stays clean on the way of a hit.
        if self.is_blocked.load(Relaxed) != is_blocked {
            self.is_blocked.store(is_blocked, Relaxed);
        }
    }

    pub fn speaks_http2(&self) {
        self.speaks_http2.store(true, Relaxed);
    }

    pub fn begins(&self) {
        self.begun.store(self.begun.load(Relaxed) + 1, Relaxed);
        self.under_way.store(self.under_way.load(Relaxed) + 1, Relaxed);
        self.may_read_more(self.most_read);
    }

    /// Each request brings its own, and keeps it while it is under way; none of it is saved up.
    fn may_read_more(&self, bytes: u64) {
        let requests = u64::from(self.under_way.load(Relaxed)) + 1;
        let most = self.read.load(Relaxed).saturating_add(self.most_read.saturating_mul(requests));
        let more = self.may_read.load(Relaxed).saturating_add(bytes);
        self.may_read.store(more.min(most), Relaxed);
    }

    pub fn ends(&self) {
        self.read_at_end.store(self.read.load(Relaxed), Relaxed);
        self.under_way.store(self.under_way.load(Relaxed) - 1, Relaxed);
    }

    /// A body has something to give, or is itself waiting, or is gone.
    pub fn holds_up(&self, has_more: bool) {
        let before = self.held_up.load(Relaxed);
        self.held_up.store(if has_more { before + 1 } else { before - 1 }, Relaxed);
    }

    pub fn reading(&self) -> Reading {
        let read = self.read.load(Relaxed);
        let under_way = self.under_way.load(Relaxed);
        // More than can be waiting for the gateway: of an answer that HTTP has handed on whole, too.
        let is_held = self.held_up.load(Relaxed) > 0 || self.unfinished.load(Relaxed) > under_way;
        Reading {
            read,
            written: self.written.load(Relaxed),
            is_blocked: self.is_blocked.load(Relaxed) || is_held,
            begun: self.begun.load(Relaxed),
            under_way,
            has_more: !self.speaks_http2.load(Relaxed) && read > self.read_at_end.load(Relaxed),
        }
    }

    /// Tells the connection what to do; a milder order than the last one is none.
    pub fn tell(&self, order: Order) {
        if self.order.fetch_max(order as u8, Relaxed) < order as u8 {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    /// Has the connection look whether its peer is still there. Over HTTP/2 it reads all the while, and sees it.
    pub fn ask(&self) {
        if !self.speaks_http2.load(Relaxed) {
            self.is_asked.store(true, Relaxed);
            self.wake();
        }
    }

    /// Whether that was asked since this was called last.
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Relaxed) && self.is_asked.swap(false, Relaxed)
    }

    pub fn order(&self) -> Order {
        match self.order.load(Relaxed) {
            0 => Order::Serve,
            1 => Order::Last,
            2 => Order::Finish,
            3 => Order::Close,
            _ => Order::Reset,
        }
    }
}

/// Lets a task hear of orders, whenever it is polled: as long as it is the same one, it has to say so only
/// once.
#[derive(Default)]
pub struct Listening(Option<Waker>);

impl Listening {
    /// The order that a connection has been given. Of a later one the task of `context` will hear.
    pub fn order(&mut self, pulse: &Pulse, context: &Context<'_>) -> Order {
        let waker = context.waker();
        if !self.0.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *pulse.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
            self.0 = Some(waker.clone());
        }
        pulse.order()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_counts_against_the_requests_that_have_begun() {
        const MIB: usize = 1024 * 1024;
        let pulse = Pulse::new(0);
        assert!(pulse.has_read(MIB) && !pulse.is_flooded());
        pulse.begins();
        pulse.begins();
        assert!(pulse.has_read(2 * MIB), "each has its own");
        assert!(!pulse.has_read(1) && pulse.is_flooded(), "also while they are under way");
        let pulse = Pulse::new(0);
        for _ in 0..1000 {
            pulse.begins();
            pulse.ends();
        }
        assert!(pulse.has_read(2 * MIB));
        assert!(!pulse.has_read(1), "nothing is saved up");
        let pulse = Pulse::new(0);
        pulse.begins();
        for _ in 0..10 {
            assert!(pulse.has_read(MIB), "as much as it has taken");
            pulse.has_handed_on(MIB as u64, 1);
        }
        pulse.has_handed_on(100 * MIB as u64, 1);
        assert!(pulse.has_read(2 * MIB) && !pulse.has_read(1), "nor is that saved up");
        let pulse = Pulse::new(5);
        assert!(pulse.has_read(MIB + 5), "a body comes on top");
    }
}
