//! What is to be made of a request, by what the store has for it.

use super::{Because, Forwarded, Freshness, Source};

/// Pure; [`Cache::get_or_fill`](super::Cache::get_or_fill) does it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prospect {
    /// What is stored is the answer. With `refresh`, a new one is fetched behind it.
    Serve { source: Source, refresh: bool },
    /// The upstream is asked. What is stored is better than an error, where there is something.
    Fetch { because: Forwarded, fallback: Option<Source> },
}

/// `freshness` is of the entry, if there is one; `anew` that its caller does not want it;
/// `is_backing_off` that the last call for it has just failed.
pub fn prospect(freshness: Option<Freshness>, anew: bool, is_backing_off: impl FnOnce() -> bool) -> Prospect {
    match freshness {
        Some(Freshness::Fresh { left }) => {
            let source = Source::Hit { left };
            if !anew || is_backing_off() {
                return Prospect::Serve { source, refresh: false };
            }
            Prospect::Fetch { because: Forwarded::Request, fallback: Some(source) }
        }
        Some(Freshness::Revalidating { past }) if !anew => Prospect::Serve {
            source: Source::Stale { past, because: Because::Revalidating },
            refresh: !is_backing_off(),
        },
        Some(Freshness::OnlyIfError { past } | Freshness::Revalidating { past }) => {
            let source = Source::Stale { past, because: Because::Error };
            if is_backing_off() {
                return Prospect::Serve { source, refresh: false };
            }
            let because = if anew { Forwarded::Request } else { Forwarded::Stale };
            Prospect::Fetch { because, fallback: Some(source) }
        }
        Some(Freshness::Gone) | None => Prospect::Fetch { because: Forwarded::Miss, fallback: None },
    }
}
