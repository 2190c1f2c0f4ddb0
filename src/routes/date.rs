//! Dates and windows of `interaction_details`.
//!
//! The contract has two spellings, `yyyy-mm-dd HH:mm:ss` and `yyyy-mm-dd`, both naive, in the zone
//! that `timeZoneOffset` names. A date alone as the end of a window means the whole day.

use std::fmt::{self, Write};
use std::ops::RangeInclusive;

use jiff::civil::{self, DateTime};
use jiff::{SignedDuration, tz::Offset};

use crate::clock::UnixMillis;

/// The longest window the upstream serves.
pub const LONGEST_WINDOW: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Years in which there can be a conversation. Their edges are far enough from the calendar's that no
/// sum leaves it.
const YEARS: RangeInclusive<i16> = 1970..=2999;

/// The days of [`YEARS`] and the times of a day, as expressions of JSON Schema.
const DAY: &str = "((19[7-9][0-9]|2[0-9]{3})-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])\
    |(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))\
    |(19(7[26]|8[048]|9[26])|2[0-9](0[48]|[2468][048]|[13579][26])|2[048]00)-02-29)";
const TIME: &str = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]";

/// What [`Date::parse`] takes, as an expression.
pub fn pattern() -> String {
    format!("^{DAY}( {TIME})?$")
}

/// What [`moment`] takes, as an expression.
pub fn pattern_of_moments() -> String {
    format!(r"^{DAY}( {TIME}|T{TIME}(\.[0-9]{{1,9}})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))?$")
}

/// A date in UTC or a time of RFC 3339, for comparison only: what was spelled goes upstream.
pub fn moment(text: &str) -> Option<UnixMillis> {
    if let Some(date) = Date::parse(text) {
        return to_utc(date.start(), 0);
    }
    let (day, time) = text.split_once('T')?;
    let (clock, rest) = time.split_at_checked(8)?;
    Date::parse(&format!("{day} {clock}"))?;
    let zone = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            fraction.get(digits..).filter(|_| (1..=9).contains(&digits))?
        }
    };
    let is_zone = match zone.as_bytes() {
        b"Z" => true,
        [b'+' | b'-', hours @ .., b':', minutes @ b'0'..=b'5', last] => {
            matches!(hours, [b'0' | b'1', b'0'..=b'9'] | [b'2', b'0'..=b'3'])
                && minutes.is_ascii_digit()
                && last.is_ascii_digit()
        }
        _ => false,
    };
    utc(text).filter(|_| is_zone)
}

/// A date as the contract spells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Date {
    Day(civil::Date),
    Moment(DateTime),
}

impl Date {
    /// Either spelling, to the letter. A day or a time that does not exist is none.
    pub fn parse(text: &str) -> Option<Self> {
        let date = match text.len() {
            10 => Self::Day(text.parse().ok()?),
            19 => Self::Moment(text.parse().ok()?),
            _ => return None,
        };
        // The parser is more liberal than the contract (`T`, leap seconds): what does not come out
        // as it went in was spelled in another way.
        let mut rest = Rest(text);
        let is_as_written = write!(rest, "{date}").is_ok() && rest.0.is_empty();
        (is_as_written && YEARS.contains(&date.start().year())).then_some(date)
    }

    /// Its first moment.
    pub fn start(self) -> DateTime {
        match self {
            Self::Day(day) => day.to_datetime(civil::Time::midnight()),
            Self::Moment(moment) => moment,
        }
    }

    /// Where a window that ends with it ends: the midnight after a day.
    pub fn end(self) -> DateTime {
        match self {
            Self::Day(day) => day.tomorrow().unwrap_or(day).to_datetime(civil::Time::midnight()),
            Self::Moment(moment) => moment,
        }
    }
}

/// What is left of a text when what is written has been taken off its start; writing anything else fails.
struct Rest<'a>(&'a str);

impl Write for Rest<'_> {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(written).ok_or(fmt::Error)?;
        Ok(())
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(day) => day.fmt(f),
            Self::Moment(moment) => write!(f, "{} {}", moment.date(), moment.time()),
        }
    }
}

/// A window from `start` to `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    pub start: Date,
    pub end: Date,
}

