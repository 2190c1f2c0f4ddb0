//! JSON values of a request whose numbers keep every digit.
//!
//! A number is never a float in between: what does not fit an integer is kept as its decimal text,
//! in one spelling.

use std::collections::BTreeMap;
use std::fmt;

/// A JSON value. Members are sorted by code point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Self>),
    Object(Members),
}

/// The members of an object.
pub type Members = BTreeMap<String, Value>;

/// A number in its canonical spelling.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Number {
    /// Not negative.
    Positive(u64),
    Negative(i64),
    /// Any other.
    Decimal(Box<str>),
}

/// From how many digits in front of the point on, and from how many zeros behind it on, a number is written
/// with an exponent (as ECMAScript does).
const MOST_DIGITS: i64 = 21;
const MOST_ZEROS: i64 = 6;

impl Number {
    /// Reads a number as JSON spells it. Equal numbers are equal, however they are spelled. `None` where
    /// the exponent is beyond 18 digits.
    pub fn from_json(text: &str) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let digits = all.trim_start_matches('0').trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self::Positive(0));
        }
        let trailing = all.len() - all.trim_end_matches('0').len();
        let exponent: i64 = exponent.parse().ok().filter(|exponent: &i64| exponent.abs() < 10_i64.pow(18))?;
        let shift = exponent + i64::try_from(trailing).ok()? - i64::try_from(fraction.len()).ok()?;
        let text = spelled(is_negative, digits, shift)?;
        Some(match (text.parse(), text.parse()) {
            (Ok(number), _) => Self::Positive(number),
            (_, Ok(number)) => Self::Negative(number),
            _ => Self::Decimal(text.into()),
        })
    }
}

/// The number `digits` × 10^`shift`; the digits neither begin nor end with a zero.
fn spelled(is_negative: bool, digits: &str, shift: i64) -> Option<String> {
    let sign = if is_negative { "-" } else { "" };
    let length = i64::try_from(digits.len()).ok()?;
    // Where the point is, counted from the first digit.
    let point = length + shift;
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
    if shift >= 0 && point <= MOST_DIGITS {
        return Some(format!("{sign}{digits}{}", zeros(shift)));
    }
    if shift < 0 && point > 0 {
        let (whole, fraction) = digits.split_at_checked(usize::try_from(point).ok()?)?;
        return Some(format!("{sign}{whole}.{fraction}"));
    }
    if shift < 0 && point > -MOST_ZEROS {
        return Some(format!("{sign}0.{}{digits}", zeros(-point)));
    }
    let (first, rest) = digits.split_at_checked(1)?;
    let dot = if rest.is_empty() { "" } else { "." };
    Some(format!("{sign}{first}{dot}{rest}e{}", point - 1))
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Positive(number) => number.fmt(f),
            Self::Negative(number) => number.fmt(f),
            Self::Decimal(text) => f.write_str(text),
        }
    }
}

