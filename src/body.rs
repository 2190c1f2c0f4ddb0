//! The body of a response: bytes that are at hand, or bytes as they come.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::ready;
use futures_util::stream::{self, BoxStream};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower::BoxError;

/// What callers get.
pub type Response = http::Response<Body>;

/// No box around bytes that are at hand: most bodies are those of hits.
pub enum Body {
    Whole(Bytes),
    /// An error where they broke off; the connection is cut then.
    Parts(BoxStream<'static, Result<Bytes, BoxError>>),
}

impl Body {
    pub const fn empty() -> Self {
        Self::Whole(Bytes::new())
    }

    /// What comes of a malformed request in HTTP/2: its stream ends in an error, and no answer is sent.
    pub fn malformed() -> Self {
        let error = BoxError::from(h2::Error::from(h2::Reason::PROTOCOL_ERROR));
        Self::Parts(stream::once(ready(Err(error))).boxed())
    }

    /// Whether it is known to have no byte.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::Whole(bytes.into())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Parts(parts) => {
                parts.as_mut().poll_next(context).map(|part| part.map(|part| part.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Parts(_) => SizeHint::default(),
        }
    }
}
