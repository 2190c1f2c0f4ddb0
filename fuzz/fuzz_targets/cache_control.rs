//! `Cache-Control` of requests: read as a plain reference reads it, letter by letter, in whatever order and in
//! however many fields the elements come.

#![no_main]

use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use kore_gateway::access::cache_control::Directives;
use libfuzzer_sys::fuzz_target;

/// The elements of a field, of which those within quotes are none.
fn elements(field: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut at) = (vec![Vec::new()], 0);
    let push = |all: &mut Vec<Vec<u8>>, letter: u8| all.last_mut().expect("one at least").push(letter);
    while let Some(&letter) = field.get(at) {
        at += 1;
        if letter == b',' {
            all.push(Vec::new());
            continue;
        }
        push(&mut all, letter);
        if letter != b'"' {
            continue;
        }
        // To the end of the string.
        while let Some(&letter) = field.get(at) {
            at += 1;
            push(&mut all, letter);
            match letter {
                b'"' => break,
                b'\\' => {
                    if let Some(&escaped) = field.get(at) {
                        at += 1;
                        push(&mut all, escaped);
                    }
                }
                _ => {}
            }
        }
    }
    all
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// The number of seconds, if the value is one.
fn seconds(value: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = if value.len() > 1 && value.starts_with(b"\"") && value.ends_with(b"\"") {
        let (mut text, mut at, inner) = (Vec::new(), 0, &value[1..value.len() - 1]);
        while at < inner.len() {
            if inner[at] == b'\\' {
                at += 1;
            }
            text.push(*inner.get(at)?);
            at += 1;
        }
        text
    } else {
        value.to_vec()
    };
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some(digits)
}

fn expected(all: &[Vec<u8>]) -> Directives {
    let mut directives = Directives::default();
    for element in all {
        let (name, value) = match element.iter().position(|letter| *letter == b'=') {
            Some(at) => (trim(&element[..at]), Some(trim(&element[at + 1..]))),
            None => (trim(element), None),
        };
        match name.to_ascii_lowercase().as_slice() {
            b"no-cache" => directives.no_cache = true,
            b"no-store" => directives.no_store = true,
            b"only-if-cached" => directives.only_if_cached = true,
            b"max-age" => {
                let seconds = value.and_then(seconds);
                directives.no_cache |= seconds.is_some_and(|digits| digits.iter().all(|digit| *digit == b'0'));
            }
            _ => {}
        }
    }
    directives
}

fn read<T: AsRef<[u8]>>(fields: &[T]) -> Option<Directives> {
    let value = |field: &T| Some((CACHE_CONTROL, HeaderValue::from_bytes(field.as_ref()).ok()?));
    Some(Directives::of(&fields.iter().map(value).collect::<Option<HeaderMap>>()?))
}

fuzz_target!(|data: &[u8]| {
    let fields: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let Some(found) = read(&fields) else { return };
    let mut all: Vec<Vec<u8>> = fields.iter().flat_map(|field| elements(field)).collect();
    assert_eq!(found, expected(&all));
    // In another order, one to a field; and in one field, unless a string has no end: then what stands behind
    // it is part of it.
    all.sort();
    assert_eq!(read(&all), Some(found));
    let ends = |element: &Vec<u8>| elements(&[element, &b",x"[..]].concat()).len() == 2;
    if all.iter().all(ends) {
        assert_eq!(read(&[all.join(&b","[..])]), Some(found));
    }
});
