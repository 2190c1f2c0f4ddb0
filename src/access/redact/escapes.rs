//! How a JSON string is spelled, and the text that it stands for (RFC 8259 §7).

use std::borrow::Cow;

/// A string's text; owned, if it is not spelled as it is.
pub(super) fn unescaped(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(plain) = rest.find('\\') {
        text.push_str(&rest[..plain]);
        let (character, length) = character(&rest[plain..]);
        text.push(character);
        rest = rest.get(plain + length..).unwrap_or_default();
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Where in a spelling the places of its text are, asked for in their order. A table of them would be many times
/// as large as the text.
pub(super) struct Spelling<'a> {
    pub(super) raw: &'a str,
    pub(super) is_plain: bool,
    pub(super) at: usize,
    /// Bytes of the text up to `at`.
    pub(super) text_at: usize,
}

impl Spelling<'_> {
    pub(super) fn place(&mut self, in_text: usize) -> usize {
        if self.is_plain {
            return in_text;
        }
        while self.text_at < in_text
            && let Some(rest) = self.raw.get(self.at..).filter(|rest| !rest.is_empty())
        {
            let (character, length) = character(rest);
            self.text_at += character.len_utf8();
            self.at += length;
        }
        self.at
    }
}

/// The first character of an escaped text, and how many bytes it is spelled with.
fn character(raw: &str) -> (char, usize) {
    let unit = |at: usize| raw.get(at..at + 4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let mut characters = raw.chars();
    match (characters.next(), characters.next()) {
        (Some('\\'), Some('u')) => {
            let Some(high) = unit(2) else { return (char::REPLACEMENT_CHARACTER, 2) };
            let low = raw.get(6..8).filter(|next| *next == "\\u").and_then(|_| unit(8));
            match (char::from_u32(high), low) {
                (Some(character), _) => (character, 6),
                (None, Some(low @ 0xDC00..=0xDFFF)) if high < 0xDC00 => {
                    let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                    (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
                }
                (None, _) => (char::REPLACEMENT_CHARACTER, 6),
            }
        }
        (Some('\\'), Some(escaped)) => {
            let character = match escaped {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                other => other,
            };
            (character, 1 + escaped.len_utf8())
        }
        (Some(character), _) => (character, character.len_utf8()),
        (None, _) => (char::REPLACEMENT_CHARACTER, 1),
    }
}
