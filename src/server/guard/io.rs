//! A stream that passes on only bytes which the guard has judged.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Framing, Next};
use super::{HeadLimits, head, placeholder};

/// Bytes that are read and discarded after a refusal. If a connection is closed with unread bytes, it is reset, and the
/// response may be lost (RFC 9112 §9.6).
const MOST_DISCARDED: usize = 256 * 1024;

/// Passes on whole heads that are accepted. In place of a refused head it passes on a placeholder, and then nothing
/// more.
///
/// A head that comes in one piece is not copied.
#[derive(Debug)]
pub struct Guarded<Io> {
    io: Io,
    framing: Framing,
    /// Bytes that were read and not passed on yet.
    held: Vec<u8>,
    /// How many bytes of `held` are judged.
    judged: usize,
    end: Option<End>,
}

/// Why reading has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Refused,
    Broken,
}

impl<Io> Guarded<Io> {
    pub fn new(io: Io, limits: HeadLimits) -> Self {
        Self { io, framing: Framing::new(limits), held: Vec::new(), judged: 0, end: None }
    }

    /// Records what comes after the judged bytes.
    fn note(&mut self, next: Next, refused: &[u8]) {
        match next {
            Next::More | Next::Rest => {}
            Next::Refused { refusal, is_head } => {
                self.end = Some(End::Refused);
                self.held.truncate(self.judged);
                self.held.extend(placeholder(refusal, is_head, head::origin(refused)));
                self.judged = self.held.len();
            }
            Next::Broken => {
                self.end = Some(End::Broken);
                self.held.truncate(self.judged);
            }
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Guarded<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.judged > 0 {
                let now = this.judged.min(out.remaining());
                out.put_slice(&this.held[..now]);
                this.held.drain(..now);
                this.judged -= now;
                return Poll::Ready(Ok(()));
            }
            match this.end {
                None => {}
                // hyper would take the end for a client that has left, and give up the response.
                Some(End::Refused) => return Poll::Pending,
                Some(End::Broken) => {
                    let error = "a chunked body breaks RFC 9112 §7.1";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
            }
            let before = out.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(context, out))?;
            let new = &mut out.filled_mut()[before..];
            if new.is_empty() {
                // `held` is half a head, to which there is no response.
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                let (judged, next) = this.framing.advance(new);
                if next == Next::Rest {
                    this.held.extend_from_slice(&new[judged..]);
                }
                this.note(next, &new[judged..]);
                out.set_filled(before + judged);
                if judged > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.extend_from_slice(new);
                out.set_filled(before);
                let (judged, next) = this.framing.advance(&mut this.held);
                this.judged = judged;
                let refused = if matches!(next, Next::Refused { .. }) {
                    this.held.split_off(judged)
                } else {
                    Vec::new()
                };
                this.note(next, &refused);
            }
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.io).poll_shutdown(context))?;
        if this.end.is_some() {
            let mut scratch = [0; 4096];
            let mut discarded = 0;
            while discarded < MOST_DISCARDED {
                let mut scratch = ReadBuf::new(&mut scratch);
                match Pin::new(&mut this.io).poll_read(context, &mut scratch) {
                    Poll::Ready(Ok(())) if !scratch.filled().is_empty() => {
                        discarded += scratch.filled().len();
                    }
                    _ => break,
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
