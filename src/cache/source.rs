//! What a request is served, and where that came from.

use std::sync::Arc;
use std::time::Duration;

use super::{Entry, Reason};
use crate::fetch::answer::Large;
use crate::lifecycle::phase::Phase;

/// On what terms a request takes an answer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Terms {
    /// What is stored will not do, but it is better than an error.
    pub revalidate: bool,
    /// What is fetched for this request alone is not stored.
    pub no_store: bool,
    /// No call is made for this request.
    pub only_stored: bool,
}

/// An answer for one caller.
#[derive(Debug)]
pub enum Served {
    Entry(Arc<Entry>, Source),
    /// Too large to be held: passed through, unread.
    Large(Large, Source),
}

/// Where an answer came from, in the terms of `Cache-Status` (RFC 9211).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The store, with this much of its lifetime left.
    Hit { left: Duration },
    /// The store, for a caller who does not learn how much of the lifetime is left. With the reason where it is past.
    Held { because: Option<StaleReason> },
    /// The store, past its lifetime by `past`.
    Stale { past: Duration, because: StaleReason },
    /// The upstream.
    Upstream {
        stored: Result<(), Reason>,
        /// By a call that another request had started.
        collapsed: bool,
        because: ForwardReason,
    },
}

impl Source {
    /// The same for a caller that is shown a part of the answer, whose phase by itself is `phase`: what the rest
    /// of it says is kept back.
    pub fn of_a_part(self, phase: Phase) -> Self {
        let (reason, collapsed, because) = match self {
            Self::Hit { .. } => return Self::Held { because: None },
            Self::Stale { because, .. } => return Self::Held { because: Some(because) },
            Self::Upstream { stored: Err(reason), collapsed, because } => (reason, collapsed, because),
            other => return other,
        };
        let is_about_phase =
            matches!(reason, Reason::Live | Reason::NotSettled | Reason::UnknownPhase | Reason::ZeroLifetime);
        let reason = match phase {
            _ if !is_about_phase => reason,
            Phase::Live => Reason::Live,
            Phase::Unknown => Reason::UnknownPhase,
            Phase::Closed { .. } => Reason::NotStored,
        };
        Self::Upstream { stored: Err(reason), collapsed, because }
    }
}

/// Why a request went to the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardReason {
    /// There was no entry.
    Miss,
    /// There was one, past its lifetime.
    Stale,
    /// There was one, but the caller wanted a new one.
    Request,
}

/// Why an answer past its lifetime was served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StaleReason {
    Revalidating,
    Error,
}

impl StaleReason {
    /// All of them, in their order.
    pub const ALL: [Self; 2] = [Self::Revalidating, Self::Error];

    /// The word for it in `Cache-Status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revalidating => "stale-while-revalidate",
            Self::Error => "stale-if-error",
        }
    }
}
