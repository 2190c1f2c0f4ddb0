//! What the end of a call means for everything that depends on it. One table has a row for each way in which a call
//! ends.

use http::StatusCode;

use crate::error::{Error, Kind};

/// How a call to the upstream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// With an answer of this status; a 200 counts here only if its answer is what was asked for.
    Status(StatusCode),
    /// With a 200 that is not of the route's shape: an encrypted payload, an error envelope, a page.
    Unreadable,
    /// With a 200 that does not prove that it is what was asked for.
    Unproven,
    /// There was no connection: the upstream has not seen the request.
    Unsent,
    /// A kept connection ended before the first byte of the answer.
    StaleConnection,
    /// The connection ended in the middle of the answer.
    Cut,
    TimedOut,
    /// The answer cannot be used: not HTTP, a redirect, another record, another account.
    Invalid,
    /// The upstream did not accept the gateway's credential.
    TokenRefused,
    /// The upstream said that its quota is used up.
    QuotaRefused,
    /// The gateway held the call back: no quota, an open breaker, no room.
    HeldBack,
    /// The gateway itself failed.
    Failed,
}

/// What follows from an ending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Consequences {
    /// The same call may succeed a moment later, so it is retried while the budget lasts. All calls only read, so a
    /// second one does no harm.
    pub is_retried: bool,
    /// It counts against the upstream's breaker. One bad record does not count, because it must not block the upstream
    /// for everybody.
    pub counts_for_breaker: bool,
    /// The next call for the same answer waits a little.
    pub backs_off: bool,
    /// It replaces the stored answer, or removes it. An error says nothing about what is stored.
    pub replaces_stored: bool,
    /// A stored answer past its lifetime is better (RFC 5861 §4).
    pub loses_to_stale: bool,
}

impl Ending {
    /// The table.
    pub const fn consequences(self) -> Consequences {
        const fn row(columns: [bool; 5]) -> Consequences {
            let [is_retried, counts_for_breaker, backs_off, replaces_stored, loses_to_stale] = columns;
            Consequences { is_retried, counts_for_breaker, backs_off, replaces_stored, loses_to_stale }
        }
        const YES: bool = true;
        const NO: bool = false;
        row(match self {
            //                                retried breaker back-off replaces loses to stale
            Self::Status(StatusCode::OK) => [NO, NO, NO, YES, NO],
            // "There is none": deleted, or never there. Any other refusal is about the request.
            Self::Status(StatusCode::NOT_FOUND | StatusCode::GONE) => [NO, NO, YES, YES, NO],
            Self::Status(
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT,
            ) => [YES, YES, YES, NO, YES],
            Self::Status(status) if status.as_u16() >= 500 => [NO, YES, YES, NO, YES],
            Self::Status(_) => [NO, NO, YES, NO, NO],
            // It looks like a success and is none: the page of a proxy, an error envelope.
            Self::Unreadable => [NO, NO, YES, NO, YES],
            Self::Unproven => [NO, NO, NO, NO, NO],
            Self::Unsent | Self::StaleConnection | Self::Cut => [YES, YES, YES, NO, YES],
            Self::TimedOut => [NO, YES, YES, NO, YES],
            Self::Invalid | Self::TokenRefused | Self::Failed => [NO, NO, YES, NO, YES],
            // The limit that held the call back says how long to wait, and there was no call to retry.
            Self::QuotaRefused | Self::HeldBack => [NO, NO, NO, NO, YES],
        })
    }
}

/// The ending of the call that caused this error, as far as its kind says.
impl From<&Error> for Ending {
    fn from(error: &Error) -> Self {
        match error.kind {
            Kind::TemporaryReducedCapacity => Self::HeldBack,
            Kind::UpstreamTimeout => Self::TimedOut,
            Kind::UpstreamUnreachable => Self::Unsent,
            Kind::UpstreamInvalid => Self::Invalid,
            Kind::UpstreamRefused => Self::TokenRefused,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Retried, counts for the breaker, backs off, replaces what is stored, loses to stale.
    fn row(ending: Ending) -> String {
        let Consequences { is_retried, counts_for_breaker, backs_off, replaces_stored, loses_to_stale } =
            ending.consequences();
        let columns = [is_retried, counts_for_breaker, backs_off, replaces_stored, loses_to_stale];
        columns.map(|column| if column { 'x' } else { '-' }).iter().collect()
    }

    #[test]
    fn every_way_in_which_a_call_ends_has_its_row() {
        let status = |code| Ending::Status(StatusCode::from_u16(code).expect("a status"));
        for (ending, expected) in [
            (status(200), "---x-"),
            (status(201), "--x--"),
            (status(400), "--x--"),
            (status(404), "--xx-"),
            (status(409), "--x--"),
            (status(410), "--xx-"),
            (status(412), "--x--"),
            (status(500), "-xx-x"),
            (status(501), "-xx-x"),
            (status(502), "xxx-x"),
            (status(503), "xxx-x"),
            (status(504), "xxx-x"),
            (Ending::Unreadable, "--x-x"),
            (Ending::Unproven, "-----"),
            (Ending::Unsent, "xxx-x"),
            (Ending::StaleConnection, "xxx-x"),
            (Ending::Cut, "xxx-x"),
            (Ending::TimedOut, "-xx-x"),
            (Ending::Invalid, "--x-x"),
            (Ending::TokenRefused, "--x-x"),
            (Ending::QuotaRefused, "----x"),
            (Ending::HeldBack, "----x"),
            (Ending::Failed, "--x-x"),
        ] {
            assert_eq!(row(ending), expected, "{ending:?}");
        }
    }
}
