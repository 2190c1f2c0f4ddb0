//! What of a request shapes its answer beyond what was asked.

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method};

use super::{accept_encoding, etag};
use crate::cache::{Coding, Tag};

/// What of a request shapes its answer beyond what was asked.
#[derive(Clone, Debug)]
pub struct Conditions {
    pub(super) is_head: bool,
    pub(super) coding: Coding,
    if_none_match: Vec<HeaderValue>,
}

impl Conditions {
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        Self {
            is_head: method == Method::HEAD,
            coding: accept_encoding::best(headers),
            if_none_match: headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect(),
        }
    }

    /// The coding in which the caller has what `tag` is of: weak comparison (RFC 9110 §13.1.2,
    /// §8.8.3.2).
    pub(super) fn held(&self, tag: &Tag) -> Option<Coding> {
        etag::listed(&self.if_none_match).find_map(|held| match held {
            "*" => Some(self.coding),
            held => etag::coding(tag, held),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = r#""0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a""#;
    const B: &str = r#""0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b""#;

    fn has(sent: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_str(value).expect("visible"));
        }
        Conditions::of(&Method::GET, &headers).held(&Tag([10; 16])).is_some()
    }

    #[test]
    fn if_none_match_is_compared_weakly_and_may_be_a_list() {
        assert!(has(&[A]));
        assert!(has(&[&format!("W/{A}")]));
        assert!(has(&[&format!("{B}, W/{A}")]));
        assert!(has(&[B, A]));
        assert!(has(&["*"]));
        assert!(!has(&[B]));
        assert!(!has(&[A.trim_matches('"')]));
        assert!(!has(&[]));
    }

    #[test]
    fn any_codings_tag_will_do() {
        assert!(has(&[r#""0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a-br""#]));
        assert!(has(&[r#"W/"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a-gzip""#]));
        assert!(!has(&[r#""0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a-zstd""#]));
        assert!(!has(&[r#""0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b-br""#]));
    }
}
