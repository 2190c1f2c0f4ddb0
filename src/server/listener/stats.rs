//! The counters of one connection, and its drain state.
//!
//! The connection's socket and its requests write the counters. The listener's reaper reads those of all connections, a
//! few times a second. So no connection has a timer, and no request reads a clock for a timeout. hyper's own timeout
//! for heads costs a boxed timer for each request.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Waker};

/// How far a connection is on its way to its end. It only moves forward.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum DrainState {
    /// It serves requests.
    Serving,
    /// The next response is the last one and says `Connection: close`.
    LastResponse,
    /// Requests in flight may end. No new request is accepted.
    Finishing,
    /// It ends at once.
    Closing,
    /// It ends at once, and the kernel discards what it has not sent yet.
    Resetting,
}

/// Bytes that a peer may send per request, for its head and for HTTP/2's other frames. More is a flood of frames
/// without requests. Two things are added: the largest body, and as many bytes as the peer has received of responses,
/// for which it sends window updates.
const MAX_READ: u64 = 1024 * 1024;

/// The counters of one connection. Totals only grow.
#[derive(Default, Debug)]
pub struct ConnectionStats {
    read: AtomicU64,
    /// Bytes that each request adds to `read_allowance`, and the value that `read` may have now.
    read_per_request: u64,
    read_allowance: AtomicU64,
    /// Bytes that the kernel has accepted. With HTTP/2, only bytes of content and heads.
    written: AtomicU64,
    /// The socket accepted nothing at the last write.
    is_blocked: AtomicBool,
    started: AtomicU64,
    in_flight: AtomicU32,
    /// Response bodies that have data ready which is not polled.
    stalled_bodies: AtomicU32,
    /// HTTP/2 responses whose head has gone out and whose end has not.
    unfinished: AtomicU32,
    /// The value of `read` when the last request ended.
    read_at_last_end: AtomicU64,
    is_http2: AtomicBool,
    drain_state: AtomicU8,
    /// The reaper has asked whether the peer is still connected.
    is_probe_requested: AtomicBool,
    /// Wakes the connection's task.
    waker: Mutex<Option<Waker>>,
}

/// A [`ConnectionStats`] at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sample {
    /// Bytes read from the socket, those of TLS included.
    pub read: u64,
    /// Bytes that the kernel has accepted. With HTTP/2, only bytes of content and heads.
    pub written: u64,
    /// There is output that the peer does not receive.
    pub is_blocked: bool,
    /// All requests that have started so far.
    pub started: u64,
    /// Requests whose response is not complete.
    pub in_flight: u32,
    /// A part of the next head has arrived. Always false with HTTP/2, where a peer sends other frames too.
    pub has_more: bool,
}

impl ConnectionStats {
    // Only the connection's own task writes the counters, for its requests are polled there too. A load and a store are
    // enough, and cheaper than a locked add.

    /// For a connection whose requests have bodies of at most `max_body` bytes.
    pub fn new(max_body: u64) -> Self {
        let read_per_request = MAX_READ.saturating_add(max_body);
        Self { read_per_request, read_allowance: AtomicU64::new(read_per_request), ..Self::default() }
    }

    /// Records bytes that were read. False if the peer has sent much more than its requests can need.
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

    /// Records output of HTTP/2: the bytes that are progress, and how many responses have not been sent to their end.
    pub fn record_http2_sent(&self, bytes: u64, unfinished: u32) {
        self.written.store(self.written.load(Relaxed) + bytes, Relaxed);
        self.unfinished.store(unfinished, Relaxed);
        if bytes > 0 {
            self.extend_read_allowance(bytes);
        }
    }

    /// Records whether the socket accepted nothing at the last write.
    pub fn set_blocked(&self, is_blocked: bool) {
        // A load first: the cache line stays clean while nothing changes, as on every hit.
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

    /// Raises the allowance. What earlier requests did not use expires: above `read` there is at most one share for
    /// each request in flight, and one more.
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

    /// Records that a body has data which is not polled (true), or that this is over.
    pub fn set_body_stalled(&self, has_more: bool) {
        let before = self.stalled_bodies.load(Relaxed);
        self.stalled_bodies.store(if has_more { before + 1 } else { before - 1 }, Relaxed);
    }

    pub fn sample(&self) -> Sample {
        let read = self.read.load(Relaxed);
        let in_flight = self.in_flight.load(Relaxed);
        // There are more unfinished responses than requests in flight. So at least one response is complete here, and
        // only the peer holds it up.
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

    /// Moves the drain state forward and wakes the connection. An earlier state than the present one changes nothing.
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

    /// Asks the connection to check whether its peer is still connected. An HTTP/2 connection reads all the time and
    /// notices by itself.
    pub fn request_probe(&self) {
        if !self.is_http2.load(Relaxed) {
            self.is_probe_requested.store(true, Relaxed);
            self.wake();
        }
    }

    /// Whether a check was requested since the last call.
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

/// Reads the drain state in a task, and registers the task to be woken when the state changes. The waker is stored only
/// when it is a new one.
#[derive(Default)]
pub struct DrainObserver(Option<Waker>);

impl DrainObserver {
    /// The drain state of a connection. A change wakes the task of `context`.
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
        assert!(stats.record_read(2 * MIB), "each request has its own");
        assert!(!stats.record_read(1) && stats.is_flooded(), "also while they are in flight");
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
