//! What is wrong with a request, thing by thing.

use std::borrow::Cow;

/// Where in the request a fault is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A JSON pointer into the body (RFC 6901).
    Pointer(String),
    /// A parameter of the path or the query string.
    Parameter(Cow<'static, str>),
    Header(&'static str),
}

/// Faults that one answer lists. A caller who has fixed so many asks again; a body of nothing but
/// faults must not become an answer many times its size.
pub const MOST_FAULTS: usize = 50;

/// Characters of a place in the request that an answer repeats.
const LONGEST_PLACE: usize = 200;

/// One thing that is wrong with a request: where, what was there, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub place: Place,
    pub detail: String,
}

impl Fault {
    pub fn at_pointer(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: Place::Pointer(short(pointer.into())), detail: detail.into() }
    }

    pub fn in_parameter(name: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        let name = match name.into() {
            Cow::Borrowed(name) => Cow::Borrowed(name),
            Cow::Owned(name) => Cow::Owned(short(name)),
        };
        Self { place: Place::Parameter(name), detail: detail.into() }
    }

    pub fn in_header(name: &'static str, detail: impl Into<String>) -> Self {
        Self { place: Place::Header(name), detail: detail.into() }
    }
}

fn short(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_PLACE) {
        text.truncate(end);
        text.push('…');
    }
    text
}
