//! Rolling windows: how often a pool may be called (contract §1).

use std::collections::{HashMap, VecDeque};
use std::fmt;

use super::Pool;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

/// When each pool was called during the last hour.
///
/// A refused call counts like any other, so hammering a full window never empties it: the
/// vendor does not say, and this is the reading that forgives least.
#[derive(Default)]
pub(super) struct Quota(HashMap<Pool, VecDeque<i64>>);

/// What a pool may spend in a rolling window.
pub(super) struct Limit {
    pub(super) window_ms: i64,
    pub(super) calls: usize,
}

impl Limit {
    pub(super) fn per_minute(calls: usize) -> Limit {
        Limit { window_ms: MINUTE_MS, calls }
    }

    pub(super) fn per_hour(calls: usize) -> Limit {
        Limit { window_ms: HOUR_MS, calls }
    }
}

/// A call beyond a limit.
#[derive(Clone, Debug)]
pub(super) struct Excess {
    pool: Pool,
    window_ms: i64,
    /// How many calls the window now holds, this one included.
    nth: usize,
    retry_after_ms: i64,
}

impl Quota {
    /// Counts a call and tells whether it broke one of the limits.
    pub(super) fn count(&mut self, pool: &Pool, limits: &[Limit], now_ms: i64) -> Option<Excess> {
        let calls = self.0.entry(pool.clone()).or_default();
        calls.push_back(now_ms);
        while calls.front().is_some_and(|&at| at <= now_ms - HOUR_MS) {
            calls.pop_front();
        }
        limits
            .iter()
            .filter_map(|limit| excess(pool, calls, limit, now_ms))
            .max_by_key(|excess| excess.retry_after_ms)
    }

    pub(super) fn reset(&mut self) {
        self.0.clear();
    }
}

fn excess(pool: &Pool, calls: &VecDeque<i64>, limit: &Limit, now_ms: i64) -> Option<Excess> {
    let nth = calls.iter().rev().take_while(|&&at| at > now_ms - limit.window_ms).count();
    if nth <= limit.calls {
        return None;
    }
    // The next call fits once fewer than `limit.calls` are left in the window.
    let must_leave = calls.len() - limit.calls.max(1);
    Some(Excess {
        pool: pool.clone(),
        window_ms: limit.window_ms,
        nth,
        retry_after_ms: calls[must_leave] + limit.window_ms - now_ms,
    })
}

impl Excess {
    /// The vendor's sentence for this window.
    pub(super) fn message(&self) -> &'static str {
        if self.window_ms == MINUTE_MS {
            "You've exceeded the per-minute rate limit. Please wait for sometime before retrying."
        } else {
            "You've exceeded the hourly rate limit. Please wait for sometime before retrying."
        }
    }

    /// Whole seconds until a call would be let through, if none comes before; at least 1.
    pub(super) fn retry_after_seconds(&self) -> i64 {
        (self.retry_after_ms + 999) / 1_000
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nth, seconds, pool) = (self.nth, self.window_ms / 1_000, &self.pool);
        write!(out, "call {nth} within {seconds} s of {pool}")
    }
}
