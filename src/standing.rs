//! Where somebody stands against a limit: a client against its own, the upstream's callers against
//! its quota. What the `RateLimit` fields tell.

use std::time::Duration;

use crate::config::Rate;

/// Where a caller stands after a request; or a pool of the upstream's quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The policy's name: `client`, `subject`, `address` or `upstream`.
    pub policy: &'static str,
    pub rate: Rate,
    /// Requests that would pass at once.
    pub left: u32,
    /// Until all of them are back; with none left, until one is.
    pub reset: Duration,
}
