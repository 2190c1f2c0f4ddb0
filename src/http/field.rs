//! The value of a header field, written piece by piece without the formatting machinery: some stand in
//! every answer.

use http::HeaderValue;

/// A value under way, of at most `LONGEST` bytes. What does not fit is left out, piece by piece, so
/// `LONGEST` is as long as anything that is ever put in.
pub struct Field<const LONGEST: usize> {
    text: [u8; LONGEST],
    length: usize,
}

impl<const LONGEST: usize> Field<LONGEST> {
    pub const fn new() -> Self {
        Self { text: [0; LONGEST], length: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn push(&mut self, text: &str) {
        let end = self.length + text.len();
        if let Some(room) = self.text.get_mut(self.length..end) {
            room.copy_from_slice(text.as_bytes());
            self.length = end;
        }
    }

    /// In decimal.
    pub fn number(&mut self, number: u64) {
        self.push(itoa::Buffer::new().format(number));
    }

    pub fn value(&self) -> HeaderValue {
        let text = self.text.get(..self.length).unwrap_or_default();
        HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Marks the value of a field that differs from answer to answer. HTTP/2 would otherwise remember each
/// for the connection, and look through all of them each time (RFC 7541 §6.2.3).
pub fn passing(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_numbers_are_written_and_what_does_not_fit_is_left_out() {
        let mut field = Field::<12>::new();
        assert!(field.is_empty());
        field.push("a=");
        field.number(1_234_567_890);
        assert_eq!(field.value(), "a=1234567890");
        field.push("!");
        assert_eq!(field.value(), "a=1234567890");
        assert!(passing(field.value()).is_sensitive() && !field.value().is_sensitive());
    }
}
