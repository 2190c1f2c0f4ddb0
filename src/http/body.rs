//! What the bodies of responses have beside what axum's have.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::ready as at_once;
use futures_util::stream;
use http::Version;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;

/// Bytes that are handed on at a time over HTTP/2: as many as a peer takes unasked, unless it says otherwise.
const PIECE: usize = 64 * 1024;

/// What comes of a malformed request in HTTP/2: its stream ends in an error, and no answer is sent.
pub fn malformed() -> Body {
    let error = h2::Error::from(h2::Reason::PROTOCOL_ERROR);
    Body::from_stream(stream::once(at_once(Err::<Bytes, _>(error))))
}

pin_project! {
    /// A body whose data is handed on in pieces over HTTP/2, where the socket does not tell whether a peer takes its
    /// answer: of a large body that was handed on whole nobody could. Over HTTP/1 it goes out as it is.
    pub struct InPieces<B> {
        #[pin]
        body: B,
        // What the body has given and was not handed on yet.
        rest: Bytes,
        longest: usize,
    }
}

impl<B> InPieces<B> {
    pub fn new(body: B, version: Version) -> Self {
        let longest = if version == Version::HTTP_2 { PIECE } else { usize::MAX };
        Self { body, rest: Bytes::new(), longest }
    }
}

impl<B: HttpBody<Data = Bytes>> HttpBody for InPieces<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if this.rest.is_empty() {
            match ready!(this.body.poll_frame(context)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => *this.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(*this.longest));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut all = SizeHint::new();
        all.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper() {
            all.set_upper(upper.saturating_add(rest));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;
    use crate::overload::in_flight::Responses;
    use crate::overload::shares::Bound;

    fn pieces(body: Body, version: Version) -> (Vec<usize>, Vec<u8>) {
        let mut body = InPieces::new(body, version);
        let (mut pieces, mut got) = (Vec::new(), Vec::new());
        while !body.is_end_stream() {
            let left = body.size_hint().exact().expect("a length");
            let frame = body.frame().now_or_never().expect("at hand").expect("more").expect("bytes");
            let piece = frame.into_data().expect("data");
            assert_eq!(body.size_hint().exact(), Some(left - piece.len() as u64));
            pieces.push(piece.len());
            got.extend_from_slice(&piece);
        }
        (pieces, got)
    }

    #[test]
    fn a_large_body_is_handed_on_piece_by_piece_over_http2_and_ends_with_the_last_one() {
        let all: Vec<u8> = (0..=250).cycle().take(2 * PIECE + 1).collect();
        let stored = Arc::<[u8]>::from(&*all);
        let bound = Bound { all: all.len(), of_one: all.len() };
        let counted = Responses::default().hold(stored.clone(), &"a".into(), bound).expect("room");
        for bytes in [Bytes::from_owner(stored), counted, Bytes::from(all.clone())] {
            let (lengths, got) = pieces(Body::from(bytes.clone()), Version::HTTP_2);
            assert_eq!(lengths, [PIECE, PIECE, 1]);
            assert!(got == all);
            assert_eq!(pieces(Body::from(bytes), Version::HTTP_11).0, [all.len()]);
        }
        assert!(InPieces::new(Body::empty(), Version::HTTP_2).is_end_stream());
    }
}
