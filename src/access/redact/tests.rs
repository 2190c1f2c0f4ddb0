use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::cases::with_cases;
use crate::config::{Pointer, RedactionKind};
use crate::routes::ROUTES;

fn pointers(texts: &[&str]) -> Vec<Pointer> {
    let step = |token: &str| match token {
        "*" => Step::Any,
        name => Step::Name(name.to_owned()),
    };
    texts.iter().map(|text| Pointer(text[1..].split('/').map(step).collect())).collect()
}

fn profile(remove: &[&str], mask: &[&str], kinds: &[RedactionKind], text: &[&str]) -> Redaction {
    Redaction {
        name: Arc::from("test"),
        remove: pointers(remove),
        mask: pointers(mask),
        show: Vec::new(),
        kinds: kinds.to_vec(),
        text: pointers(text),
    }
}

fn shown(profile: &Redaction, body: &str) -> String {
    let projection = Projection::new(std::iter::once(profile), None).expect("a projection");
    String::from_utf8(projection.apply(body.as_bytes(), true).expect("readable")).expect("text")
}

#[test]
fn what_is_removed_goes_with_its_comma_and_everything_else_stays_as_it_is_spelled() {
    let profile = profile(&["/a", "/list/1", "/rows/*/secret"], &[], &[], &[]);
    for (body, expected) in [
        (r#"{"a":1,"b":1.0e+2,"\u0063":"\u00e9"}"#, r#"{"b":1.0e+2,"\u0063":"\u00e9"}"#),
        (r#"{"b":1,"a":{"x":[1,2,{"}":"]"}]}}"#, r#"{"b":1}"#),
        (r#" { "a" : 1 } "#, r#" {} "#),
        ("{\n  \"b\": 2,\n  \"a\": 1,\n  \"c\": 3\n}", "{\n  \"b\": 2,\n  \"c\": 3\n}"),
        (r#"{"list":[1, 2, 3],"A":1,"\u0061":2}"#, r#"{"list":[1, 3]}"#),
        (r#"{"rows":[{"secret":1},{"x":1,"Secret":2},7,[]]}"#, r#"{"rows":[{},{"x":1},7,[]]}"#),
        (r#"{"a":1,"a":2,"b":3}"#, r#"{"b":3}"#),
        ("[1]", "[1]"),
        ("\"a\"", "\"a\""),
        ("", ""),
    ] {
        assert_eq!(shown(&profile, body), expected, "{body}");
    }
}

#[test]
fn what_is_not_listed_is_shown_only_if_the_profile_names_it() {
    let listed = [
        Listed { at: &[], members: &["id", "Rows", "info"] },
        Listed { at: &["rows", "*"], members: &["text", "extra"] },
    ];
    let mut profile =
        profile(&["/gone", "/*/*/secret"], &["/masked"], &[RedactionKind::Phone], &["/rows/*/text"]);
    profile.show = pointers(&["/shown", "/rows/*/also"]);
    let shown = |whole| {
        let projection = Projection::new(std::iter::once(&profile), None).expect("a projection").of(&listed);
        let body = r#"{"id":1, "new":{"id":1},"ID":2,"info":{"any":{"x":1}},"masked":1,"gone":1,"n\u0065w":"t",
            "rows":[{"text":"+15550599716","new":"+15550599716","secret":1,"also":1},[{"new":1}],{"EXTRA":{"new":1}},1],
            "sh\u006fwn":{"new":1},"\ud800":1}"#;
        String::from_utf8(projection.apply(body.as_bytes(), whole).expect("readable")).expect("text")
    };
    assert_eq!(
        shown(true),
        r#"{"id":1,"ID":2,"info":{"any":{"x":1}},"masked":null,
            "rows":[{"text":"***","also":1},[{"new":1}],{"EXTRA":{"new":1}},1],
            "sh\u006fwn":{"new":1}}"#
    );
    assert!(shown(false).contains(r#""new":{"id":1}"#), "an error has members of its own");
}

/// All that the vendor's pages and samples show stays.
#[test]
fn what_the_vendor_shows_is_listed() {
    let profile = profile(&["/nothing"], &["/data/*/nothing", "/conversationHistory/*/nothing"], &[], &[]);
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples");
    let mut seen = 0;
    for route in &ROUTES {
        let projection =
            Projection::new(std::iter::once(&profile), None).expect("a projection").of(route.listed);
        for file in std::fs::read_dir(samples).expect("samples").map(|file| file.expect("a file").path()) {
            let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
            let is_routes = name.strip_prefix(route.name.as_str()).is_some_and(|rest| rest.starts_with('.'));
            if is_routes && (name.ends_with(".response.json") || name.ends_with("_row.json")) {
                let mut body = std::fs::read(&file).expect("a sample");
                if name.ends_with("_row.json") {
                    body = [br#"{"numResults":1,"data":["#, &body[..], b"]}"].concat();
                }
                assert!(projection.apply(&body, true).as_ref() == Ok(&body), "{name}");
                seen += 1;
            }
        }
    }
    assert!(seen >= ROUTES.len(), "{seen}");
}

#[test]
fn what_is_masked_keeps_its_place_but_not_its_value() {
    let profile = profile(&["/a/gone"], &["/a/*", "/s"], &[], &[]);
    let body = r#"{"a":{"gone":1,"x":"secret","y":[1,2]}, "s": "","t":1}"#;
    assert_eq!(shown(&profile, body), r#"{"a":{"x":"***","y":null}, "s": "***","t":1}"#);
}

#[test]
fn kinds_are_found_in_free_text_however_it_is_escaped_and_nowhere_else() {
    let profile = profile(&[], &[], &[RedactionKind::Email, RedactionKind::Phone], &["/text", "/list/*/t"]);
    let body = r#"{"text":["caf\u00e9 a\u0040b.example \ud83d\ude00 end",{"deep":"+1\u00205550599716"}],"other":"a@b.example","list":[{"t":"\"x@y.example\"","id":"x@y.example"}]}"#;
    let expected = r#"{"text":["caf\u00e9 *** \ud83d\ude00 end",{"deep":"***"}],"other":"a@b.example","list":[{"t":"\"***\"","id":"x@y.example"}]}"#;
    assert_eq!(shown(&profile, body), expected);
}

#[test]
fn a_cards_number_is_found_where_it_is_a_number_and_a_time_stays() {
    let profile = profile(&[], &[], &[RedactionKind::Card], &["/text"]);
    let body = r#"{"text":[{"card":4111111111111111,"at":1691407090369,"n":[41,-4111111111111111,4.111111111111111e15]}],"id":4111111111111111}"#;
    let expected = r#"{"text":[{"card":null,"at":1691407090369,"n":[41,-4111111111111111,4.111111111111111e15]}],"id":4111111111111111}"#;
    assert_eq!(shown(&profile, body), expected);
}

#[test]
fn rows_of_other_bots_and_of_nobody_are_left_out() {
    let bots = Bots::These(vec!["st-1".to_owned()]);
    let profile = profile(&["/data/*/x"], &["/data/*/y"], &[], &[]);
    let projection = Projection::new(std::iter::once(&profile), Some(&bots)).expect("a projection");
    let apply = |body: &str| {
        projection.apply(body.as_bytes(), true).map(|shown| String::from_utf8(shown).expect("text"))
    };
    let body = r#"{"numResults":7,"data":[{"botId":"st-1","x":1,"y":2},{"botId":"st-2"},{"x":1},
        {"botId":"st-1","botId":"st-2"},{"botID":"st-1"},"st-1",["st-1"],{"\u0062otId":"st\u002d1"}]}"#;
    let expected = r#"{"numResults":2,"data":[{"botId":"st-1","y":null},{"\u0062otId":"st\u002d1"}]}"#;
    assert_eq!(apply(body).as_deref(), Ok(expected));
    // Nothing at the top tells of the others, however it is spelled and wherever it stands.
    let body = r#"{"total":9,"numResults" : 6.0e0 , "byBot":{"st-2":5},"data":[{"botId":"st-1","numResults":7},{"botId":"st-2"}],
        "num\u0052esults":"6","hasMore":true, "NUMRESULTS":[6]}"#;
    let expected = r#"{"numResults" : 1 ,"data":[{"botId":"st-1","numResults":7}],
        "num\u0052esults":1, "NUMRESULTS":1}"#;
    assert_eq!(apply(body).as_deref(), Ok(expected));
    assert_eq!(
        apply(r#"{"data":[{"botId":"st-2"}],"numResults":1}"#).as_deref(),
        Ok(r#"{"data":[],"numResults":0}"#)
    );
    assert_eq!(apply(r#"{"data":[]}"#).as_deref(), Ok(r#"{"data":[]}"#));
    assert_eq!(apply(r#"{"rows":[{"botId":"st-2"}]}"#), Err(Unreadable::NoRows));
    assert_eq!(apply(r#"{"data":{"botId":"st-2"}}"#), Err(Unreadable::NoRows));
    assert_eq!(projection.apply(br#"{"errors":[]}"#, false), Ok(br#"{"errors":[]}"#.to_vec()));
}

#[test]
fn what_cannot_be_read_is_not_shown() {
    let profile = profile(&["/a"], &[], &[], &[]);
    let projection = Projection::new(std::iter::once(&profile), None).expect("a projection");
    for body in [&b"<html>"[..], b"{\"a\":1", b"{\"a\":\xff}", b"\xef\xbb\xbf{}", b"{} {}", b"{\"a\":01}"] {
        assert_eq!(projection.apply(body, true), Err(Unreadable::NotJson), "{}", body.escape_ascii());
    }
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(projection.apply(nested(128).as_bytes(), true).is_ok());
    assert_eq!(projection.apply(nested(129).as_bytes(), true), Err(Unreadable::TooDeep));
    assert_eq!(projection.apply(nested(100_000).as_bytes(), true), Err(Unreadable::TooDeep));
}

#[test]
fn equal_profiles_share_an_id_and_different_ones_do_not() {
    let id = |profile: &Redaction, rows: Option<&Bots>| {
        *Projection::new(std::iter::once(profile), rows).expect("a projection").id()
    };
    let bots = Bots::These(vec!["st-1".to_owned()]);
    let a = profile(&["/a"], &[], &[], &[]);
    assert_eq!(id(&a, None), id(&profile(&["/a"], &[], &[], &[]), Some(&Bots::Any)));
    for other in [
        id(&profile(&[], &["/a"], &[], &[]), None),
        id(&profile(&["/b"], &[], &[], &[]), None),
        id(&a, Some(&bots)),
    ] {
        assert_ne!(id(&a, None), other);
    }
    assert!(Projection::new(std::iter::empty(), Some(&Bots::Any)).is_none());
}

/// JSON as a tree of its own spellings, so that what ought to be shown can be written out without
/// the code under test.
#[derive(Clone, Debug)]
enum Spelled {
    Scalar(String),
    List(Vec<(Self, String)>),
    Object(Vec<(String, Self, String)>),
}

const NAMES: [&str; 5] = ["a", "b", "c", "A", "\\u0062"];

fn name_of(spelling: &str) -> String {
    serde_json::from_str::<String>(&format!("\"{spelling}\"")).expect("a name").to_lowercase()
}

impl Spelled {
    /// The text, without what `denied` says of a path.
    fn write(&self, path: &[String], denied: &dyn Fn(&[String]) -> bool) -> String {
        let below = |name: String| [path, &[name]].concat();
        match self {
            Self::Scalar(text) => text.clone(),
            Self::List(items) => {
                let items = items.iter().enumerate().map(|(index, item)| (below(index.to_string()), item));
                let shown: Vec<String> = items
                    .filter(|(path, _)| !denied(path))
                    .map(|(path, (item, space))| format!("{space}{}{space}", item.write(&path, denied)))
                    .collect();
                format!("[{}]", shown.join(","))
            }
            Self::Object(members) => {
                let members =
                    members.iter().map(|(name, value, space)| (below(name_of(name)), name, value, space));
                let shown: Vec<String> = members
                    .filter(|(path, ..)| !denied(path))
                    .map(|(path, name, value, space)| {
                        format!("{space}\"{name}\"{space}:{space}{}{space}", value.write(&path, denied))
                    })
                    .collect();
                format!("{{{}}}", shown.join(","))
            }
        }
    }
}

fn spelled() -> impl Strategy<Value = Spelled> {
    let scalar = prop::sample::select(vec![
        "1",
        "-0.0",
        "1E+400",
        "12345678901234567890.10",
        "true",
        "null",
        "\"\"",
        "\"a\\\"}],{\"",
        "\"\\u00e9é\\ud800\"",
    ]);
    let space = prop::sample::select(vec!["", " ", "\n\t "]).prop_map(str::to_owned);
    let scalar = scalar.prop_map(|text| Spelled::Scalar(text.to_owned()));
    scalar.prop_recursive(4, 40, 5, move |inner| {
        let name = prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec((inner.clone(), space.clone()), 0..5).prop_map(Spelled::List),
            prop::collection::vec((name, inner, space.clone()), 0..5).prop_map(Spelled::Object),
        ]
    })
}

fn pointer() -> impl Strategy<Value = Vec<String>> {
    let step = prop::sample::select(vec!["a", "b", "c", "*", "0", "1"]).prop_map(str::to_owned);
    prop::collection::vec(step, 1..4)
}

fn matches(pointer: &[String], path: &[String]) -> bool {
    pointer.len() == path.len() && pointer.iter().zip(path).all(|(step, name)| step == "*" || step == name)
}

/// Whether anything is left at a pointer, by a reader of JSON that is not ours.
fn is_there(value: &Value, pointer: &[String]) -> bool {
    let Some((step, rest)) = pointer.split_first() else { return true };
    let hit = |name: &str| step == "*" || step == name;
    match value {
        Value::Array(items) => {
            items.iter().enumerate().any(|(i, item)| hit(&i.to_string()) && is_there(item, rest))
        }
        Value::Object(members) => {
            members.iter().any(|(name, value)| hit(&name.to_lowercase()) && is_there(value, rest))
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(with_cases(2_000))]

    /// What is denied is not there, and what is not denied is there byte for byte.
    #[test]
    fn no_denied_pointer_is_ever_shown_and_the_rest_is_as_it_was(
        document in spelled(),
        denied in prop::collection::vec(pointer(), 1..4),
    ) {
        let texts: Vec<String> = denied.iter().map(|pointer| format!("/{}", pointer.join("/"))).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let body = document.write(&[], &|_| false);
        let expected = document.write(&[], &|path| denied.iter().any(|pointer| matches(pointer, path)));
        let shown = shown(&profile(&texts, &[], &[], &[]), &body);
        prop_assert_eq!(&shown, &expected);
        // Elements move up when one before them goes, and lone surrogates are not everybody's.
        let indices = denied.iter().flatten().any(|step| step == "0" || step == "1");
        if !indices && let Ok(value) = serde_json::from_str::<Value>(&shown) {
            for pointer in &denied {
                prop_assert!(!is_there(&value, pointer));
            }
        }
    }

    /// Masked or searched, the text stays JSON, and nothing outside of the places changes.
    #[test]
    fn masking_touches_the_masked_places_only(document in spelled(), masked in pointer()) {
        let body = document.write(&[], &|_| false);
        let text = format!("/{}", masked.join("/"));
        let shown = shown(&profile(&[], &[&text], &[RedactionKind::Card], &["/*"]), &body);
        let untouched = |path: &[String]| matches(&masked, path);
        prop_assert_eq!(
            shown_without(&shown, &masked),
            document.write(&[], &untouched)
        );
    }
}

/// What begins a find, goes on with one or ends one, in every script and spelling that is looked for.
const HOSTILE: [&str; 40] = [
    "@",
    "%40",
    "%",
    "%4",
    "a",
    "f",
    ".",
    ":",
    "::",
    "-",
    "+",
    "(",
    ")",
    "/",
    " ",
    "1",
    "4",
    "0000",
    "4111",
    "1 ",
    "1.",
    "1-",
    "1:",
    "f:",
    "1.1.1.1",
    "4111 1111 1111 1111",
    "2026-02-16 ",
    "a@b.example",
    "\u{660}",
    "\u{ff14}",
    "\u{a0}",
    "\u{200b}",
    "张",
    "\n",
    "\\",
    "\"",
    "_",
    "+1 555 059 9716",
    "a%40",
    "b.example",
];

/// A few pieces, over and over, perhaps with others around them.
fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(HOSTILE.to_vec());
    let pieces = prop::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat());
    let part = (pieces, 1..800_usize).prop_map(|(pieces, times)| pieces.repeat(times));
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.concat())
}

/// A text as a JSON string: as it is, every character escaped, or every byte spelled as in a URL.
fn spelled_as(text: &str, spelling: u8) -> String {
    match spelling {
        0 => serde_json::to_string(text).expect("a string"),
        1 => format!("\"{}\"", text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>()),
        _ => format!("\"{}\"", text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>()),
    }
}

/// Steps for each byte of a body, at most: some ten for each detector that walks over digits.
const STEPS_PER_BYTE: usize = 40;

proptest! {
    #![proptest_config(with_cases(500))]

    /// Whatever is written into it, looking into a body takes steps in proportion to its length.
    #[test]
    fn the_work_on_any_text_grows_with_its_length_and_no_faster(
        text in hostile_text(),
        spelling in 0..3_u8,
        as_number in any::<bool>(),
    ) {
        let mut body = format!("{{\"text\":[{}", spelled_as(&text, spelling));
        if as_number {
            body.push_str(",1");
            body.extend(std::iter::repeat_n('4', text.len()));
        }
        body.push_str("]}");
        let profile = profile(&[], &[], &[RedactionKind::Email, RedactionKind::Phone, RedactionKind::Ip, RedactionKind::Card], &["/text"]);
        let projection = Projection::new(std::iter::once(&profile), None).expect("a projection");
        let mut work = Work::unlimited();
        let shown = projection.apply_within(&mut work, body.as_bytes(), true);
        prop_assert!(shown.is_ok());
        let most = (STEPS_PER_BYTE * (body.len() + 100)) as u64;
        prop_assert!(work.steps() <= most, "{} steps for {} bytes", work.steps(), body.len());
        prop_assert!(work.steps() >= body.len() as u64, "every byte is looked at");
    }
}

/// Counts repeated a hundred thousand times at the top, each to be written anew.
#[test]
fn a_window_that_repeats_its_count_is_written_once() {
    let profile = profile(&["/x"], &[], &[], &[]);
    let bots = Bots::These(vec!["st-1".to_owned()]);
    let projection = Projection::new(std::iter::once(&profile), Some(&bots)).expect("a projection");
    let counts = "\"numResults\":7,".repeat(1000);
    let body = format!("{{{counts}\"data\":[{{\"botId\":\"st-1\"}}]}}");
    let shown = projection.apply(body.as_bytes(), true).expect("readable");
    assert_eq!(String::from_utf8(shown).expect("text"), body.replace('7', "1"));
}

/// Of nodes that lead on, no place has more than there are pointers, however many stars they have.
#[test]
fn the_work_on_a_nested_body_grows_with_the_pointers_and_no_faster() {
    let tree = (0..9).fold("1".to_owned(), |below, _| format!("[{below},{below},{{\"a\":{below}}}]"));
    let body = format!("{{\"a\":{tree},\"b\":{}1{}}}", "[".repeat(120), "]".repeat(120));
    let mut stars = Vec::new();
    for depth in 0..10 {
        for place in 0..=depth {
            let steps = (0..=depth).map(|step| if step == place { "/a" } else { "/*" });
            stars.push(steps.collect::<String>() + "/x");
        }
    }
    for count in [1, 10, stars.len()] {
        let pointers: Vec<&str> = stars.iter().take(count).map(String::as_str).collect();
        let profile = profile(&pointers, &[], &[RedactionKind::Card], &pointers);
        let projection = Projection::new(std::iter::once(&profile), None).expect("a projection");
        let mut work = Work::unlimited();
        assert!(projection.apply_within(&mut work, body.as_bytes(), true).is_ok());
        let most = (4 * (count + 2) * body.len()) as u64;
        assert!(work.steps() <= most, "{} steps for {} bytes and {count} pointers", work.steps(), body.len());
    }
}

#[test]
fn a_body_that_takes_too_much_work_is_not_shown() {
    let profile = profile(&[], &[], &[RedactionKind::Email], &["/text"]);
    let projection = Projection::new(std::iter::once(&profile), None).expect("a projection");
    let body = br#"{"text":"a@b.example"}"#;
    let within = |most| projection.apply_within(&mut Work::within(most, Arc::default()), body, true);
    let mut work = Work::unlimited();
    assert!(projection.apply_within(&mut work, body, true).is_ok());
    assert!(within(work.steps()).is_ok());
    assert_eq!(within(work.steps() - 1), Err(Unreadable::TooMuchWork));
    let mut unwanted = Work::within(u64::MAX, Arc::new(true.into()));
    assert_eq!(projection.apply_within(&mut unwanted, body, true), Err(Unreadable::Unwanted));
}

/// What is left of a text when a pointer is removed from it too.
fn shown_without(body: &str, pointer: &[String]) -> String {
    shown(&profile(&[&format!("/{}", pointer.join("/"))], &[], &[], &[]), body)
}
