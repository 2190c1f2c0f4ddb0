//! Whether a JSON text that goes by has come to its end, without reading what it says.

/// Whether a JSON text that goes by in parts has come to its end.
#[derive(Default)]
pub struct JsonEnd {
    open: usize,
    is_in_string: bool,
    is_escaped: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Nothing but white space so far.
    #[default]
    Before,
    Inside,
    Closed,
    /// Neither an object nor an array, or something behind it.
    NoJson,
}

impl JsonEnd {
    pub fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match self.state {
                State::NoJson => return,
                State::Inside if self.is_in_string => self.in_string(*byte),
                State::Inside => self.between_strings(*byte),
                State::Before if matches!(byte, b'{' | b'[') => {
                    self.open = 1;
                    self.state = State::Inside;
                }
                _ if byte.is_ascii_whitespace() => {}
                State::Before | State::Closed => self.state = State::NoJson,
            }
        }
    }

    fn in_string(&mut self, byte: u8) {
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' => self.is_escaped = true,
            b'"' => self.is_in_string = false,
            _ => {}
        }
    }

    fn between_strings(&mut self, byte: u8) {
        match byte {
            b'"' => self.is_in_string = true,
            b'{' | b'[' => self.open += 1,
            b'}' | b']' => {
                self.open -= 1;
                if self.open == 0 {
                    self.state = State::Closed;
                }
            }
            _ => {}
        }
    }

    /// Whether the text is whole; `None` of what is no JSON, which nobody can tell of.
    pub fn are_closed(&self) -> Option<bool> {
        match self.state {
            State::NoJson => None,
            State::Closed => Some(true),
            State::Before | State::Inside => Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(text: &str, at: usize) -> Option<bool> {
        let mut json_end = JsonEnd::default();
        let (first, rest) = text.as_bytes().split_at(at);
        json_end.read(first);
        json_end.read(rest);
        json_end.are_closed()
    }

    #[test]
    fn a_text_that_ends_at_any_byte_but_its_last_is_not_closed() {
        let text = r#" {"a":[1,{"]}\"":"\\"}],"b":{}}"#;
        for length in 0..text.len() {
            assert_eq!(closed(&text[..length], length / 2), Some(false), "{}", &text[..length]);
        }
        for at in 0..=text.len() {
            assert_eq!(closed(text, at), Some(true));
        }
        assert_eq!(closed("[]\n ", 3), Some(true));
    }

    #[test]
    fn what_is_no_object_and_no_array_tells_nothing() {
        for text in ["<html>", "\"x", "17", "{} {}", "[]x", "yF0aQ=="] {
            assert_eq!(closed(text, 1), None, "{text}");
        }
    }
}
