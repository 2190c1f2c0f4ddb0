//! Joins everything that HTTP/2 writes in one turn of its task into one write.
//!
//! h2 writes and flushes each DATA frame by itself. Sixteen responses that are ready at once become sixteen system
//! calls, and each of them costs more than a copy of what it sends.
//!
//! Workload W6 of docs/PERFORMANCE.md needs this, together with [`super::inline_executor`]. Without both, a hit over
//! HTTP/2 costs 1.17 × HAProxy in place of 0.94 (docs/DECISIONS.md). Neither type shows in a signature outside of
//! `listener`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Frames, Unfinished};
use super::stats::ConnectionStats;
use super::stream::PREFACE;

/// Bytes that are buffered at most, until the end of a turn or for a slow peer. The peer decides how large a frame is.
/// If a frame does not fit, its rest follows once there is room again.
const MAX_BUFFERED: usize = 64 * 1024;

/// A stream of bytes that buffers its writes until the end of a turn, when the connection's task calls
/// [`WriteCoalescer::poll_send`]. A flush does nothing. All clones are the same stream.
pub struct WriteCoalescer<IO>(Arc<Mutex<Inner<IO>>>);

struct Inner<IO> {
    io: IO,
    /// Never grows beyond [`MAX_BUFFERED`].
    buffered: Vec<u8>,
    /// Bytes of `buffered` that have been written.
    written: usize,
    is_flushed: bool,
    /// The frames of both directions.
    received: Frames,
    sent: Frames,
    unfinished: Unfinished,
    stats: Arc<ConnectionStats>,
}

impl<IO> Clone for WriteCoalescer<IO> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<IO> WriteCoalescer<IO> {
    pub fn new(io: IO, stats: Arc<ConnectionStats>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            io,
            buffered: Vec::new(),
            written: 0,
            is_flushed: true,
            received: Frames::after(PREFACE.len()),
            sent: Frames::default(),
            unfinished: Unfinished::default(),
            stats,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<IO>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<IO: AsyncWrite + Unpin> WriteCoalescer<IO> {
    /// Writes what is buffered. Pending if the peer does not accept it; the task is woken once it does.
    pub fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_send(context)
    }
}

impl<IO: AsyncWrite + Unpin> Inner<IO> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffered.len() {
            match ready!(Pin::new(&mut self.io).poll_write(context, &self.buffered[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.buffered.clear();
        self.written = 0;
        if !self.is_flushed {
            // An idle connection holds no buffer.
            self.buffered = Vec::new();
            ready!(Pin::new(&mut self.io).poll_flush(context))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn buffer(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.buffered.len() >= MAX_BUFFERED {
            let sent = self.poll_send(context)?;
            // The part that has been written makes room.
            self.buffered.drain(..std::mem::take(&mut self.written));
            if self.buffered.len() >= MAX_BUFFERED {
                ready!(sent);
            }
        }
        if self.buffered.is_empty() {
            self.buffered.reserve_exact(MAX_BUFFERED);
        }
        self.is_flushed = false;
        let before = self.buffered.len();
        for slice in slices {
            let room = MAX_BUFFERED.saturating_sub(self.buffered.len());
            self.buffered.extend_from_slice(slice.get(..room).unwrap_or(slice));
        }
        let unfinished = &mut self.unfinished;
        let progress = self.sent.advance(&self.buffered[before..], |frame| unfinished.sent(frame));
        self.stats.record_http2_sent(progress, unfinished.count());
        Poll::Ready(Ok(self.buffered.len() - before))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for WriteCoalescer<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let before = buffer.filled().len();
        let read = Pin::new(&mut inner.io).poll_read(context, buffer);
        let unfinished = &mut inner.unfinished;
        inner.received.advance(&buffer.filled()[before..], |frame| unfinished.received(frame));
        inner.stats.record_http2_sent(0, unfinished.count());
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for WriteCoalescer<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner().buffer(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().buffer(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        ready!(inner.poll_send(context))?;
        Pin::new(&mut inner.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, DuplexStream, duplex};

    use super::*;

    /// A stream that buffers until it is flushed, as TLS does. It accepts `fits` bytes before its peer reads.
    fn pair(fits: usize) -> (WriteCoalescer<BufWriter<DuplexStream>>, DuplexStream) {
        let (near, far) = duplex(fits);
        (WriteCoalescer::new(BufWriter::new(near), Arc::default()), far)
    }

    #[tokio::test]
    async fn nothing_is_written_before_the_end_of_the_turn_and_all_of_it_then() {
        let (mut near, mut far) = pair(1024);
        for part in [&b"one "[..], b"two ", b"three"] {
            near.write_all(part).await.expect("written");
            near.flush().await.expect("flushed");
        }
        let mut got = [0; 64];
        assert!(far.read(&mut got).now_or_never().is_none());
        poll_fn(|context| near.poll_send(context)).await.expect("sent");
        let read = far.read(&mut got).now_or_never().expect("there").expect("read");
        assert_eq!(&got[..read], b"one two three");
        assert_eq!(near.inner().buffered.capacity(), 0);
    }

    #[tokio::test]
    async fn a_peer_that_reads_slowly_gets_everything_in_order_and_bounds_what_waits() {
        const ALL: usize = 1024 * 1024;
        let (mut near, mut far) = pair(1000);
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.map(|_| got)
        });
        let sent: Vec<u8> = (0..=250).cycle().take(ALL).collect();
        // Frames of the default size, and one of the largest size that a peer may ask for.
        let (small, large) = sent.split_at(ALL / 2);
        for mut frame in small.chunks(16 * 1024).chain([large]) {
            while !frame.is_empty() {
                let written = near.write(frame).await.expect("written");
                assert!(written > 0 && near.inner().buffered.capacity() <= MAX_BUFFERED);
                frame = &frame[written..];
            }
        }
        near.shutdown().await.expect("shut down");
        assert!(reader.await.expect("ends").expect("read") == sent);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error() {
        let (mut near, far) = pair(16);
        drop(far);
        near.write_all(&[0; 1000]).await.expect("gathered");
        poll_fn(|context| near.poll_send(context)).await.expect_err("nobody is there");
    }
}
