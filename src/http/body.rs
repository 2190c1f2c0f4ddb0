//! The body of a response: bytes that are at hand, or bytes as they come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::future::ready;
use futures_util::stream::{self, BoxStream};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower::BoxError;

use crate::overload::in_flight::{Counted, HeldBody};

/// Bytes that are handed on at a time over HTTP/2: as many as a peer takes unasked, unless it says otherwise.
const PIECE: usize = 64 * 1024;

/// What callers get.
pub type Response = http::Response<Body>;

/// No box around bytes that are at hand: most bodies are those of hits.
pub enum Body {
    Whole(Octets),
    /// The same, a piece at a time.
    Pieces(Octets),
    /// An error where they broke off; the connection is cut then.
    Parts(BoxStream<'static, Result<Bytes, BoxError>>),
}

impl Body {
    pub const fn empty() -> Self {
        Self::Whole(Octets::Own(Bytes::new()))
    }

    /// What comes of a malformed request in HTTP/2: its stream ends in an error, and no answer is sent.
    pub fn malformed() -> Self {
        let error = BoxError::from(h2::Error::from(h2::Reason::PROTOCOL_ERROR));
        Self::Parts(stream::once(ready(Err(error))).boxed())
    }

    /// For HTTP/2, where the socket does not tell whether a peer takes its answer: of a large body that was
    /// handed on whole nobody could.
    pub fn in_pieces(&mut self) {
        if let Self::Whole(octets) = self
            && octets.remaining() > PIECE
        {
            *self = Self::Pieces(std::mem::take(octets));
        }
    }

    /// Whether it is known to have no byte.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Whole(octets) | Self::Pieces(octets) if !octets.has_remaining())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Octets::Own(bytes))
    }
}

impl From<Octets> for Body {
    fn from(octets: Octets) -> Self {
        Self::Whole(octets)
    }
}

impl HttpBody for Body {
    type Data = Octets;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Octets>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(octets) | Self::Pieces(octets) if !octets.has_remaining() => Poll::Ready(None),
            Self::Whole(octets) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(octets))))),
            Self::Pieces(octets) => Poll::Ready(Some(Ok(Frame::data(octets.piece())))),
            Self::Parts(parts) => {
                let frame = |part| Frame::data(Octets::Own(part));
                parts.as_mut().poll_next(context).map(|part| part.map(|part| part.map(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(octets) | Self::Pieces(octets) => SizeHint::with_exact(octets.remaining() as u64),
            Self::Parts(_) => SizeHint::default(),
        }
    }
}

/// Bytes on their way out.
pub enum Octets {
    Own(Bytes),
    /// Shared with what is stored, and not as [`Bytes`]: those would count in a block of their own who
    /// holds them, one more for each stored body to keep and for each hit to fetch.
    Stored {
        bytes: Arc<[u8]>,
        sent: usize,
        end: usize,
    },
    /// The same of a large body, which is counted as long as it is held.
    Counted {
        body: Arc<Counted>,
        sent: usize,
        end: usize,
    },
}

impl From<Arc<[u8]>> for Octets {
    fn from(bytes: Arc<[u8]>) -> Self {
        let end = bytes.len();
        Self::Stored { bytes, sent: 0, end }
    }
}

impl From<Arc<Counted>> for Octets {
    fn from(body: Arc<Counted>) -> Self {
        let end = body.bytes.len();
        Self::Counted { body, sent: 0, end }
    }
}

impl From<HeldBody> for Octets {
    fn from(body: HeldBody) -> Self {
        match body {
            HeldBody::Small(bytes) => Self::from(bytes),
            HeldBody::Counted(body) => Self::from(body),
        }
    }
}

impl Octets {
    /// The next piece, taken off.
    fn piece(&mut self) -> Self {
        match self {
            Self::Own(bytes) if bytes.len() > PIECE => Self::Own(bytes.split_to(PIECE)),
            Self::Stored { bytes, sent, end } if *end - *sent > PIECE => {
                let piece = Self::Stored { bytes: bytes.clone(), sent: *sent, end: *sent + PIECE };
                *sent += PIECE;
                piece
            }
            Self::Counted { body, sent, end } if *end - *sent > PIECE => {
                let piece = Self::Counted { body: body.clone(), sent: *sent, end: *sent + PIECE };
                *sent += PIECE;
                piece
            }
            last => std::mem::take(last),
        }
    }
}

impl Default for Octets {
    fn default() -> Self {
        Self::Own(Bytes::new())
    }
}

impl Buf for Octets {
    fn remaining(&self) -> usize {
        self.chunk().len()
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Stored { bytes, sent, end } => bytes.get(*sent..*end).unwrap_or_default(),
            Self::Counted { body, sent, end } => body.bytes.get(*sent..*end).unwrap_or_default(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Own(bytes) => bytes.advance(count),
            // Beyond the end there is nothing left to send, where `Bytes` would panic.
            Self::Stored { sent, .. } | Self::Counted { sent, .. } => *sent += count,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;
    use crate::overload::in_flight::Responses;
    use crate::overload::shares::Bound;

    #[test]
    fn what_is_stored_goes_out_in_any_pieces_and_stays_as_it_is() {
        let stored: Arc<[u8]> = (*b"0123456789").into();
        let mut octets = Octets::from(stored.clone());
        assert_eq!(octets.copy_to_bytes(3), "012");
        octets.advance(2);
        assert_eq!((octets.remaining(), octets.chunk()), (5, &b"56789"[..]));
        octets.advance(5);
        assert!(Body::Whole(octets).is_end_stream());
        assert_eq!(*stored, *b"0123456789");
    }

    #[test]
    fn a_large_body_is_handed_on_piece_by_piece_and_ends_with_the_last_one() {
        let all: Vec<u8> = (0..=250).cycle().take(2 * PIECE + 1).collect();
        let stored = Arc::<[u8]>::from(&*all);
        let bound = Bound { all: all.len(), of_one: all.len() };
        let counted = Responses::default().hold(stored.clone(), &"a".into(), bound);
        let counted = counted.map(Octets::from).expect("room");
        for octets in [Octets::from(stored), counted, Octets::Own(Bytes::from(all.clone()))] {
            let mut body = Body::from(octets);
            let (mut got, mut pieces) = (Vec::new(), Vec::new());
            body.in_pieces();
            assert_eq!(body.size_hint().exact(), Some(all.len() as u64));
            while !body.is_end_stream() {
                let frame = body.frame().now_or_never().expect("at hand").expect("more").expect("bytes");
                let mut piece = frame.into_data().ok().expect("data");
                pieces.push(piece.remaining());
                got.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
            }
            assert_eq!(pieces, [PIECE, PIECE, 1]);
            assert!(got == all);
        }
    }
}
