//! What a request's `Cache-Control` asks for (RFC 9111 §5.2.1), as far as it is honoured. Which directives are
//! and why is in docs/DECISIONS.md.

use http::header::{CACHE_CONTROL, HeaderMap};

use crate::http::accept::end_of_part;

/// The directives of a request that are honoured. A directive counts if any element of any field has it,
/// whatever the others say: each of them makes the answer stricter.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Directives {
    /// `no-cache`, or a `max-age` of zero: what is stored will not do.
    pub no_cache: bool,
    /// What is fetched for this request is not to be stored.
    pub no_store: bool,
    /// Nothing is to be fetched for this request.
    pub only_if_cached: bool,
}

impl Directives {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for list in headers.get_all(CACHE_CONTROL) {
            let mut rest = list.as_bytes();
            while let Some((element, behind)) =
                end_of_part(rest, b',').and_then(|end| rest.split_at_checked(end))
            {
                directives.take(element);
                rest = behind.get(1..).unwrap_or_default();
            }
            directives.take(rest);
        }
        directives
    }

    fn take(&mut self, element: &[u8]) {
        let mut halves = element.splitn(2, |byte| *byte == b'=');
        let name = halves.next().unwrap_or_default().trim_ascii();
        let value = halves.next().map(<[u8]>::trim_ascii);
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // None of the first three has a value; one that is there changes nothing of what is meant.
        self.no_cache |= is("no-cache") || is("max-age") && value.is_some_and(is_zero);
        self.no_store |= is("no-store");
        self.only_if_cached |= is("only-if-cached");
    }
}

/// Whether it is a number of seconds that is zero, as a token or as a quoted string (RFC 9111 §5.2).
fn is_zero(value: &[u8]) -> bool {
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    match quoted {
        // A backslash stands before any letter (RFC 9110 §5.6.4).
        Some(text) => {
            let mut letters = text.iter();
            let mut any = false;
            while let Some(letter) = letters.next() {
                let letter = if *letter == b'\\' { letters.next() } else { Some(letter) };
                if letter != Some(&b'0') {
                    return false;
                }
                any = true;
            }
            any
        }
        None => !value.is_empty() && value.iter().all(|letter| *letter == b'0'),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::cases::with_cases;

    const NONE: Directives = Directives { no_cache: false, no_store: false, only_if_cached: false };
    const NO_CACHE: Directives = Directives { no_cache: true, ..NONE };
    const NO_STORE: Directives = Directives { no_store: true, ..NONE };
    const ONLY_IF_CACHED: Directives = Directives { only_if_cached: true, ..NONE };

    fn of<T: AsRef<[u8]>>(fields: &[T]) -> Directives {
        let value = |field: &T| HeaderValue::from_bytes(field.as_ref()).expect("a field's value");
        Directives::of(&fields.iter().map(|field| (CACHE_CONTROL, value(field))).collect())
    }

    #[test]
    fn each_directive_is_read_in_any_letter_case_and_anywhere_in_a_list() {
        for (sent, expected) in [
            ("no-cache", NO_CACHE),
            ("No-Cache", NO_CACHE),
            ("no-cache=\"a, no-store\"", NO_CACHE),
            ("no-cache, no-cache", NO_CACHE),
            ("max-age=0", NO_CACHE),
            ("Max-Age = 0", NO_CACHE),
            ("max-age=\"00\"", NO_CACHE),
            ("max-age=\"\\0\"", NO_CACHE),
            ("max-age=60, max-age=0", NO_CACHE),
            ("no-store", NO_STORE),
            ("max-age=60,NO-STORE ", NO_STORE),
            ("no-store=1", NO_STORE),
            (",, ,no-store,", NO_STORE),
            ("x=\"\\\"\",no-store", NO_STORE),
            ("only-if-cached", ONLY_IF_CACHED),
            ("max-stale, Only-If-Cached", ONLY_IF_CACHED),
            ("no-store, max-age=0", Directives { no_store: true, ..NO_CACHE }),
            ("", NONE),
            ("max-age=1", NONE),
            ("max-age=", NONE),
            ("max-age", NONE),
            ("max-age=\"\"", NONE),
            ("max-age=\"0", NONE),
            ("max-age=-0", NONE),
            ("min-fresh=0", NONE),
            ("x-no-cache", NONE),
            ("no-cache;no-store", NONE),
            ("x=\"no-store, no-cache\"", NONE),
            ("x=\"\\\", no-store\"", NONE),
            ("no store", NONE),
        ] {
            assert_eq!(of(&[sent]), expected, "{sent}");
        }
        assert_eq!(of::<&str>(&[]), NONE);
        assert_eq!(of(&["max-age=60", "no-store"]), NO_STORE, "a second field");
        assert_eq!(of(&[&b"x=\"\xff\", no-store"[..]]), NO_STORE, "beside what is no ASCII");
        assert_eq!(of(&["x=\"", "no-store"]), NO_STORE, "a field that does not end its quotes");
    }

    proptest! {
        #![proptest_config(with_cases(2_000))]

        #[test]
        fn order_and_fields_say_nothing(
            elements in proptest::collection::vec(
                "(no-cache|no-store|only-if-cached|max-age|x)(=([0-9]{0,2}|\"[0,a]{0,3}\"))?", 0..6,
            ).prop_shuffle(),
        ) {
            let mut sorted = elements.clone();
            sorted.sort();
            prop_assert_eq!(of(&[elements.join(",")]), of(&[sorted.join(" , ")]));
            prop_assert_eq!(of(&[elements.join(",")]), of(&sorted));
        }
    }
}
