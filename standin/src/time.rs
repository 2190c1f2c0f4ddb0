//! The vendor's two ways to write a time.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

const MINUTE_MS: i64 = 60_000;

/// UTC with milliseconds and `Z`: E1, E3.
pub(super) fn utc(ms: i64) -> String {
    timestamp(ms).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Naive, as clocks show it where `offset` holds (minutes, east negative): E2.
pub(super) fn naive(ms: i64, offset: i64) -> String {
    let local = timestamp(ms - offset * MINUTE_MS);
    local.strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// `Date` (RFC 9110 §5.6.7).
pub(super) fn http_date(ms: i64) -> String {
    timestamp(ms).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A date of a request, naive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// `yyyy-mm-dd HH:mm:ss`.
    Moment(DateTime),
    /// `yyyy-mm-dd`.
    Day(Date),
}

impl Written {
    /// Exactly one of the two spellings, or `None`.
    pub(super) fn parse(text: &str) -> Option<Written> {
        let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        match shape.as_str() {
            "0000-00-00 00:00:00" => DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok().map(Written::Moment),
            "0000-00-00" => Date::strptime("%Y-%m-%d", text).ok().map(Written::Day),
            _ => None,
        }
    }

    /// Where it begins, in Unix milliseconds, read with this offset.
    pub(super) fn begin_ms(self, offset: i64) -> i64 {
        let naive = match self {
            Written::Moment(moment) => moment,
            Written::Day(day) => day.to_datetime(Time::midnight()),
        };
        let as_if_utc = naive.to_zoned(TimeZone::UTC).map_or(0, |zoned| zoned.timestamp().as_millisecond());
        as_if_utc + offset * MINUTE_MS
    }
}
