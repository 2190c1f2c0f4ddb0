//! The byte stream of one connection, cleartext or TLS, with its bytes counted at the socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::stats::{ConnectionStats, DrainState};

/// The preface of a client with prior knowledge of HTTP/2 (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A socket that counts its bytes in a [`ConnectionStats`].
pub struct Socket {
    tcp: TcpStream,
    stats: Arc<ConnectionStats>,
}

impl Socket {
    pub fn new(tcp: TcpStream, stats: Arc<ConnectionStats>) -> Self {
        Self { tcp, stats }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => self.stats.record_written(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.stats.set_blocked(true),
        }
        written
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Otherwise the kernel would hold the bytes for minutes that a stalled peer does not read.
        if self.stats.drain_state() == DrainState::Resetting {
            let _ = self.tcp.set_zero_linger();
        }
    }
}

impl Socket {
    /// The pending error of the socket, for example after the peer has reset it. A read would return it, but there is
    /// no read while a response is being made.
    fn error(&self) -> Option<io::Error> {
        SockRef::from(&self.tcp).take_error().ok().flatten()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(context, buffer);
        if !self.stats.record_read(buffer.filled().len() - before) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "more than its requests can be",
            )));
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes each time its connection is polled, so this is the place to check for the peer.
        if self.stats.take_probe()
            && let Some(error) = self.error()
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

enum Layer {
    Clear(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// The byte stream of a connection. Its first bytes may have been peeked at.
pub struct Stream {
    layer: Layer,
    prefix: [u8; PREFACE.len()],
    /// Bytes of `prefix` that were read, and bytes of these that were given to a reader.
    peeked: usize,
    replayed: usize,
}

impl Stream {
    pub fn clear(socket: Socket) -> Self {
        Self::over(Layer::Clear(socket))
    }

    pub fn tls(stream: TlsStream<Socket>) -> Self {
        Self::over(Layer::Tls(Box::new(stream)))
    }

    fn over(layer: Layer) -> Self {
        Self { layer, prefix: [0; PREFACE.len()], peeked: 0, replayed: 0 }
    }

    /// Whether the peer begins with HTTP/2's preface. It reads no more bytes than it needs, and later reads return them
    /// again.
    pub async fn begins_http2(&mut self) -> io::Result<bool> {
        while self.peeked < PREFACE.len() {
            let rest = &mut self.prefix[self.peeked..];
            let read = match &mut self.layer {
                Layer::Clear(socket) => socket.read(rest).await?,
                Layer::Tls(stream) => stream.read(rest).await?,
            };
            self.peeked += read;
            if read == 0 || self.prefix[..self.peeked] != PREFACE[..self.peeked] {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.replayed < this.peeked {
            let rest = &this.prefix[this.replayed..this.peeked];
            let fits = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..fits]);
            this.replayed += fits;
            return Poll::Ready(Ok(()));
        }
        match &mut this.layer {
            Layer::Clear(socket) => Pin::new(socket).poll_read(context, buffer),
            Layer::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Clear(socket) => Pin::new(socket).poll_write(context, bytes),
            Layer::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Clear(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            Layer::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.layer {
            Layer::Clear(socket) => socket.is_write_vectored(),
            Layer::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Clear(socket) => Pin::new(socket).poll_flush(context),
            Layer::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Clear(socket) => Pin::new(socket).poll_shutdown(context),
            Layer::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
