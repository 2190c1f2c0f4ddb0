//! The query string: each parameter once, known ones checked, all of them in one canonical order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::names::{Names, Place};
use super::shown;
use crate::error::{Fault, MOST_FAULTS};

/// Of a canonical query.
const USUAL_LENGTH: usize = 64;

/// The parameters of a request, by name. A route takes out what it knows and puts back the
/// canonical value; what it does not know stays and goes into the key.
pub struct Params<'a> {
    pairs: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Whether the canonical form spells a value in another way.
    pub drops_text: bool,
    pub faults: Vec<Fault>,
}

impl<'a> Params<'a> {
    /// Reads a query string. Names that are nearly one of `names` are faults.
    pub fn parse(query: &'a str, names: &Names) -> Self {
        // A plus sign, too: it is a blank here, and perhaps meant as itself.
        let drops_text = query.contains('+');
        let mut params = Self { pairs: BTreeMap::new(), drops_text, faults: Vec::new() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            // The decoder puts U+FFFD where bytes were no UTF-8; passing that on would change them.
            if name.contains(char::REPLACEMENT_CHARACTER) || value.contains(char::REPLACEMENT_CHARACTER) {
                params.fault(&name, "is not UTF-8 when decoded");
            } else if let Some(misplaced) = names.misplaced(&name, Place::Query) {
                params.fault(&name, misplaced);
            } else if params.pairs.insert(name.clone(), value).is_some() {
                params.fault(&name, "is there more than once; send it once");
            }
            // One fault more than an answer lists, so that it is known that there are more.
            if params.faults.len() > MOST_FAULTS {
                break;
            }
        }
        params
    }

    pub fn fault(&mut self, name: &str, problem: impl fmt::Display) {
        let detail = format!("{} {problem}", shown(name).replace('"', "`"));
        self.faults.push(Fault::in_parameter(name.to_owned(), detail));
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.get(name).map(Cow::as_ref)
    }

    /// A whole number within bounds. Written back as plain digits; the default is written out.
    pub fn whole_number(&mut self, name: &'static str, least: u64, most: u64, default: Option<u64>) {
        let number = match self.pairs.get(name) {
            None => default,
            Some(text) => {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let number: Option<u64> = text.parse().ok().filter(|_| digits);
                let number = number.filter(|number| (least..=most).contains(number));
                if number.is_none() {
                    let problem = format!("is {}; it is {}", shown(text), between(least, most));
                    self.fault(name, problem);
                }
                number
            }
        };
        let Some(number) = number else { return };
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number);
        if self.get(name) != Some(digits) {
            self.drops_text |= self.get(name).is_some();
            self.pairs.insert(name.into(), digits.to_owned().into());
        }
    }

    /// Sorted by name, encoded in one way.
    pub fn canonical(&self) -> String {
        let mut canonical = form_urlencoded::Serializer::new(String::with_capacity(USUAL_LENGTH));
        canonical.extend_pairs(&self.pairs);
        canonical.finish()
    }
}

/// A range of whole numbers in words.
pub fn between(least: u64, most: u64) -> String {
    match most {
        u64::MAX | MOST_OFFSET => format!("a whole number of at least {least}"),
        _ => format!("a whole number from {least} to {most}"),
    }
}

/// The largest `offset` and `skip`. The contract bounds neither for sure; this keeps them numbers
/// that JSON can carry exactly.
pub const MOST_OFFSET: u64 = 1 << 53;

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names { query: &["limit"], body: &[] };

    #[test]
    fn order_encoding_and_defaults_do_not_make_another_query() {
        let canonical = |query: &str| {
            let mut params = Params::parse(query, &NAMES);
            params.whole_number("limit", 1, 100, Some(100));
            assert!(params.faults.is_empty(), "{:?}", params.faults);
            params.canonical()
        };
        assert_eq!(canonical("offset=0&limit=100"), canonical("limit=%31%30%30&offset=0"));
        assert_eq!(canonical("offset=0"), canonical("limit=0100&offset=0"));
        assert_ne!(canonical("x=1"), canonical("x=2"));
    }

    #[test]
    fn numbers_out_of_bounds_doubles_and_bad_encoding_are_faults() {
        for query in [
            "limit=0",
            "limit=101",
            "limit=-1",
            "limit=+5",
            "limit=",
            "limit=1e1",
            "limit=1&limit=1",
            "a=%ff",
        ] {
            let mut params = Params::parse(query, &NAMES);
            params.whole_number("limit", 1, 100, Some(100));
            assert_eq!(params.faults.len(), 1, "{query}");
        }
    }
}