/// Why a window is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    EndsBeforeItStarts,
    /// With the last end that would do, in the spelling of the end that was sent.
    TooLong {
        length: SignedDuration,
        last_end: Date,
    },
}

impl Window {
    /// Checks the order, and the seven days: exactly seven pass, one second more does not.
    pub fn check(self) -> Result<(), Refused> {
        let (start, end) = (self.start.start(), self.end.end());
        let length = end.duration_since(start);
        let is_earlier_day = matches!(self.end, Date::Day(day) if day < start.date());
        if length.is_negative() || is_earlier_day {
            return Err(Refused::EndsBeforeItStarts);
        }
        if length > LONGEST_WINDOW {
            let last = start.saturating_add(LONGEST_WINDOW);
            let last_end = match self.end {
                // The last day that is over by then.
                Date::Day(_) => Date::Day(last.date().yesterday().unwrap_or(last.date())),
                Date::Moment(_) => Date::Moment(last),
            };
            return Err(Refused::TooLong { length, last_end });
        }
        Ok(())
    }

    /// The one spelling of its start: a midnight takes the spelling of the end, so that the two are
    /// spelled alike wherever they can be. The end stays as it is: whether the upstream's
    /// `23:59:59` covers the day's last second, nobody has said.
    pub fn canonical(self) -> Self {
        let midnight = self.start.start().time() == civil::Time::midnight();
        let start = match self.end {
            Date::Day(_) if midnight => Date::Day(self.start.start().date()),
            _ => Date::Moment(self.start.start()),
        };
        Self { start, ..self }
    }
}

/// A naive time of a zone `offset_minutes` west of UTC (JavaScript's sign), in UTC.
pub fn to_utc(local: DateTime, offset_minutes: i32) -> Option<UnixMillis> {
    let east = Offset::from_seconds(offset_minutes.checked_mul(-60)?).ok()?;
    Some(UnixMillis(east.to_timestamp(local).ok()?.as_millisecond()))
}

/// A time of an answer: `2025-09-30T12:38:06` (naive, in the zone asked for) or with a `Z`.
pub fn row_time(text: &str, offset_minutes: i32) -> Option<UnixMillis> {
    match utc(text) {
        Some(time) => Some(time),
        None => to_utc(text.parse().ok()?, offset_minutes),
    }
}

