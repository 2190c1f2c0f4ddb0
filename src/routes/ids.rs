//! The shapes of the vendor's ids. Checked on the raw bytes of the request: an id that would need
//! percent-encoding is no id.

/// No published id is longer than 42 characters.
const LONGEST: usize = 128;

/// What was expected instead, to follow the words "it is".
type Expected = &'static str;

fn made_of(text: &str, allowed: fn(u8) -> bool) -> bool {
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(allowed)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn prefixed(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| made_of(rest, is_word))
}

/// A stream (= bot): `st-` and a UUID.
pub fn stream(text: &str) -> Result<(), Expected> {
    let expected = "`st-` and letters, digits and `-`, for example st-24ccdea9-de4e-5139-923f-883c53ffaaaa";
    if prefixed(text, "st-") { Ok(()) } else { Err(expected) }
}

/// A conversation: `c-` and nearly a UUID (its first group has seven digits).
pub fn conversation(text: &str) -> Result<(), Expected> {
    let expected = "`c-` and letters, digits and `-`, for example c-47a3d30-e522-4c53-9e03-f0efd16e7c73";
    if prefixed(text, "c-") { Ok(()) } else { Err(expected) }
}

/// An account: 24 hexadecimal digits in every sample.
pub fn account(text: &str) -> Result<(), Expected> {
    let expected = "letters, digits, `-` and `_`, for example 65269fe0dd9c622245c1aaaa";
    if made_of(text, is_word) { Ok(()) } else { Err(expected) }
}

/// A session: 24 hexadecimal digits in every sample.
pub fn session(text: &str) -> Result<(), Expected> {
    let expected = "letters, digits, `-` and `_`, for example c1ff4062bab6678857b03e6c";
    if made_of(text, is_word) { Ok(()) } else { Err(expected) }
}

/// A call: whatever the telephony behind it uses, SIP call ids among them.
pub fn call(text: &str) -> Result<(), Expected> {
    let expected = "1 to 128 visible ASCII characters without quotes and backslashes";
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if made_of(text, is_allowed) { Ok(()) } else { Err(expected) }
}
