//! The calls to the upstream that a request has set off, answered or not: for its access line.

use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallsMade {
    /// Of the last one, with its port if the base URL has one.
    pub host: Arc<str>,
    pub count: u32,
    /// All of them together, without the waits before and between them.
    pub took: Duration,
}
