//! Entity tags: strong, and another for each coding, for each is another stream of bytes
//! (RFC 9110 §8.8.3.3).

use http::HeaderValue;

use crate::cache::{Coding, Tag};
use crate::http::field::Field;

/// In hexadecimal.
const DIGITS: usize = 2 * size_of::<Tag>();

/// The tag of an entry in `coding`.
pub fn header(tag: &Tag, coding: Coding) -> HeaderValue {
    const LONGEST: usize = DIGITS + "\"-gzip\"".len();
    let mut text = Field::<LONGEST>::new();
    text.push("\"");
    text.push(std::str::from_utf8(&digits(tag)).unwrap_or_default());
    if coding != Coding::Identity {
        text.push("-");
        text.push(coding.as_str());
    }
    text.push("\"");
    text.value()
}

/// Which coding of an entry `text`, a strong tag or a weak one without its mark, names.
pub fn coding(tag: &Tag, text: &str) -> Option<Coding> {
    let text = text.strip_prefix('"')?.strip_suffix('"')?;
    let rest = text.as_bytes().strip_prefix(&digits(tag))?;
    match rest.strip_prefix(b"-") {
        Some(name) => Coding::COMPRESSING.into_iter().find(|coding| coding.as_str().as_bytes() == name),
        None => rest.is_empty().then_some(Coding::Identity),
    }
}

fn digits(Tag(tag): &Tag) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    // There is room for two digits a byte.
    let _ = hex::encode_to_slice(tag, &mut digits);
    digits
}

/// The tags of `If-None-Match`, each without its `W/`: the comparison is the weak one (RFC 9110 §13.1.2).
pub fn listed<'a>(fields: impl IntoIterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a str> {
    let lists = fields.into_iter().filter_map(|field| field.to_str().ok());
    let tags = lists.flat_map(|list| list.split(',')).map(str::trim);
    tags.map(|tag| tag.strip_prefix("W/").unwrap_or(tag))
}
