//! One stored answer and how fresh it is.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use super::group::Group;
use super::index::MEMBERSHIP;
use super::variants::Variants;
use crate::clock::Moment;
use crate::digest;
use crate::fetch::answer::Answer;
use crate::lifecycle::phase::{Phase, RulePart};
use crate::routes::Key;

/// What an entry costs beside its body, its key and its memberships: its own fields, moka's
/// bookkeeping, the allocator's rounding. Measured by tests/memory.rs.
const OVERHEAD: usize = 900;

/// An answer, with what is needed to serve it again. The same for every caller. As it is written: what a
/// hit reads comes first and together, for it comes line by line from memory that nobody has read for long.
#[derive(Debug)]
#[repr(C)]
pub struct Entry {
    pub answer: Answer,
    /// Of the body's bytes.
    pub tag: Tag,
    /// A 200 that could not be read: an encrypted payload, a page.
    pub is_opaque: bool,
    /// Where the phase comes from.
    pub phase_source: PhaseSource,
    /// The part of the rule that set the lifetime; none where no rule was asked.
    pub rule_part: Option<RulePart>,
    pub phase: Phase,
    pub lifetime: Lifetime,
    /// The body in other codings, as far as callers have asked for them.
    pub variants: Variants<Self>,
    /// The bots that the body names; of a transcript, those that other answers have named.
    pub bots: Box<[Box<str>]>,
    /// What it is about.
    pub groups: Arc<[Group]>,
}

/// There are as many as there are answers stored: with an [`Arc`]'s counts, one block of 224 bytes.
const _: () = assert!(size_of::<Entry>() <= 208);

/// Where an entry's phase comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PhaseSource {
    /// Its own body says it.
    OwnBody,
    /// Other answers said it.
    OtherAnswers,
}

/// 128 bits of a body's BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag(pub [u8; 16]);

impl Tag {
    pub fn of(body: &[u8]) -> Self {
        Self(digest::short(body))
    }
}

/// For how long an entry may be served, from `asked_at`. All zero for one that is not stored.
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
    /// Pure: where an entry of that age is.
    pub fn at(&self, age: Duration) -> Freshness {
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

    /// From when it was asked for to when it is of no use at all.
    pub fn whole(&self) -> Duration {
        self.ttl.saturating_add(self.stale_while_revalidate.max(self.stale_if_error))
    }
}

impl Entry {
    pub fn freshness(&self, now: Moment) -> Freshness {
        self.lifetime.at(now.since(self.answer.asked_at))
    }

    /// Whole seconds since it was asked for (RFC 9111 §5.1, §4.2.3).
    pub fn age(&self, now: Moment) -> u64 {
        now.since(self.answer.asked_at).as_secs()
    }

    /// Whether it was read as what was asked for. What was not may be about anybody, and hold anything.
    pub fn is_read(&self) -> bool {
        self.rule_part.is_some() && !self.is_opaque
    }

    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }

    /// Whether a sighting as live, in an answer asked for at `live_at`, makes this one void.
    pub fn is_voided_by_life_at(&self, live_at: Moment) -> bool {
        self.is_over()
            && (self.phase_source == PhaseSource::OtherAnswers || !self.answer.asked_at.is_after(live_at))
    }

    /// Bytes it takes in the store.
    pub fn weight(&self, key: &Key) -> u32 {
        let bots: usize = self.bots.iter().map(|bot| size_of_val(bot) + bot.len()).sum();
        let indexed = self.groups.iter().filter(|group| group.is_indexed()).count();
        let groups = size_of_val(&*self.groups) + indexed * MEMBERSHIP;
        let bodies = self.answer.body.len() + self.variants.len();
        let bytes = bodies + key.as_bytes().len() + bots + groups + OVERHEAD;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// Parts of ten thousand by which a lifetime is shortened at most.
const MOST_JITTER: u32 = 1_000;

/// `ttl` shortened by up to a tenth, by the same amount for the same key and time: what was loaded at once
/// does not expire at once. It is never longer than configured.
pub fn jittered(ttl: Duration, key: &Key, asked_at: Moment) -> Duration {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((key, asked_at.wall.0));
    let shortened_by = u32::try_from(hash % u64::from(MOST_JITTER + 1)).unwrap_or(0);
    // Divided first, so that no `ttl` is too long to be multiplied.
    ttl.saturating_sub(ttl / 10_000 * shortened_by)
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
        let at = |seconds| LIFETIME.at(Duration::from_secs(seconds));
        let past = Duration::from_secs;
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
        assert_eq!(Lifetime::default().at(Duration::ZERO), Freshness::Gone);
    }
}
