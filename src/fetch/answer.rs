//! What the upstream answered: the part of it that callers get.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
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
    /// The upstream's, if it is one of JSON.
    pub content_type: Option<ContentType>,
    /// The upstream's `Retry-After`, in seconds.
    pub retry_after: Option<NonZeroU32>,
    pub body: Arc<[u8]>,
    /// When the request for it was sent: nothing in it is older (RFC 9111 §4.2.3).
    pub asked_at: Moment,
}

/// A `Content-Type`. Those that most answers have take no memory, which there would be one of for each
/// stored answer, for a hit to fetch.
#[derive(Clone, Debug)]
pub enum ContentType {
    Common(&'static HeaderValue),
    Other(Box<HeaderValue>),
}

static COMMON: [HeaderValue; 2] = [
    HeaderValue::from_static("application/json"),
    HeaderValue::from_static("application/json; charset=utf-8"),
];

impl From<HeaderValue> for ContentType {
    fn from(value: HeaderValue) -> Self {
        let common = COMMON.iter().find(|common| **common == value);
        common.map_or_else(|| Self::Other(value.into()), Self::Common)
    }
}

impl ContentType {
    /// Of what has been read as JSON, whatever its sender called it.
    pub const fn json() -> Self {
        Self::Common(&COMMON[0])
    }

    pub fn value(&self) -> HeaderValue {
        match self {
            Self::Common(value) => HeaderValue::clone(value),
            Self::Other(value) => HeaderValue::clone(value),
        }
    }
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
    /// Whether the framing tells a complete body from a cut one. Otherwise only its text can.
    pub is_framed: bool,
    /// When it has to be over.
    pub until: Instant,
    /// For how long a reader may take nothing.
    pub stall_timeout: Duration,
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
    pub content_type: Option<ContentType>,
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
