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
pub enum DrainState {
    /// Nothing: serve.
    Serving,
    /// The next answer is the last one: it says `Connection: close`.
    LastResponse,
    /// No request but those under way.
    Finishing,
    /// End at once.
    Closing,
    /// End at once, and let the kernel throw away what it has not yet sent.
    Resetting,
}

/// What a peer may send for each request: the head, and what HTTP/2 says beside it. More is a flood of frames that ask
/// for nothing. The body comes on top, and as much again as the peer has taken of answers: it opens its window for them.
const MAX_READ: u64 = 1024 * 1024;

/// One connection's state; counters only grow.
#[derive(Default, Debug)]
pub struct ConnectionStats {
    read: AtomicU64,
    /// What it may read for each request, and up to where it may read now.
    read_per_request: u64,
    read_allowance: AtomicU64,
    /// Bytes that the kernel took; of HTTP/2, bytes of content and heads.
    written: AtomicU64,
    /// The socket took nothing when it was last offered something.
    is_blocked: AtomicBool,
    started: AtomicU64,
    in_flight: AtomicU32,
    /// Bodies that have more to give and are not asked for it.
    stalled_bodies: AtomicU32,
    /// Answers of HTTP/2 that have begun to go out and not ended.
    unfinished: AtomicU32,
    /// `read` when the last request ended.
    read_at_last_end: AtomicU64,
    is_http2: AtomicBool,
    drain_state: AtomicU8,
    /// Whoever watches wants to know whether the peer is still there.
    is_probe_requested: AtomicBool,
    /// Of the connection's task.
    waker: Mutex<Option<Waker>>,
}

/// A [`ConnectionStats`] at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sample {
    /// Bytes off the socket, TLS included.
    pub read: u64,
    /// Bytes that the kernel took; of HTTP/2, those of content and heads.
    pub written: u64,
    /// The peer does not take what there is for it.
    pub is_blocked: bool,
    /// Requests ever started.
    pub started: u64,
    /// Requests not yet answered whole.
    pub in_flight: u32,
    /// A part of another head has come. Not told of HTTP/2, where a peer may say other things.
    pub has_more: bool,
}

impl ConnectionStats {
    // All of it is counted by the connection's own task, where its requests are polled too: so it is loaded
    // and stored, which is cheaper than a locked add.

    /// Of a connection whose requests have bodies up to so many bytes.
    pub fn new(max_body: u64) -> Self {
        let read_per_request = MAX_READ.saturating_add(max_body);
        Self { read_per_request, read_allowance: AtomicU64::new(read_per_request), ..Self::default() }
    }

    /// Whether it may read on: not if its peer has sent much more than its requests can be.
    pub fn record_read(&self, bytes: usize) -> bool {
        let read = self.read.load(Relaxed) + bytes as u64;
        self.read.store(read, Relaxed);
        read <= self.read_allowance.load(Relaxed)
    }

    pub fn is_flooded(&self) -> bool {
        self.read.load(Relaxed) > self.read_allowance.load(Relaxed)
    }

    pub fn record_written(&self, bytes: usize) {
        if !self.is_http2.load(Relaxed) {
            self.written.store(self.written.load(Relaxed) + bytes as u64, Relaxed);
        }
        self.set_blocked(false);
    }

    /// Of what goes out over HTTP/2, bytes that are progress, and the answers that have not gone out to their ends.
    pub fn record_http2_sent(&self, bytes: u64, unfinished: u32) {
        self.written.store(self.written.load(Relaxed) + bytes, Relaxed);
        self.unfinished.store(unfinished, Relaxed);
        if bytes > 0 {
            self.extend_read_allowance(bytes);
        }
    }

    /// The socket took nothing (true), or has nothing left to take.
    pub fn set_blocked(&self, is_blocked: bool) {
        // Read before written: the line stays clean on the way of a hit.
        if self.is_blocked.load(Relaxed) != is_blocked {
            self.is_blocked.store(is_blocked, Relaxed);
        }
    }

    pub fn set_http2(&self) {
        self.is_http2.store(true, Relaxed);
    }

    pub fn request_started(&self) {
        self.started.store(self.started.load(Relaxed) + 1, Relaxed);
        self.in_flight.store(self.in_flight.load(Relaxed) + 1, Relaxed);
        self.extend_read_allowance(self.read_per_request);
    }

