//! What the upstream answered: the part of it that callers get.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

/// A complete answer of the upstream's, decoded, without its hop-by-hop and private fields.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub content_type: Option<HeaderValue>,
    pub body: Bytes,
}