/// A time of an answer that is in UTC and says so.
pub fn utc(text: &str) -> Option<UnixMillis> {
    text.parse::<jiff::Timestamp>().ok().map(|time| UnixMillis(time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use proptest::string::string_regex;
    use regex::Regex;

    use super::*;
    use crate::cases::with_cases;

    static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new(&pattern()).expect("an expression"));
    static MOMENTS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(&pattern_of_moments()).expect("an expression"));

    fn window(start: &str, end: &str) -> Window {
        Window { start: Date::parse(start).expect("a start"), end: Date::parse(end).expect("an end") }
    }

    #[test]
    fn both_spellings_are_read_and_nothing_else() {
        for right in ["2026-02-16", "2024-02-29", "2026-02-16 00:00:00", "2026-12-31 23:59:59"] {
            assert!(Date::parse(right).is_some(), "{right}");
        }
        for wrong in [
            "2026-2-16",
            "2026-02-30",
            "2023-02-29",
            "2026-02-16T00:00:00",
            "2026-02-16 24:00:00",
            "2026-02-16 23:59:60",
            "2026-02-16 00:00",
            "16-02-2026",
            "2026-02-16 00:00:00Z",
            "",
            "20260216",
            "-00001-1-1",
            " 026-02-16",
            "0000-09-12",
            "0001-01-01 00:00:00",
            "1969-12-31",
            "3000-01-01",
            "9999-12-31",
        ] {
            assert!(Date::parse(wrong).is_none(), "{wrong}");
        }
    }

    /// Likes of dates: some are, and some are nearly.
    fn likes() -> impl Strategy<Value = String> {
        let day = "(19[67][0-9]|2[0-9]{3}|[03][0-9]{3})-[01][0-9]-[0-3][0-9]";
        let time = "[ T][0-2][0-9]:[0-6][0-9]:[0-6][0-9]";
        let zone = r"([.][0-9]{0,11})?(Z|z|[+-][0-3][0-9]:?[0-6][0-9]|\[UTC\])?";
        string_regex(&format!("{day}({time}({zone})?)?")).expect("an expression")
    }

    proptest! {
        #![proptest_config(with_cases(5_000))]

        /// The document refuses exactly what the parser refuses.
        #[test]
        fn a_text_matches_the_documents_pattern_exactly_if_it_is_read(
            text in prop_oneof![
                likes(),
                string_regex(pattern().trim_matches(['^', '$'])).expect("an expression"),
                string_regex(pattern_of_moments().trim_matches(['^', '$'])).expect("an expression"),
            ]
        ) {
            prop_assert_eq!(PATTERN.is_match(&text), Date::parse(&text).is_some(), "{}", text);
            prop_assert_eq!(MOMENTS.is_match(&text), moment(&text).is_some(), "{}", text);
        }
    }

    #[test]
    fn every_day_of_every_year_matches_the_pattern_exactly_if_it_exists() {
        for (year, month, day) in (1960..3010).flat_map(|year| {
            (0..=13).flat_map(move |month| [0, 1, 28, 29, 30, 31, 32].map(move |day| (year, month, day)))
        }) {
            let text = format!("{year:04}-{month:02}-{day:02}");
            assert_eq!(PATTERN.is_match(&text), Date::parse(&text).is_some(), "{text}");
        }
    }

    #[test]
    fn seven_inclusive_dates_pass_and_eight_do_not() {
        assert_eq!(window("2026-02-16", "2026-02-22").check(), Ok(()));
        let Err(Refused::TooLong { last_end, .. }) = window("2026-02-16", "2026-02-23").check() else {
            panic!("eight days passed")
        };
        assert_eq!(last_end.to_string(), "2026-02-22");
    }

    #[test]
    fn exactly_seven_days_pass_and_one_second_more_does_not() {
        assert_eq!(window("2026-02-16 10:00:00", "2026-02-23 10:00:00").check(), Ok(()));
        let Err(Refused::TooLong { last_end, .. }) =
            window("2026-02-16 10:00:00", "2026-02-23 10:00:01").check()
        else {
            panic!("a second too many passed")
        };
        assert_eq!(last_end.to_string(), "2026-02-23 10:00:00");
    }

    #[test]
    fn a_day_as_the_end_covers_the_whole_day() {
        assert_eq!(window("2026-02-16 00:00:00", "2026-02-22").check(), Ok(()));
        assert!(window("2026-02-16 00:00:01", "2026-02-23").check().is_err());
        assert_eq!(window("2026-02-16 00:00:01", "2026-02-22").check(), Ok(()));
        assert_eq!(window("2026-02-16", "2026-02-16").check(), Ok(()));
        assert_eq!(window("2026-02-16 23:00:00", "2026-02-16").check(), Ok(()));
    }

    #[test]
    fn an_end_before_the_start_is_refused() {
        assert_eq!(window("2026-02-16", "2026-02-15 23:59:59").check(), Err(Refused::EndsBeforeItStarts));
        assert_eq!(window("2026-02-16", "2026-02-15").check(), Err(Refused::EndsBeforeItStarts));
        assert_eq!(window("2026-02-16", "2026-02-16 00:00:00").check(), Ok(()));
    }

    #[test]
    fn a_midnight_start_takes_the_spelling_of_the_end() {
        let spelled = |start, end| window(start, end).canonical().start.to_string();
        assert_eq!(spelled("2026-02-16 00:00:00", "2026-02-17"), "2026-02-16");
        assert_eq!(spelled("2026-02-16", "2026-02-17 01:00:00"), "2026-02-16 00:00:00");
        assert_eq!(spelled("2026-02-16 00:00:01", "2026-02-17"), "2026-02-16 00:00:01");
    }

    #[test]
    fn the_offset_has_javascripts_sign() {
        let midnight = Date::parse("2026-02-16").expect("a date").start();
        let utc = to_utc(midnight, 0).expect("in range");
        assert_eq!(to_utc(midnight, -330), Some(UnixMillis(utc.0 - 330 * 60_000)));
        assert_eq!(row_time("2026-02-16T00:00:00", 300), Some(UnixMillis(utc.0 + 300 * 60_000)));
        assert_eq!(row_time("2026-02-16T00:00:00.000Z", 300), Some(utc));
    }
}
