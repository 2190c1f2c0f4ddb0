//! One stored answer and how fresh it is.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use aws_lc_rs::digest;
use http::HeaderValue;

use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::phase::Phase;
use crate::routes::Key;

/// What an entry costs beside its body and its key: its own fields, moka's bookkeeping, the
/// allocator's rounding. Measured over 100,000 entries.
const OVERHEAD: usize = 600;

/// An answer, with what is needed to serve it again. The same for every caller.
#[derive(Debug)]
pub struct Entry {
    pub answer: Answer,
    /// Strong: there is one byte stream under it.
    pub etag: HeaderValue,
    pub phase: Phase,
    /// The bot that the body names as its own.
    pub bot: Option<String>,
    pub fetched_at: UnixMillis,
    pub lifetime: Lifetime,
}

/// For how long an entry may be served, from `fetched_at`. All zero for one that is not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lifetime {
    pub ttl: Duration,
    /// After `ttl`: at once, while one task fetches a new one (RFC 5861 §3).
    pub stale_while_revalidate: Duration,
    /// After `ttl`: only if the upstream fails (RFC 5861 §4).
    pub stale_if_error: Duration,
}

/// Where in its lifetime an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    Fresh {
        left: Duration,
    },
    /// Past its lifetime by `past`, but it may be served while a new one is fetched.
    Revalidating {
        past: Duration,
    },
    /// Past its lifetime by `past`: only instead of an error.
    OnlyIfError {
        past: Duration,
    },
    Gone,
}

impl Lifetime {
    /// Pure: where an entry fetched at `fetched_at` is at `now`. A clock that was set back makes
    /// nothing younger than new.
    pub fn at(&self, fetched_at: UnixMillis, now: UnixMillis) -> Freshness {
        let age = now.since(fetched_at);
        if age < self.ttl {
            return Freshness::Fresh { left: self.ttl.saturating_sub(age) };
        }
        let past = age.saturating_sub(self.ttl);
        if past < self.stale_while_revalidate {
            Freshness::Revalidating { past }
        } else if past < self.stale_if_error {
            Freshness::OnlyIfError { past }
        } else {
            Freshness::Gone
        }
    }

    /// From when it was fetched to when it is of no use at all.
    pub fn whole(&self) -> Duration {
        self.ttl.saturating_add(self.stale_while_revalidate.max(self.stale_if_error))
    }
}

impl Entry {
    pub fn freshness(&self, now: UnixMillis) -> Freshness {
        self.lifetime.at(self.fetched_at, now)
    }

    /// Whole seconds since it was fetched (RFC 9111 §5.1).
    pub fn age(&self, now: UnixMillis) -> u64 {
        now.since(self.fetched_at).as_secs()
    }

    /// Bytes it takes in the store. An entry is at most `max_body` and a key, so it fits.
    pub fn weight(&self, key: &Key) -> u32 {
        let bot = self.bot.as_ref().map_or(0, String::len);
        let bytes = self.answer.body.len() + key.as_bytes().len() + bot + OVERHEAD;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// The entity tag of a body: 128 bits of its SHA-256.
pub fn etag(body: &[u8]) -> HeaderValue {
    let digest = digest::digest(&digest::SHA256, body);
    let half = digest.as_ref().get(..16).unwrap_or_default();
    // Quotes and hexadecimal digits always make a header value.
    HeaderValue::try_from(format!("\"{}\"", hex::encode(half)))
        .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// `ttl` up to a tenth shorter or longer, the same for the same key and time: what was loaded at
/// once does not expire at once.
pub fn jittered(ttl: Duration, key: &Key, fetched_at: UnixMillis) -> Duration {
    let spread = BuildHasherDefault::<DefaultHasher>::default().hash_one((key, fetched_at.0)) % 2001;
    let factor = u32::try_from(9_000 + spread).unwrap_or(10_000);
    ttl.checked_mul(factor).map_or(ttl, |scaled| scaled / 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Lifetime = Lifetime {
        ttl: Duration::from_secs(10),
        stale_while_revalidate: Duration::from_secs(5),
        stale_if_error: Duration::from_secs(60),
    };

    #[test]
    fn a_life_goes_from_fresh_over_stale_to_gone() {
        let at = |seconds: i64| LIFETIME.at(UnixMillis(0), UnixMillis(seconds * 1000));
        let past = Duration::from_secs;
        assert_eq!(at(-1), Freshness::Fresh { left: past(10) });
        assert_eq!(at(0), Freshness::Fresh { left: past(10) });
        assert_eq!(at(9), Freshness::Fresh { left: past(1) });
        assert_eq!(at(10), Freshness::Revalidating { past: past(0) });
        assert_eq!(at(14), Freshness::Revalidating { past: past(4) });
        assert_eq!(at(15), Freshness::OnlyIfError { past: past(5) });
        assert_eq!(at(69), Freshness::OnlyIfError { past: past(59) });
        assert_eq!(at(70), Freshness::Gone);
    }

    #[test]
    fn what_has_no_lifetime_is_never_served() {
        assert_eq!(Lifetime::default().at(UnixMillis(0), UnixMillis(0)), Freshness::Gone);
    }
}
