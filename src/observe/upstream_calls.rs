//! Notes the calls to the upstream that one request sets off, for its access line. A request that joins another one's
//! call has none.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::calls::CallsMade;

#[derive(Debug, Default)]
pub struct UpstreamCalls(Mutex<Option<CallsMade>>);

impl UpstreamCalls {
    /// A call to `base_url` has ended. Returns how many there were before it.
    pub fn note(&self, base_url: &str, took: Duration) -> u32 {
        let mut made = self.locked();
        let (before, took_before) =
            made.as_ref().map_or_else(Default::default, |made| (made.count, made.took));
        *made = Some(CallsMade {
            host: host(base_url).into(),
            count: before.saturating_add(1),
            took: took_before + took,
        });
        before
    }

    /// The calls so far; `None` if there were none.
    pub fn made(&self) -> Option<CallsMade> {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Option<CallsMade>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the scheme, and without a path that may be the operator's secret.
fn host(base_url: &str) -> &str {
    let rest = base_url.split_once("://").map_or(base_url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_and_their_times_added() {
        let calls = UpstreamCalls::default();
        assert_eq!(calls.made(), None);
        assert_eq!(calls.note("https://first.example/secret", Duration::from_millis(5)), 0);
        assert_eq!(calls.note("http://127.0.0.1:81", Duration::from_millis(7)), 1);
        let made = calls.made().expect("two");
        assert_eq!((&*made.host, made.count, made.took), ("127.0.0.1:81", 2, Duration::from_millis(12)));
        assert_eq!(host("https://first.example/secret"), "first.example");
    }
}
