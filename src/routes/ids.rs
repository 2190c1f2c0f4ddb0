//! The shapes of the vendor's ids. Checked on the raw bytes of the request: an id that would need
//! percent-encoding is no id.

/// No published id is longer than 42 characters.
const LONGEST: usize = 128;

/// What was expected instead, to follow the words "it is".
pub type Expected = &'static str;

/// The check of a shape.
pub type Shape = fn(&str) -> Result<(), Expected>;

/// Looks at every byte, which takes less than stopping at the first that is not allowed.
fn made_of(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.len() <= LONGEST && text.bytes().fold(true, |good, byte| good & allowed(byte))
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

/// The shape of an id as a regular expression, by the name it has in paths and bodies, and an example.
pub fn pattern(name: &str) -> (&'static str, &'static str) {
    match name {
        "streamId" | "botId" => ("^st-[A-Za-z0-9_-]{1,128}$", "st-24ccdea9-de4e-5139-923f-883c53ffaaaa"),
        "conversationId" => ("^c-[A-Za-z0-9_-]{1,128}$", "c-47a3d30-e522-4c53-9e03-f0efd16e7c73"),
        "accountId" => ("^[A-Za-z0-9_-]{1,128}$", "65269fe0dd9c622245c1aaaa"),
        "callId" => ("^[!#-\\[\\]-~]{1,128}$", "b8b1d959-f647-4c48-b31c-f5c2c63655f7"),
        _ => ("^[A-Za-z0-9_-]{1,128}$", "c1ff4062bab6678857b03e6c"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::string::string_regex;

    use super::*;
    use crate::cases::with_cases;

    const SHAPES: [(&str, Shape); 5] = [
        ("streamId", stream),
        ("conversationId", conversation),
        ("accountId", account),
        ("sessionId", session),
        ("callId", call),
    ];

    /// One of the shapes, and something that its pattern makes.
    fn made() -> impl Strategy<Value = (usize, String)> {
        (0..SHAPES.len()).prop_flat_map(|which| {
            let (pattern, _) = pattern(SHAPES[which].0);
            let made = string_regex(pattern.trim_matches(['^', '$'])).expect("an expression");
            (Just(which), made)
        })
    }

    proptest! {
        #![proptest_config(with_cases(256))]

        #[test]
        fn what_the_documents_pattern_makes_is_an_id((which, made) in made()) {
            let (name, shape) = SHAPES[which];
            prop_assert!(shape(&made).is_ok(), "{} {:?}", name, made);
            prop_assert!(shape(pattern(name).1).is_ok());
        }

        #[test]
        fn what_is_no_id_does_not_match_the_documents_pattern(
            which in 0..SHAPES.len(), text in prop_oneof!["(st-|c-)?[ -~]{0,8}", "(st-|c-)?[a-z]{120,132}", ".{0,4}"],
        ) {
            let (name, shape) = SHAPES[which];
            let pattern = regex::Regex::new(pattern(name).0).expect("an expression");
            prop_assert_eq!(pattern.is_match(&text), shape(&text).is_ok(), "{} {:?}", name, text);
        }
    }
}
