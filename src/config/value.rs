//! The kinds of value a configuration is made of, and how each reads itself.

use std::net::SocketAddr;
use std::time::Duration;

use super::setting::{Setting, mismatch, text};
use crate::clock::UnixMillis;

impl Setting for String {
    const EXPECTED: &'static str = "a string that is not empty";

    fn read(value: toml::Value) -> Result<Self, String> {
        let text = text::<Self>(value)?;
        if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text) }
    }

    fn placeholder() -> Self {
        Self::new()
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(value: toml::Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| mismatch::<Self>(&value))
    }

    fn placeholder() -> Self {
        false
    }
}

/// A count of at least one.
impl Setting for u64 {
    const EXPECTED: &'static str = "a whole number of at least 1";

    fn read(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Integer(number) => match Self::try_from(number) {
                Ok(number) if number > 0 => Ok(number),
                _ => Err(format!("is {number}; it is {}", Self::EXPECTED)),
            },
            other => Err(mismatch::<Self>(&other)),
        }
    }

    fn placeholder() -> Self {
        1
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = r#"an address with a port, for example "127.0.0.1:8080""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let text = text::<Self>(value)?;
        text.parse().map_err(|_| format!("is {text:?}; it is {}", Self::EXPECTED))
    }

    fn placeholder() -> Self {
        Self::from(([127, 0, 0, 1], 0))
    }
}

/// The digits in front and the unit behind.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

impl Setting for Duration {
    const EXPECTED: &'static str = r#"a duration: a number with ms, s, m, h or d, for example "15m""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let text = text::<Self>(value)?;
        let millis = number_and_unit(&text).and_then(|(number, unit)| {
            let factor: u64 = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            number.checked_mul(factor)
        });
        millis.map(Self::from_millis).ok_or_else(|| format!("is {text:?}; it is {}", Self::EXPECTED))
    }

    fn placeholder() -> Self {
        Self::ZERO
    }
}

/// A part of a hundred.
#[derive(Clone, Copy, Debug)]
pub struct Percent(pub u32);

impl Setting for Percent {
    const EXPECTED: &'static str = "a whole number of percent, 0 to 100";

    fn read(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Integer(number) => match u32::try_from(number) {
                Ok(number) if number <= 100 => Ok(Self(number)),
                _ => Err(format!("is {number}; it is {}", Self::EXPECTED)),
            },
            other => Err(mismatch::<Self>(&other)),
        }
    }

    fn placeholder() -> Self {
        Self(0)
    }
}

/// A part of the whole.
#[derive(Clone, Copy, Debug)]
pub struct Ratio(pub f64);

impl Setting for Ratio {
    const EXPECTED: &'static str = "a number from 0 to 1, for example 0.1";

    fn read(value: toml::Value) -> Result<Self, String> {
        let number = match value {
            toml::Value::Float(number) => number,
            toml::Value::Integer(0) => 0.0,
            toml::Value::Integer(1) => 1.0,
            toml::Value::Integer(number) => return Err(format!("is {number}; it is {}", Self::EXPECTED)),
            other => return Err(mismatch::<Self>(&other)),
        };
        // What is no number is in no range.
        if (0.0..=1.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!("is {number}; it is {}", Self::EXPECTED))
        }
    }

    fn placeholder() -> Self {
        Self(0.0)
    }
}

/// A number of bytes, at least one.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

impl Setting for Size {
    const EXPECTED: &'static str = r#"a size: a number with B, KiB, MiB or GiB, for example "512MiB""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let text = text::<Self>(value)?;
        let bytes = number_and_unit(&text).and_then(|(number, unit)| {
            let shift = match unit {
                "B" => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                _ => return None,
            };
            number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
        });
        bytes.map(Self).ok_or_else(|| format!("is {text:?}; it is {}", Self::EXPECTED))
    }

    fn placeholder() -> Self {
        Self(1)
    }
}

/// So many in so long, for example 600 a minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// At least 1.
    pub amount: u32,
    pub window: Duration,
}

/// As it is written in the configuration.
impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.window.as_secs() {
            1 => write!(f, "{}/s", self.amount),
            60 => write!(f, "{}/min", self.amount),
            3600 => write!(f, "{}/h", self.amount),
            seconds => write!(f, "{}/{seconds}s", self.amount),
        }
    }
}

