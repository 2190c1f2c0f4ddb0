//! What the upstream answered: the part of it that callers get.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use crate::clock::Moment;
use crate::error::Error;

/// A complete answer of the upstream's, decoded, without its hop-by-hop and private fields.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    /// The upstream's `Retry-After`, as it was.
    pub retry_after: Option<HeaderValue>,
    pub body: Bytes,
    /// When the request for it was sent: nothing in it is older (RFC 9111 §4.2.3).
    pub asked_at: Moment,
}

/// What a call to the upstream brings.
#[derive(Debug)]
pub enum Fetched {
    Whole(Answer),
    Large(Large, Bounds),
}

/// What an answer that is passed on as it comes is held to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Whether its end can be told from a cut by how it is sent. Otherwise only its text can tell.
    pub is_framed: bool,
    /// When it has to be over.
    pub until: Instant,
    /// For how long a reader may take nothing.
    pub patience: Duration,
}

impl Fetched {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Whole(answer) => answer.status,
            Self::Large(large, _) => large.status,
        }
    }
}

/// An answer larger than what is held: it is passed on as it comes, and nobody has looked into it.
pub struct Large {
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    pub body: Parts,
}

/// A body as it comes, from the first byte to the last; an error where the upstream broke off. A
/// stream is not `Sync`, and never locked here: it has one owner.
pub struct Parts(Mutex<BoxStream<'static, Result<Bytes, Error>>>);

impl Parts {
    pub fn new(parts: BoxStream<'static, Result<Bytes, Error>>) -> Self {
        Self(Mutex::new(parts))
    }

    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes, Error>> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Large {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Large({})", self.status)
    }
}
