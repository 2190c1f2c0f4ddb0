//! The names that a route knows, and what is wrong with those that nearly are one of them.

use std::fmt;

/// Names of what only the path may say, and policy is held against. Beside it, in the query string or
/// in a body, they would go upstream unlooked at.
const OF_THE_PATH: [&str; 4] = ["accountId", "botId", "iId", "streamId"];

/// What a route takes, by where it takes it.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    pub query: &'static [&'static str],
    pub body: &'static [&'static str],
}

/// Where a name stands or belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Query,
    Body,
    Path,
}

/// A known name in the wrong place or in another spelling. Upstream it would count for nothing, or for
/// what nobody has checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Misplaced {
    name: &'static str,
    belongs: Place,
    stands: Place,
}

impl Names {
    /// What is wrong with a name at this place, if anything is. Names that are like none are the
    /// vendor's affair.
    pub fn misplaced(&self, name: &str, stands: Place) -> Option<Misplaced> {
        let (here, there, other) = match stands {
            Place::Body => (self.body, self.query, Place::Query),
            _ => (self.query, self.body, Place::Body),
        };
        if here.contains(&name) {
            return None;
        }
        let like = |names: &[&'static str]| names.iter().find(|known| is_like(name, known)).copied();
        let of = |belongs: Place| move |name| Misplaced { name, belongs, stands };
        like(here)
            .map(of(stands))
            .or_else(|| like(&OF_THE_PATH).map(of(Place::Path)))
            .or_else(|| like(there).map(of(other)))
    }
}

impl Names {
    /// An expression for the names of [`Self::misplaced`], and for those that stand where they belong. The
    /// dialect of JSON Schema has no switch for letter case.
    pub fn pattern_of_misplaced(&self) -> String {
        let letter = |letter: char| match letter.to_ascii_uppercase() {
            upper if upper == letter => format!("[{}{upper}][_-]*", letter.to_ascii_lowercase()),
            upper => format!("[{letter}{upper}][_-]*"),
        };
        let names = OF_THE_PATH.iter().chain(self.query).chain(self.body);
        let names: Vec<String> = names.map(|name| name.chars().map(letter).collect()).collect();
        format!("^[_-]*({})$", names.join("|"))
    }
}

/// The same letters and digits, in any letter case, however they are parted.
fn is_like(name: &str, known: &str) -> bool {
    let letters = |text| {
        str::bytes(text).filter(|byte| !matches!(byte, b'_' | b'-')).map(|byte| byte.to_ascii_lowercase())
    };
    letters(name).eq(letters(known))
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, belongs, stands } = self;
        let here = if *stands == Place::Query { "a parameter here" } else { "part of this body" };
        match belongs {
            _ if belongs == stands => write!(f, "is spelled `{name}`"),
            Place::Path => write!(f, "is not {here}; the path says which it is"),
            Place::Query => write!(f, "is not {here}; it belongs in the query string, as `{name}`"),
            Place::Body => write!(f, "is not {here}; it belongs in the body, as `{name}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    const NAMES: Names = Names { query: &["limit"], body: &["startDate", "limitless"] };

    #[test]
    fn the_documents_pattern_matches_what_is_misplaced_or_known_and_nothing_else() {
        let pattern = Regex::new(&NAMES.pattern_of_misplaced()).expect("an expression");
        for name in ["limit", "LIMIT", "li-mit_", "_startdate", "botId", "account_id", "iid"] {
            assert!(pattern.is_match(name), "{name}");
            assert!(NAMES.misplaced(name, Place::Query).is_some() || NAMES.query.contains(&name), "{name}");
        }
        for name in ["limits", "alimit", "start date", "", "-", "botIds"] {
            assert!(!pattern.is_match(name) && NAMES.misplaced(name, Place::Query).is_none(), "{name}");
        }
    }

    #[test]
    fn a_name_is_right_told_where_it_belongs_or_unknown() {
        let fault = |name, stands| NAMES.misplaced(name, stands).map(|misplaced| misplaced.to_string());
        let is = |name, stands, expected: Option<&str>| {
            assert_eq!(fault(name, stands).as_deref(), expected, "{name} {stands:?}");
        };
        is("limit", Place::Query, None);
        is("startDate", Place::Body, None);
        is("unknown", Place::Query, None);
        is("limi", Place::Body, None);
        is("LIMIT", Place::Query, Some("is spelled `limit`"));
        is("start_date", Place::Body, Some("is spelled `startDate`"));
        let in_query = "is not part of this body; it belongs in the query string, as `limit`";
        is("limit", Place::Body, Some(in_query));
        is("Limit", Place::Body, Some(in_query));
        is(
            "startdate",
            Place::Query,
            Some("is not a parameter here; it belongs in the body, as `startDate`"),
        );
        is("accountid", Place::Body, Some("is not part of this body; the path says which it is"));
        is("bot-id", Place::Query, Some("is not a parameter here; the path says which it is"));
    }
}
