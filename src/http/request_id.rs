//! What a request is called: in its answer, in the log, in the audit.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::field::passing;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST: usize = 128;
/// 128 bits in hexadecimal.
const NEW: usize = 32;

/// A request's id, as it is written. Cheap to clone.
#[derive(Clone)]
pub enum RequestId {
    /// Hexadecimal digits.
    New([u8; NEW]),
    /// A plain one.
    Callers(HeaderValue),
}

impl RequestId {
    /// The caller's id if it is a plain one, else a new one.
    pub fn of(headers: &HeaderMap, new: &RequestIds) -> Self {
        let theirs = headers.get(REQUEST_ID).filter(|id| is_plain(id.as_bytes()));
        theirs.map_or_else(|| new.next(), |id| Self::Callers(id.clone()))
    }

    pub fn as_str(&self) -> &str {
        // Digits and plain ones are visible.
        match self {
            Self::New(digits) => std::str::from_utf8(digits).unwrap_or_default(),
            Self::Callers(id) => id.to_str().unwrap_or_default(),
        }
    }

    pub fn header(&self) -> HeaderValue {
        match self {
            Self::New(digits) => {
                passing(HeaderValue::from_bytes(digits).unwrap_or(HeaderValue::from_static("-")))
            }
            Self::Callers(id) => id.clone(),
        }
    }
}

fn is_plain(id: &[u8]) -> bool {
    (1..=LONGEST).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// New ids: unique, and not to be counted by. They are no secret, so two random numbers for a
/// process are enough.
pub struct RequestIds {
    /// Digits.
    process: [u8; NEW / 2],
    start: u64,
    made: AtomicU64,
}

impl Default for RequestIds {
    /// Ids no other process makes.
    fn default() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        Self::from(random(), random())
    }
}

impl RequestIds {
    fn from(process: u64, start: u64) -> Self {
        Self { process: digits(process), start, made: AtomicU64::new(0) }
    }

    fn next(&self) -> RequestId {
        let number = self.start.wrapping_add(self.made.fetch_add(1, Ordering::Relaxed));
        let mut text = [0; NEW];
        let (process, own) = text.split_at_mut(NEW / 2);
        process.copy_from_slice(&self.process);
        own.copy_from_slice(&digits(scattered(number)));
        RequestId::New(text)
    }
}

fn digits(number: u64) -> [u8; NEW / 2] {
    let mut digits = [0; NEW / 2];
    // Two for each byte; it cannot fail.
    let _ = hex::encode_to_slice(number.to_be_bytes(), &mut digits);
    digits
}

/// One number for each number, far from its neighbours': what a busy gateway answers to others
/// cannot be read off the ids of one's own (the finaliser of SplitMix64).
const fn scattered(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn id(sent: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_str(sent).expect("visible"));
        RequestId::of(&headers, &RequestIds::from(1, 7)).as_str().to_owned()
    }

    #[test]
    fn a_plain_id_is_kept_and_anything_else_gets_a_new_one() {
        let longest = "x".repeat(LONGEST);
        for plain in ["a", "A-1_b.c", &longest] {
            assert_eq!(id(plain), plain);
        }
        for odd in ["", "a b", "a\"b", "a;b", &"x".repeat(LONGEST + 1)] {
            let new = id(odd);
            assert!(new.len() == NEW && new.bytes().all(|byte| byte.is_ascii_hexdigit()), "{odd} -> {new}");
        }
    }

    #[test]
    fn new_ids_differ_from_each_other_and_from_another_process() {
        let (one, other) = (RequestIds::from(1, 5), RequestIds::from(2, 5));
        let made: HashSet<String> =
            (0..1000).flat_map(|_| [one.next(), other.next()]).map(|id| id.as_str().to_owned()).collect();
        assert_eq!(made.len(), 2000);
        assert!(one.next().header().is_sensitive(), "of no use in a table");
    }
}
