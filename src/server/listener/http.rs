//! The settings of HTTP/1 and HTTP/2, in one place.
//!
//! hyper's own timeouts are off, except for HTTP/2's ping. [`super::reaper`] keeps the time for all connections.

use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use super::inline_executor::SpawnHandle;
use crate::server::guard;

/// Bytes that HTTP/1 buffers of one connection in each direction. It is more than the largest head that may be
/// configured. Ten thousand slow peers make it hold at most 1.6 GB in both directions, and ordinary peers far less.
const HTTP1_BUFFER: usize = 80 * 1024;
/// Bytes of request bodies that a peer may send before they are read, per HTTP/2 stream and per connection: one body of
/// the default size, and sixteen of them.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of a response that are buffered for one HTTP/2 stream until its peer accepts them. The connection as a whole
/// buffers 64 KiB more ([`super::write_coalescer`]).
const STREAM_SEND_BUFFER: usize = 64 * 1024;
/// Streams that a peer may reset before they are accepted. More is rapid reset (CVE-2023-44487) and ends the
/// connection. The number is h2's own default.
const RESETS_PENDING: usize = 20;
/// Streams of one connection that may end in an error which the peer has caused (CVE-2025-8671). h2 also counts streams
/// that were refused because too many were open.
const RESETS_CAUSED: usize = 200;
/// A silent peer gets a ping this often, and has this long to answer it.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(15);

/// The settings of both versions, ready to serve connections.
pub struct Http {
    pub http1: http1::Builder,
    max_streams: u32,
    /// The guard applies these to HTTP/1 before hyper parses it. HTTP/2 has frames, which cannot be read in two ways.
    pub head: guard::HeadLimits,
}

impl Http {
    pub fn new(max_streams: u32, head: guard::HeadLimits) -> Self {
        let mut http1 = http1::Builder::new();
        http1.header_read_timeout(None).half_close(true).max_buf_size(HTTP1_BUFFER);
        Self { http1, max_streams, head }
    }

    /// The settings of one HTTP/2 connection.
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
