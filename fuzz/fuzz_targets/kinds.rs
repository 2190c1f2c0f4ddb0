//! Kinds of data in free text: the work on a text grows with its length and no faster; what stands out of the text
//! on a line of its own is found whatever surrounds it; and the rest stays.

#![no_main]

use std::sync::{Arc, LazyLock};

use kore_gateway::access::redact::{Projection, Work};
use kore_gateway::config::{RedactionKind, Pointer, Redaction, Step};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// What begins a find, goes on with one or ends one. A byte of the input chooses one of them.
const PIECES: [&str; 48] = [
    "@", "%40", "%", "%4", "a", "f", "x", "_", ".", ":", "::", "-", "+", "(", ")", "/", " ", "\n", "\\", "\"", "0", "1",
    "4", "7", "0000", "4111", "1 ", "1.", "1-", "1:", "f:", "1.1.1.1", "4111 1111 1111 1111", "5555555555554444",
    "2026-02-16 ", "a@b.example", "b.example", "+1 555 059 9716", "\u{660}", "\u{6f4}", "\u{966}", "\u{ff14}", "\u{a0}",
    "\u{200b}", "\u{2011}", "张", "ü", "\r",
];

/// One of each kind.
const KNOWN: [&str; 4] = ["asha@mail.example", "+1 (555) 059-9716", "203.0.113.69", "3782-822463-10005"];

/// As the property test beside the detectors has it.
const STEPS_PER_BYTE: usize = 40;

static ALL: LazyLock<Projection> = LazyLock::new(|| {
    let profile = Redaction {
        name: Arc::from("fuzz"),
        remove: Vec::new(),
        mask: Vec::new(),
        show: Vec::new(),
        kinds: vec![RedactionKind::Email, RedactionKind::Phone, RedactionKind::Ip, RedactionKind::Card],
        text: vec![Pointer(vec![Step::Name("text".to_owned())])],
    };
    Projection::new(std::iter::once(&profile), None).expect("a projection")
});

/// A text of pieces. A byte beyond them repeats all that there is so far, or is a character of its own.
fn text(input: &[u8]) -> String {
    const LONGEST: usize = 512;
    let mut text = String::new();
    for byte in input.iter().map(|byte| usize::from(*byte)) {
        match byte {
            240.. if text.len() <= LONGEST => text = text.repeat(byte - 238),
            byte => match PIECES.get(byte) {
                Some(piece) => text.push_str(piece),
                None => text.push(char::from(byte as u8)),
            },
        }
    }
    text
}

/// The text as a JSON string: as serde spells it, every character escaped, or every byte spelled as in a URL.
fn spelled(text: &str, how: u8) -> String {
    match how % 3 {
        0 => serde_json::to_string(text).expect("a string"),
        1 => format!("\"{}\"", text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>()),
        _ => format!("\"{}\"", text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>()),
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((how, input)) = input.split_first() else { return };
    let text = text(input);
    let known = KNOWN.join("\n");
    let body = format!(
        r#"{{"text":[{},{}],"id":{}}}"#,
        spelled(&text, *how),
        spelled(&format!("{text}\n{known}\n{text}"), 0),
        spelled(&text, 0)
    );
    let mut work = Work::unlimited();
    let shown = ALL.apply_within(&mut work, body.as_bytes(), true).expect("readable");
    assert!(work.steps() <= (STEPS_PER_BYTE * (body.len() + 100)) as u64, "{} for {}", work.steps(), body.len());
    let shown: Value = serde_json::from_slice(&shown).expect("still JSON");
    let searched = shown["text"][1].as_str().expect("a string");
    for known in KNOWN {
        // The text may hold one of its own, between characters that make it another thing.
        assert!(text.contains(known) || !searched.contains(known), "{known} is shown");
    }
    assert_eq!(shown["id"], text, "what is no free text stays");
    let mut rest = text.chars();
    let masked = shown["text"][0].as_str().expect("a string");
    assert!(how % 3 == 2 || masked.split("***").flat_map(str::chars).all(|c| rest.any(|other| other == c)), "written anew");
});
