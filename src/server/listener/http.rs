//! How HTTP is spoken: the limits of both versions, in one place.
//!
//! hyper's own time-outs are off but for HTTP/2's ping: [`super::watch`] keeps time for all
//! connections.

use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use super::inline_executor::SpawnHandle;
use crate::server::guard;

/// Bytes that HTTP/1 holds of one connection in each direction before it reads or writes on: more
/// than the largest head that may be configured. Ten thousand slow peers hold no more than 1.6 GB of
/// both, and honest ones nowhere near.
const HTTP1_BUFFER: usize = 80 * 1024;
/// Bytes of unread bodies that one HTTP/2 stream, and one connection, may send ahead: one body of
/// the default size, and sixteen of them.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of an answer that are copied for one HTTP/2 stream ahead of its peer; beside the 64 KiB that a whole
/// connection may have waiting ([`super::write_coalescer`]).
const STREAM_SEND_BUFFER: usize = 64 * 1024;
/// Streams that a peer may reset before they were looked at: more is rapid reset (CVE-2023-44487),
/// and the connection ends. h2's own default.
const RESETS_PENDING: usize = 20;
/// Streams that end in an error of the peer's making, over a connection's life (CVE-2025-8671). h2 counts those among
/// them that were refused for being more than may be open at a time.
const RESETS_CAUSED: usize = 200;
/// A peer that says nothing is asked whether it is there, and has so long to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(15);

/// Both versions, ready to serve connections.
pub struct Http {
    pub http1: http1::Builder,
    max_streams: u32,
    /// What HTTP/1 is held to before hyper has it; HTTP/2 has frames, and no two readings.
    pub head: guard::HeadLimits,
}

impl Http {
    pub fn new(max_streams: u32, head: guard::HeadLimits) -> Self {
        let mut http1 = http1::Builder::new();
        http1.header_read_timeout(None).half_close(true).max_buf_size(HTTP1_BUFFER);
        Self { http1, max_streams, head }
    }

    /// HTTP/2, for one connection.
    pub fn http2(&self, handle: SpawnHandle) -> http2::Builder<SpawnHandle> {
        let mut builder = http2::Builder::new(handle);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.max_streams)
            .max_header_list_size(u32::try_from(self.head.max_head).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(RESETS_PENDING)
            .max_local_error_reset_streams(RESETS_CAUSED)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(STREAM_SEND_BUFFER)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER);
        builder
    }
}