impl Value {
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(Number::Positive(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(Number::Positive(number)) => i64::try_from(*number).ok(),
            Self::Number(Number::Negative(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(Number::Positive(number))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

/// Writes members without white space, each string and each number in its one spelling.
pub fn write_members(members: &Members, json: &mut String) {
    json.push('{');
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write_string(name, json);
        json.push(':');
        write(value, json);
    }
    json.push('}');
}

fn write(value: &Value, json: &mut String) {
    match value {
        Value::Null => json.push_str("null"),
        Value::Bool(flag) => json.push_str(if *flag { "true" } else { "false" }),
        Value::Number(Number::Positive(number)) => json.push_str(itoa::Buffer::new().format(*number)),
        Value::Number(Number::Negative(number)) => json.push_str(itoa::Buffer::new().format(*number)),
        Value::Number(Number::Decimal(text)) => json.push_str(text),
        Value::String(text) => write_string(text, json),
        Value::List(items) => {
            json.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write(item, json);
            }
            json.push(']');
        }
        Value::Object(members) => write_members(members, json),
    }
}

fn write_string(text: &str, json: &mut String) {
    // Most need no escape; the others are left to the library.
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        // Cannot fail: it is a string that goes into a string.
        json.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

/// The numbers of a JSON text in their order, as they are spelled in it. Of a text that is no JSON it
/// gives something, and ends.
pub struct Spellings<'a> {
    rest: &'a [u8],
}

impl<'a> Spellings<'a> {
    pub fn of(text: &'a [u8]) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for Spellings<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            let start = self.rest.iter().position(|byte| matches!(byte, b'"' | b'-' | b'0'..=b'9'))?;
            let found = self.rest.get(start..)?;
            if found.first() == Some(&b'"') {
                self.rest = after_string(found.get(1..)?)?;
                continue;
            }
            let is_of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
            let end = found.iter().position(|byte| !is_of_number(byte)).unwrap_or(found.len());
            let (number, rest) = found.split_at_checked(end)?;
            self.rest = rest;
            return std::str::from_utf8(number).ok();
        }
    }
}

/// What stands behind a string of which the first quote has been read.
fn after_string(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        let at = memchr::memchr2(b'"', b'\\', text)?;
        if text.get(at) == Some(&b'"') {
            return text.get(at + 1..);
        }
        text = text.get(at + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cases::with_cases;

    fn canonical(text: &str) -> String {
        Number::from_json(text).expect("a number").to_string()
    }

    #[test]
    fn a_number_has_one_spelling_and_every_digit() {
        for (spelled, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0e7", "0"),
            ("1.0", "1"),
            ("1e2", "100"),
            ("100e-2", "1"),
            ("-330.0", "-330"),
            ("0.10", "0.1"),
            ("1.5E+3", "1500"),
            ("12.5e-1", "1.25"),
            ("0.000001", "0.000001"),
            ("0.0000001", "1e-7"),
            ("12e-9", "1.2e-8"),
            ("18446744073709551615", "18446744073709551615"),
            ("18446744073709551616", "18446744073709551616"),
            ("-9223372036854775809", "-9223372036854775809"),
            ("100000000000000000000000000000000000000001", "1.00000000000000000000000000000000000000001e41"),
            ("1e21", "1e21"),
            ("1e300", "1e300"),
            ("1e-999", "1e-999"),
            ("1.02222222222222222222222222222", "1.02222222222222222222222222222"),
            ("9007199254740993", "9007199254740993"),
            ("9007199254740993.0", "9007199254740993"),
        ] {
            assert_eq!(canonical(spelled), expected, "{spelled}");
            assert_eq!(canonical(expected), expected);
        }
        assert_eq!(Number::from_json("1e-99999999999999999999"), None);
    }

    #[test]
    fn spellings_are_found_between_strings_words_and_brackets() {
        let text = br#"{"a1\"2":[-1.50e+3,true,{"\\":0}],"x":"3","y":12}"#;
        assert_eq!(Spellings::of(text).collect::<Vec<_>>(), ["-1.50e+3", "0", "12"]);
        assert_eq!(Spellings::of(br#"{"a"#).next(), None);
        assert_eq!(Spellings::of(br#""a\"#).next(), None);
    }

    /// Digits and the place of the point, spelled with an exponent that moves the point by `moved`.
    fn spelling(digits: &str, shift: i64, moved: usize, zeros: usize) -> String {
        let at = moved.min(digits.len());
        let (whole, fraction) = digits.split_at(at);
        let exponent = shift + i64::try_from(fraction.len()).expect("short");
        let whole = if whole.is_empty() { "0" } else { whole };
        format!("{whole}.{fraction}0{}e{exponent}", "0".repeat(zeros))
    }

    proptest! {
        #![proptest_config(with_cases(2_000))]

        #[test]
        fn one_number_has_one_form_which_is_its_own(
            digits in "[1-9][0-9]{0,40}", shift in -60_i64..60, once in 0_usize..42, again in 0_usize..42, zeros in 0_usize..5,
        ) {
            let first = canonical(&spelling(&digits, shift, once, zeros));
            prop_assert_eq!(&canonical(&spelling(&digits, shift, again, 0)), &first);
            prop_assert_eq!(canonical(&first), first.clone());
            // And it means the same: as decimals with one exponent they are equal.
            let (mantissa, exponent) = first.split_once('e').unwrap_or((&first, "0"));
            let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
            let all = format!("{whole}{fraction}");
            let exponent: i64 = exponent.parse::<i64>().unwrap() - i64::try_from(fraction.len()).unwrap();
            let moved = exponent - shift;
            let pad = |text: &str, count: i64| format!("{}{}", text.trim_start_matches('0'), "0".repeat(usize::try_from(count.max(0)).unwrap()));
            prop_assert_eq!(pad(&all, moved), pad(&digits, -moved));
        }

        #[test]
        fn another_number_has_another_form(one in "[1-9][0-9]{0,30}", other in "[1-9][0-9]{0,30}") {
            prop_assume!(one != other);
            prop_assert_ne!(canonical(&one), canonical(&other));
            prop_assert_ne!(canonical(&format!("1.{one}1")), canonical(&format!("1.{other}1")));
        }
    }
}