impl Setting for Rate {
    const EXPECTED: &'static str = r#"a rate: a number with /s, /min or /h, for example "600/min""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let text = text::<Self>(value)?;
        let rate = number_and_unit(&text).and_then(|(number, unit)| {
            let seconds = match unit {
                "/s" => 1,
                "/min" | "/m" => 60,
                "/h" => 3_600,
                _ => return None,
            };
            let amount = u32::try_from(number).ok().filter(|amount| *amount > 0)?;
            Some(Self { amount, window: Duration::from_secs(seconds) })
        });
        rate.ok_or_else(|| format!("is {text:?}; it is {}", Self::EXPECTED))
    }

    fn placeholder() -> Self {
        Self { amount: 1, window: Duration::from_secs(1) }
    }
}

/// A moment, with the offset of its time zone (RFC 3339): TOML's own date or a string.
impl Setting for UnixMillis {
    const EXPECTED: &'static str = "a time with its offset, for example 2026-12-31T23:59:59Z";

    fn read(value: toml::Value) -> Result<Self, String> {
        let text = match &value {
            toml::Value::Datetime(time) => time.to_string(),
            toml::Value::String(text) => text.clone(),
            other => return Err(mismatch::<Self>(other)),
        };
        let time: Result<jiff::Timestamp, _> = text.parse();
        time.map(|time| Self(time.as_millisecond()))
            .map_err(|_| format!("is {text:?}; it is {}", Self::EXPECTED))
    }

    fn placeholder() -> Self {
        Self(0)
    }
}

/// The origin of a page, exactly as browsers spell it (RFC 6454 §6.2).
pub struct Origin(pub String);

impl Setting for Origin {
    const EXPECTED: &'static str = r#"an origin, for example "https://desk.example.com""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let text = text::<Self>(value)?;
        if text == "*" {
            // Every client has a credential, and any page that gets hold of one could use it.
            return Err(format!("is \"*\", which cannot go with a credential; it is {}", Self::EXPECTED));
        }
        let spelled = reqwest::Url::parse(&text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .map(|url| url.origin().ascii_serialization());
        match spelled {
            Some(spelled) if spelled == text => Ok(Self(text)),
            Some(spelled) => Err(format!("is {text:?}; browsers spell it {spelled:?}")),
            None => Err(format!("is {text:?}; it is {}", Self::EXPECTED)),
        }
    }

    fn placeholder() -> Self {
        Self(String::new())
    }
}

/// A list; each item that is wrong is named by its place.
impl<T: Setting> Setting for Vec<T> {
    const EXPECTED: &'static str = "a list";

    fn read(value: toml::Value) -> Result<Self, String> {
        let toml::Value::Array(items) = value else { return Err(mismatch::<Self>(&value)) };
        let mut list = Self::with_capacity(items.len());
        let mut problems = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            match T::read(item) {
                Ok(item) => list.push(item),
                Err(problem) => problems.push(format!("item {} {problem}", index + 1)),
            }
        }
        if problems.is_empty() { Ok(list) } else { Err(problems.join("; ")) }
    }

    fn placeholder() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Setting>(text: &str) -> Result<T, String> {
        T::read(toml::Value::String(text.to_owned()))
    }

    #[test]
    fn durations_sizes_and_rates_are_numbers_with_a_unit() {
        assert_eq!(read::<Duration>("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(read::<Duration>("0s"), Ok(Duration::ZERO));
        assert_eq!(read::<Duration>("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(read::<Size>("64KiB").map(|size| size.0), Ok(65_536));
        let rate = Rate { amount: 600, window: Duration::from_secs(60) };
        assert_eq!(read::<Rate>("600/min"), Ok(rate));
    }

    #[test]
    fn what_is_no_number_with_a_unit_is_refused_with_an_example() {
        for wrong in ["", "15", "m", "-1m", "1.5h", "15 m", "99999999999999999999s", "999999999999999999d"] {
            assert!(read::<Duration>(wrong).is_err_and(|problem| problem.contains("15m")), "{wrong}");
        }
        for wrong in ["0MiB", "1MB", "MiB", "17179869184GiB"] {
            assert!(read::<Size>(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0/s", "1/d", "60", "4294967296/s"] {
            assert!(read::<Rate>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_names_each_item_that_is_wrong() {
        let items = ["60/min", "x", "y"].map(|item| toml::Value::String(item.to_owned()));
        let problem = Vec::<Rate>::read(toml::Value::Array(items.into())).unwrap_err();
        assert!(problem.contains("item 2") && problem.contains("item 3"));
    }
}
