//! Entity tags: strong, and another for each coding, for each is another stream of bytes
//! (RFC 9110 §8.8.3.3).

use http::HeaderValue;

use crate::cache::{Coding, Tag};

/// The tags of one entry.
pub struct ETags {
    hash: String,
}

impl ETags {
    pub fn of(Tag(tag): Tag) -> Self {
        Self { hash: hex::encode(tag) }
    }

    /// The tag of the entry in `coding`.
    pub fn header(&self, coding: Coding) -> HeaderValue {
        let tag = match coding {
            Coding::Identity => format!("\"{}\"", self.hash),
            Coding::Gzip | Coding::Brotli => format!("\"{}-{}\"", self.hash, coding.as_str()),
        };
        // Quotes, letters and digits always make a header value.
        HeaderValue::try_from(tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
    }

    /// Which coding of the entry a strong tag, or a weak one without its mark, names.
    pub fn coding_of(&self, tag: &str) -> Option<Coding> {
        let rest = tag.strip_prefix('"')?.strip_suffix('"')?.strip_prefix(self.hash.as_str())?;
        match rest.strip_prefix('-') {
            Some(name) => Coding::COMPRESSING.into_iter().find(|coding| coding.as_str() == name),
            None => rest.is_empty().then_some(Coding::Identity),
        }
    }
}
