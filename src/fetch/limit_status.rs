//! Where somebody stands against a limit: a client against its own, the upstream's callers against
//! its quota. What the `RateLimit` fields say.

use std::time::Duration;

use crate::config::Rate;

/// Where a caller stands after a request; or a pool of the upstream's quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitStatus {
    /// The policy's name: `client`, `subject`, `address` or `upstream`.
    pub policy: &'static str,
    pub rate: Rate,
    /// Requests that would pass at once.
    pub left: u32,
    /// Until all of them are back; with none left, until one is.
    pub reset: Duration,
}

/// Where a request stands against each limit that counts it, in the order of the fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitStatuses {
    /// The client's, or that of an address without a client.
    pub client: Option<LimitStatus>,
    pub subject: Option<LimitStatus>,
    pub upstream: Option<LimitStatus>,
}

impl LimitStatuses {
    pub fn iter(&self) -> impl Iterator<Item = &LimitStatus> {
        [&self.client, &self.subject, &self.upstream].into_iter().flatten()
    }
}

impl From<LimitStatus> for LimitStatuses {
    fn from(only: LimitStatus) -> Self {
        Self { client: Some(only), ..Self::default() }
    }
}