    /// Each request brings its own, and keeps it while it is under way; none of it is saved up.
    fn extend_read_allowance(&self, bytes: u64) {
        let requests = u64::from(self.in_flight.load(Relaxed)) + 1;
        let most = self.read.load(Relaxed).saturating_add(self.read_per_request.saturating_mul(requests));
        let more = self.read_allowance.load(Relaxed).saturating_add(bytes);
        self.read_allowance.store(more.min(most), Relaxed);
    }

    pub fn request_ended(&self) {
        self.read_at_last_end.store(self.read.load(Relaxed), Relaxed);
        self.in_flight.store(self.in_flight.load(Relaxed) - 1, Relaxed);
    }

    /// A body has something to give, or is itself waiting, or is gone.
    pub fn set_body_stalled(&self, has_more: bool) {
        let before = self.stalled_bodies.load(Relaxed);
        self.stalled_bodies.store(if has_more { before + 1 } else { before - 1 }, Relaxed);
    }

    pub fn sample(&self) -> Sample {
        let read = self.read.load(Relaxed);
        let in_flight = self.in_flight.load(Relaxed);
        // More than can be waiting for the gateway: of an answer that HTTP has handed on whole, too.
        let is_held = self.stalled_bodies.load(Relaxed) > 0 || self.unfinished.load(Relaxed) > in_flight;
        Sample {
            read,
            written: self.written.load(Relaxed),
            is_blocked: self.is_blocked.load(Relaxed) || is_held,
            started: self.started.load(Relaxed),
            in_flight,
            has_more: !self.is_http2.load(Relaxed) && read > self.read_at_last_end.load(Relaxed),
        }
    }

    /// Tells the connection what to do; a milder order than the last one is none.
    pub fn advance_to(&self, state: DrainState) {
        if self.drain_state.fetch_max(state as u8, Relaxed) < state as u8 {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    /// Has the connection look whether its peer is still there. Over HTTP/2 it reads all the while, and sees it.
    pub fn request_probe(&self) {
        if !self.is_http2.load(Relaxed) {
            self.is_probe_requested.store(true, Relaxed);
            self.wake();
        }
    }

    /// Whether that was asked since this was called last.
    pub fn take_probe(&self) -> bool {
        self.is_probe_requested.load(Relaxed) && self.is_probe_requested.swap(false, Relaxed)
    }

    pub fn drain_state(&self) -> DrainState {
        match self.drain_state.load(Relaxed) {
            0 => DrainState::Serving,
            1 => DrainState::LastResponse,
            2 => DrainState::Finishing,
            3 => DrainState::Closing,
            _ => DrainState::Resetting,
        }
    }
}

/// Lets a task hear of orders, whenever it is polled: as long as it is the same one, it has to say so only
/// once.
#[derive(Default)]
pub struct DrainObserver(Option<Waker>);

impl DrainObserver {
    /// The order that a connection has been given. Of a later one the task of `context` will hear.
    pub fn state(&mut self, stats: &ConnectionStats, context: &Context<'_>) -> DrainState {
        let waker = context.waker();
        if !self.0.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *stats.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
            self.0 = Some(waker.clone());
        }
        stats.drain_state()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_counts_against_the_requests_that_have_begun() {
        const MIB: usize = 1024 * 1024;
        let stats = ConnectionStats::new(0);
        assert!(stats.record_read(MIB) && !stats.is_flooded());
        stats.request_started();
        stats.request_started();
        assert!(stats.record_read(2 * MIB), "each has its own");
        assert!(!stats.record_read(1) && stats.is_flooded(), "also while they are under way");
        let stats = ConnectionStats::new(0);
        for _ in 0..1000 {
            stats.request_started();
            stats.request_ended();
        }
        assert!(stats.record_read(2 * MIB));
        assert!(!stats.record_read(1), "nothing is saved up");
        let stats = ConnectionStats::new(0);
        stats.request_started();
        for _ in 0..10 {
            assert!(stats.record_read(MIB), "as much as it has taken");
            stats.record_http2_sent(MIB as u64, 1);
        }
        stats.record_http2_sent(100 * MIB as u64, 1);
        assert!(stats.record_read(2 * MIB) && !stats.record_read(1), "nor is that saved up");
        let stats = ConnectionStats::new(5);
        assert!(stats.record_read(MIB + 5), "a body comes on top");
    }
}
