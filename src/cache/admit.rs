//! Whether an answer may be kept, and for how long. Pure, but for the look into [`Seen`].

use std::time::Duration;

use super::entry::{Entry, Lifetime, etag, jittered};
use crate::answer::Answer;
use crate::clock::UnixMillis;
use crate::error::{Error, Kind};
use crate::phase::{Phase, Rule, Standing};
use crate::routes::{Misfit, Query};
use crate::seen::Seen;
use http::StatusCode;

/// Why an answer that callers get is not stored. The same word in `Cache-Status`, log, metric and
/// test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It goes on.
    Live,
    /// Over, but not for long enough, and `over_ttl` is zero.
    NotSettled,
    /// Nobody has said whether it is over.
    UnknownPhase,
    /// Not a 200.
    Status,
    /// A 200 that is not of the route's shape: an encrypted payload, an error envelope, a page.
    UnexpectedShape,
    /// Settled, but its lifetime is configured to be zero.
    ZeroLifetime,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::NotSettled => "not-settled",
            Self::UnknownPhase => "unknown-phase",
            Self::Status => "status",
            Self::UnexpectedShape => "unexpected-shape",
            Self::ZeroLifetime => "zero-lifetime",
        }
    }
}

/// An answer that callers get, and whether it is to be stored.
#[derive(Clone, Debug)]
pub struct Admitted {
    pub entry: std::sync::Arc<Entry>,
    pub stored: Result<(), Reason>,
}

/// Judges an answer to `query` that came at `now`. An error is an answer that nobody gets: a cut
/// one, or one about something else.
pub fn admit(
    query: &Query,
    rule: &Rule,
    seen: &Seen,
    answer: Answer,
    now: UnixMillis,
) -> Result<Admitted, Error> {
    if answer.status != StatusCode::OK {
        return Ok(unstored(answer, Phase::Unknown, None, now, Reason::Status));
    }
    let reading = match (query.route.read)(&query.asked, &answer.body) {
        Ok(reading) => reading,
        Err(Misfit::Shape) => {
            return Ok(unstored(answer, Phase::Unknown, None, now, Reason::UnexpectedShape));
        }
        Err(Misfit::Cut) => {
            return Err(Error::new(Kind::UpstreamInvalid, "the upstream's answer ends in the middle")
                .proxy_status("http_response_incomplete"));
        }
        Err(Misfit::Identity) => {
            return Err(Error::new(
                Kind::UpstreamInvalid,
                "the upstream's answer is about something else than was asked",
            ));
        }
    };
    let account = &query.account.id;
    let known = reading.known_by.iter().map(|(kind, id)| seen.phase(account, *kind, id));
    let phase = match reading.phase {
        Phase::Unknown => known.into_iter().find(|phase| *phase != Phase::Unknown).unwrap_or(Phase::Unknown),
        told => told,
    };
    seen.note(account, reading.sightings);

    let lifetime = rule.lifetime(phase, query.asked.with_summary(), now);
    if lifetime.ttl.is_zero() {
        let reason = match lifetime.standing {
            Standing::Live => Reason::Live,
            Standing::UnknownPhase => Reason::UnknownPhase,
            Standing::NotSettled => Reason::NotSettled,
            Standing::Settled => Reason::ZeroLifetime,
        };
        return Ok(unstored(answer, phase, reading.bot, now, reason));
    }
    // What is not over may have changed the moment after: it is never served past its lifetime.
    let is_over = matches!(phase, Phase::Over { .. });
    let stale = |allowed: Duration| if is_over { allowed } else { Duration::ZERO };
    let lifetime = Lifetime {
        ttl: jittered(lifetime.ttl, &query.key, now),
        stale_while_revalidate: stale(rule.stale_while_revalidate),
        stale_if_error: stale(rule.stale_if_error),
    };
    let entry = entry(answer, phase, reading.bot, now, lifetime);
    Ok(Admitted { entry: entry.into(), stored: Ok(()) })
}

fn unstored(answer: Answer, phase: Phase, bot: Option<String>, now: UnixMillis, reason: Reason) -> Admitted {
    let entry = entry(answer, phase, bot, now, Lifetime::default());
    Admitted { entry: entry.into(), stored: Err(reason) }
}

fn entry(answer: Answer, phase: Phase, bot: Option<String>, now: UnixMillis, lifetime: Lifetime) -> Entry {
    Entry { etag: etag(&answer.body), answer, phase, bot, fetched_at: now, lifetime }
}
