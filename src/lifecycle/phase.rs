//! Where a conversation is in its life, and how long an answer about it may be kept.
//!
//! Pure: what a body says is read by the routes, the time is handed in.

use std::time::Duration;

use crate::clock::UnixMillis;

/// Whether what an answer is about can still change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It goes on.
    Live,
    /// It has ended, and nothing in the answer is later than `since`.
    Closed { since: UnixMillis },
    /// The answer does not say, and nothing that was seen before does. Treated as live.
    Unknown,
}

impl Phase {
    /// The phase of two things in one answer: closed only when both are.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Closed { since: a }, Self::Closed { since: b }) => Self::Closed { since: a.max(b) },
            (Self::Live, _) | (_, Self::Live) => Self::Live,
            _ => Self::Unknown,
        }
    }
}

/// One route's rule for how long its answers are kept (`[cache.<route>]`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Over for this long before it counts as settled: after-call work and surveys come late.
    pub settle: Duration,
    pub settled_ttl: Duration,
    /// Over, not yet settled.
    pub over_ttl: Duration,
    /// Not over. Zero: shared by those who ask at the same moment, never stored.
    pub live_ttl: Duration,
    /// For an answer with a summary about what is over, settled or not. A summary costs a call of a
    /// language model and is worded differently each time, so it may be kept for longer.
    pub summary_ttl: Option<Duration>,
    /// A 404's. Zero: not stored.
    pub not_found_ttl: Duration,
    pub stale_while_revalidate: Duration,
    pub stale_if_error: Duration,
}

/// What an answer has of a summary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Summary {
    NotAsked,
    There,
    /// It was asked for and did not come: the language model failed, or was not done.
    Missing,
}

/// What a rule makes of a phase: how long an answer is fresh, and the word for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ruling {
    /// Zero: not to be stored.
    pub ttl: Duration,
    pub rule_part: RulePart,
}

/// The part of the rule that set a lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RulePart {
    Live,
    UnknownPhase,
    NotSettled,
    Settled,
}

impl Rule {
    /// The phase of a window of time that ends at `end`, whatever is in it: rows can turn up late,
    /// so it is over only when it has been past for as long as it takes to settle.
    pub fn window(&self, end: UnixMillis, now: UnixMillis) -> Phase {
        if now < end.plus(self.settle) { Phase::Live } else { Phase::Closed { since: end } }
    }

    /// How long an answer in `phase` is fresh, asked at `now`.
    pub fn lifetime(&self, phase: Phase, summary: Summary, now: UnixMillis) -> Ruling {
        match phase {
            Phase::Live => Ruling { ttl: self.live_ttl, rule_part: RulePart::Live },
            Phase::Unknown => Ruling { ttl: self.live_ttl, rule_part: RulePart::UnknownPhase },
            // An end that is still to come is an end on another clock: not settled yet.
            Phase::Closed { since } => {
                let is_settled = since <= now && now.since(since) >= self.settle;
                let rule_part = if is_settled { RulePart::Settled } else { RulePart::NotSettled };
                let ttl = match (summary, self.summary_ttl) {
                    // What comes late is notes and surveys, which no transcript has; and a call of a
                    // language model is never spent twice for a conversation that is over.
                    (Summary::There, Some(summary_ttl)) if since <= now => summary_ttl,
                    (Summary::Missing, _) => self.over_ttl,
                    _ if is_settled => self.settled_ttl,
                    _ => self.over_ttl,
                };
                Ruling { ttl, rule_part }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        settle: Duration::from_secs(900),
        settled_ttl: Duration::from_secs(86_400),
        over_ttl: Duration::from_secs(30),
        live_ttl: Duration::ZERO,
        summary_ttl: Some(Duration::from_secs(7 * 86_400)),
        not_found_ttl: Duration::ZERO,
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
    };

    fn lifetime_after(seconds_over: i64) -> Ruling {
        let phase = Phase::Closed { since: UnixMillis(0) };
        RULE.lifetime(phase, Summary::NotAsked, UnixMillis(seconds_over * 1000))
    }

    #[test]
    fn over_is_not_settled_until_the_settle_time_has_passed() {
        assert_eq!(lifetime_after(0).rule_part, RulePart::NotSettled);
        assert_eq!(lifetime_after(899), Ruling { ttl: RULE.over_ttl, rule_part: RulePart::NotSettled });
        assert_eq!(lifetime_after(900), Ruling { ttl: RULE.settled_ttl, rule_part: RulePart::Settled });
    }

    #[test]
    fn a_window_is_live_until_it_has_been_past_for_the_settle_time() {
        let end = UnixMillis(1_000);
        assert_eq!(RULE.window(end, UnixMillis(0)), Phase::Live);
        assert_eq!(RULE.window(end, UnixMillis(900_999)), Phase::Live);
        assert_eq!(RULE.window(end, UnixMillis(901_000)), Phase::Closed { since: end });
    }

    #[test]
    fn an_end_in_the_future_is_not_settled() {
        assert_eq!(lifetime_after(-5).rule_part, RulePart::NotSettled);
        let unsettling = Rule { settle: Duration::ZERO, ..RULE };
        let phase = Phase::Closed { since: UnixMillis(1) };
        assert_eq!(
            unsettling.lifetime(phase, Summary::NotAsked, UnixMillis(0)).rule_part,
            RulePart::NotSettled
        );
    }

    #[test]
    fn what_is_live_or_unknown_gets_the_live_lifetime() {
        assert_eq!(RULE.lifetime(Phase::Live, Summary::NotAsked, UnixMillis(0)).ttl, Duration::ZERO);
        let unknown = RULE.lifetime(Phase::Unknown, Summary::There, UnixMillis(0));
        assert_eq!(unknown, Ruling { ttl: Duration::ZERO, rule_part: RulePart::UnknownPhase });
    }

    #[test]
    fn a_summary_of_what_is_over_has_a_lifetime_of_its_own_and_a_missing_one_a_short_one() {
        let over = Phase::Closed { since: UnixMillis(0) };
        let ttl = |summary, seconds: i64| RULE.lifetime(over, summary, UnixMillis(seconds * 1000)).ttl;
        for seconds in [1, 900] {
            assert_eq!(ttl(Summary::There, seconds), Duration::from_secs(7 * 86_400));
            assert_eq!(ttl(Summary::Missing, seconds), RULE.over_ttl);
        }
        assert_eq!(ttl(Summary::There, -1), RULE.over_ttl);
        assert_eq!(RULE.lifetime(Phase::Live, Summary::There, UnixMillis(0)).ttl, Duration::ZERO);
    }

    #[test]
    fn together_they_are_over_only_when_both_are_and_since_the_later_end() {
        let early = Phase::Closed { since: UnixMillis(1) };
        let late = Phase::Closed { since: UnixMillis(2) };
        assert_eq!(early.and(late), late);
        assert_eq!(early.and(Phase::Live), Phase::Live);
        assert_eq!(Phase::Unknown.and(Phase::Live), Phase::Live);
        assert_eq!(early.and(Phase::Unknown), Phase::Unknown);
    }
}
