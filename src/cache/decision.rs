//! What is to be made of a request, by what the store has for it.

use super::{ForwardReason, Freshness, Source, StaleReason};

/// Pure; [`Cache::get_or_fill`](super::Cache::get_or_fill) does it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// What is stored is the answer. With `refresh`, a new one is fetched behind it.
    Serve { source: Source, refresh: bool },
    /// The upstream is asked. What is stored is better than an error, where there is something.
    Fetch { because: ForwardReason, fallback: Option<Source> },
}

/// `freshness` is of the entry, if there is one; `revalidate` that its caller does not want it;
/// `is_backing_off` that the last call for it has just failed.
pub fn decide(
    freshness: Option<Freshness>,
    revalidate: bool,
    is_backing_off: impl FnOnce() -> bool,
) -> Decision {
    match freshness {
        Some(Freshness::Fresh { left }) => {
            let source = Source::Hit { left };
            if !revalidate || is_backing_off() {
                return Decision::Serve { source, refresh: false };
            }
            Decision::Fetch { because: ForwardReason::Request, fallback: Some(source) }
        }
        Some(Freshness::Revalidating { past }) if !revalidate => Decision::Serve {
            source: Source::Stale { past, because: StaleReason::Revalidating },
            refresh: !is_backing_off(),
        },
        Some(Freshness::OnlyIfError { past } | Freshness::Revalidating { past }) => {
            let source = Source::Stale { past, because: StaleReason::Error };
            if is_backing_off() {
                return Decision::Serve { source, refresh: false };
            }
            let because = if revalidate { ForwardReason::Request } else { ForwardReason::Stale };
            Decision::Fetch { because, fallback: Some(source) }
        }
        Some(Freshness::Gone) | None => Decision::Fetch { because: ForwardReason::Miss, fallback: None },
    }
}
