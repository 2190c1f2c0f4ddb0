use super::*;

const NAMES: Names = Names { query: &[], body: &[] };

fn faults(body: &str) -> Vec<Fault> {
    Members::parse(body.as_bytes(), 4, &NAMES).faults
}

fn canonical(body: &str) -> String {
    let members = Members::parse(body.as_bytes(), 8, &NAMES);
    assert!(members.faults.is_empty(), "{:?}", members.faults);
    members.canonical()
}

#[test]
fn order_space_escapes_and_number_spelling_do_not_make_another_body() {
    assert_eq!(canonical(r#"{"b":1.0,"a":"\u0041"}"#), canonical(" { \"a\" : \"A\", \"b\" : 1e0 }"));
    assert_eq!(canonical(r#"{"a":-0}"#), canonical(r#"{"a":0}"#));
    assert_eq!(canonical(r#"{"a":1e2}"#), canonical(r#"{"a":100}"#));
    assert_ne!(canonical(r#"{"a":"1"}"#), canonical(r#"{"a":1}"#));
    assert_ne!(canonical(r#"{"a":[1,2]}"#), canonical(r#"{"a":[2,1]}"#));
    assert_ne!(canonical(r#"{"a":18446744073709551615}"#), canonical(r#"{"a":18446744073709551614}"#));
}

#[test]
fn numbers_keep_every_digit_wherever_they_stand() {
    let body = r#"{"a":[1,-2,1.0222222222222222222222222222,{"b":0.10}],"c":"3.5","d":123456789012345678901234567890}"#;
    let expected = r#"{"a":[1,-2,1.0222222222222222222222222222,{"b":0.1}],"c":"3.5","d":1.2345678901234567890123456789e29}"#;
    assert_eq!(canonical(body), expected);
    assert_eq!(canonical(expected), expected);
    assert_eq!(canonical(r#"{"a":9007199254740993.0}"#), r#"{"a":9007199254740993}"#);
}

#[test]
fn a_byte_order_mark_and_another_encoding_are_named() {
    let fault = |body: &[u8]| Members::parse(body, 4, &NAMES).faults[0].detail.clone();
    assert!(fault(b"\xef\xbb\xbf{}").contains("byte order mark"));
    for body in [&b"\xff\xfe{\0}\0"[..], b"\xfe\xff\0{\0}", b"{\0}\0", b"\0{\0}"] {
        assert!(fault(body).contains("UTF-16"), "{body:?}");
    }
}

#[test]
fn all_duplicate_members_are_named_with_their_place() {
    let faults = faults(r#"{"a":1,"b":{"c":[{"d":1,"d":1}]},"a":2}"#);
    let pointers: Vec<_> = faults.iter().map(|fault| format!("{:?}", fault.place)).collect();
    assert_eq!(pointers, [r#"Pointer("/b/c/0/d")"#, r#"Pointer("/a")"#]);
}

#[test]
fn what_is_no_object_too_deep_or_too_large_is_refused() {
    for body in ["", "[]", "1", "{", r#"{"a":1}x"#, r#"{"a":[[[[]]]]}"#, r#"{"a":1e400}"#, "{'a':1}"] {
        assert_eq!(faults(body).len(), 1, "{body}");
    }
    assert!(faults(r#"{"a":[[[]]]}"#).is_empty());
}
