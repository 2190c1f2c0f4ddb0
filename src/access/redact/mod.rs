//! What a client is shown of an answer that is stored once for all: some parts removed, some
//! masked, and every other byte as it was.
//!
//! A body is never parsed and written again. It is walked once, and what is denied is left out:
//! the order of members, the spelling of numbers and escapes, and spaces stay.

mod digits;
mod escapes;
mod kinds;
mod scan;
mod work;

use std::collections::BTreeMap;

use aws_lc_rs::digest;

use crate::config::{Bots, Redaction, Step};
use crate::error::{Error, Kind};
use crate::routes::Listed;
use kinds::Finder;
use scan::Scan;
pub use work::Work;

/// What stands where something was. No word of any language, and no value of any other type.
const MASK: &str = "***";

/// A client's view of the answers of a route, compiled. Pure.
#[derive(Debug)]
pub struct Projection {
    id: [u8; 16],
    root: Node,
    finder: Finder,
    /// Whose rows are shown, where not all are.
    rows: Option<Bots>,
}

impl From<Unreadable> for Error {
    fn from(unreadable: Unreadable) -> Self {
        let why = match unreadable {
            Unreadable::NotJson => "is not JSON",
            Unreadable::TooDeep => "is nested too deep",
            Unreadable::NoRows => "has no rows",
            Unreadable::TooLarge => "is too large to be looked into",
            Unreadable::TooMuchWork => "takes too much work to be looked into",
            Unreadable::Unwanted => "was not looked into to its end",
        };
        let detail =
            format!("the upstream's answer {why}, so what this client may not see cannot be taken out");
        Self::new(Kind::UpstreamInvalid, detail)
    }
}

/// Why a body cannot be projected. Then it cannot be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// It is not JSON, or not in UTF-8.
    NotJson,
    TooDeep,
    /// It has no rows to choose from.
    NoRows,
    /// It is passed through as it comes, and nobody holds it whole.
    TooLarge,
    /// Looking into it takes more steps than it may.
    TooMuchWork,
    /// Nobody waits for it any more.
    Unwanted,
}

/// A place in answers, and what is below it. Names are kept in lower case and compared so: the
/// vendor's own spelling differs from row to row (`customerinfo`, `customerInfo`), and what is denied
/// in one must not come through in the other.
#[derive(Debug, Default)]
struct Node {
    named: BTreeMap<String, Self>,
    any: Option<Box<Self>>,
    rule: Rule,
    /// The strings here and below are searched for kinds.
    is_text: bool,
    /// It is shown only if it is a row of one's own.
    is_row: bool,
    /// Of its members only those are shown that have a place of their own.
    is_listed: bool,
}

/// What is done at a place. The later in this order wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
enum Rule {
    #[default]
    Keep,
    Mask,
    Remove,
}

impl Node {
    /// The place that `steps` lead to.
    fn at(&mut self, steps: &[Step]) -> &mut Self {
        match steps {
            [] => self,
            [Step::Any, rest @ ..] => self.any.get_or_insert_default().at(rest),
            [Step::Name(name), rest @ ..] => self.named.entry(name.to_lowercase()).or_default().at(rest),
        }
    }

    /// Whether it says anything of what is at its place or below.
    fn says_something(&self) -> bool {
        let is_place = self.any.is_some() || !self.named.is_empty();
        is_place || self.rule != Rule::Keep || self.is_text || self.is_row || self.is_listed
    }

    fn below<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Self> + use<'a> {
        self.named.get(name).into_iter().chain(self.any.as_deref())
    }
}

impl Projection {
    /// The view through all of these profiles at once, and of the rows of these bots alone; `None`
    /// where that is everything.
    pub fn new<'a>(
        redactions: impl Iterator<Item = &'a Redaction> + Clone,
        rows: Option<&Bots>,
    ) -> Option<Self> {
        let rows = rows.filter(|bots| **bots != Bots::Any);
        if redactions.clone().next().is_none() && rows.is_none() {
            return None;
        }
        let mut root = Node::default();
        let mut kinds = Vec::new();
        let mut description = format!("{rows:?}");
        for Redaction { name: _, remove, mask, show, kinds: more, text } in redactions {
            for pointer in show {
                root.at(&pointer.0);
            }
            for (pointers, rule) in [(mask, Rule::Mask), (remove, Rule::Remove)] {
                for pointer in pointers {
                    let node = root.at(&pointer.0);
                    node.rule = node.rule.max(rule);
                }
            }
            if !more.is_empty() {
                text.iter().for_each(|pointer| root.at(&pointer.0).is_text = true);
                kinds.extend(more);
            }
            description.push_str(&format!("{:?}", (remove, mask, show, more, text)));
        }
        if rows.is_some() {
            root.at(&[Step::Name(scan::ROWS.to_owned()), Step::Any]).is_row = true;
        }
        let whole = digest::digest(&digest::SHA256, description.as_bytes());
        let mut id = [0; 16];
        id.iter_mut().zip(whole.as_ref()).for_each(|(id, byte)| *id = *byte);
        Some(Self { id, root, finder: Finder::new(&kinds), rows: rows.cloned() })
    }

    /// The same, of answers that have these members. Where they are listed, what else the upstream may put there is
    /// not shown, unless a profile names it: no pointer was written for it, and it may hold a whole record.
    pub fn of(mut self, listed: &[Listed]) -> Self {
        for Listed { at, members } in listed {
            let step = |name: &&str| if *name == "*" { Step::Any } else { Step::Name((*name).to_owned()) };
            let place = self.root.at(&at.iter().map(step).collect::<Vec<_>>());
            place.is_listed = true;
            for name in *members {
                place.named.entry(name.to_lowercase()).or_default();
            }
        }
        self
    }

    /// The same for every projection that shows the same.
    pub fn id(&self) -> &[u8; 16] {
        &self.id
    }

    /// Whether it shows some rows of a window only.
    pub fn chooses_rows(&self) -> bool {
        self.rows.is_some()
    }

    /// What is shown of `body`. `whole` is an answer of the route's own shape, not an error.
    pub fn apply(&self, body: &[u8], whole: bool) -> Result<Vec<u8>, Unreadable> {
        self.apply_within(&mut Work::unlimited(), body, whole)
    }

    /// The same, with the work counted.
    pub fn apply_within(&self, work: &mut Work, body: &[u8], whole: bool) -> Result<Vec<u8>, Unreadable> {
        if body.is_empty() {
            return Ok(Vec::new());
        }
        let mut scan = Scan::new(body, self, work, whole)?;
        let shown = scan.document()?;
        if whole && self.rows.is_some() && !scan.has_rows {
            return Err(Unreadable::NoRows);
        }
        Ok(shown)
    }
}

#[cfg(test)]
mod tests;
