//! Redaction: what is denied is in no answer, the rest is what it was, byte for byte, and to look twice
//! changes nothing.

#![no_main]

use std::sync::{Arc, LazyLock};

use kore_gateway::access::redact::Projection;
use kore_gateway::config::{Pointer, Redaction, Step};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const REMOVED: [&str; 4] = ["/a", "/u/ip", "/rows/*/secret", "/*/x"];
const MASKED: [&str; 3] = ["/m", "/rows/*/m", "/*/y/*"];

fn steps(pointer: &str) -> Vec<Step> {
    let step = |step: &str| if step == "*" { Step::Any } else { Step::Name(step.to_owned()) };
    pointer[1..].split('/').map(step).collect()
}

fn projection(removed: &[&str], masked: &[&str]) -> Projection {
    let pointers = |texts: &[&str]| texts.iter().map(|text| Pointer(steps(text))).collect();
    let profile = Redaction {
        name: Arc::from("fuzz"),
        remove: pointers(removed),
        mask: pointers(masked),
        show: Vec::new(),
        kinds: Vec::new(),
        text: Vec::new(),
    };
    Projection::new(std::iter::once(&profile), None).expect("a projection")
}

static BOTH: LazyLock<Projection> = LazyLock::new(|| projection(&REMOVED, &MASKED));
static REMOVING: LazyLock<Projection> = LazyLock::new(|| projection(&REMOVED, &[]));

/// What is left of a value at a place where these rules hold, done the slow and obvious way.
fn left(value: &Value, removing: &[&[Step]], masking: &[&[Step]]) -> Option<Value> {
    if removing.iter().any(|rule| rule.is_empty()) {
        return None;
    }
    if masking.iter().any(|rule| rule.is_empty()) {
        return Some(if value.is_string() { "***".into() } else { Value::Null });
    }
    fn below<'a>(rules: &[&'a [Step]], name: &str) -> Vec<&'a [Step]> {
        let leads = |step: &Step| match step {
            Step::Any => true,
            Step::Name(wanted) => *wanted == name.to_lowercase(),
        };
        rules.iter().filter(|rule| leads(&rule[0])).map(|rule| &rule[1..]).collect()
    }
    Some(match value {
        Value::Object(members) => members
            .iter()
            .filter_map(|(name, value)| {
                Some((name.clone(), left(value, &below(removing, name), &below(masking, name))?))
            })
            .collect(),
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .filter_map(|(index, value)| {
                let name = index.to_string();
                left(value, &below(removing, &name), &below(masking, &name))
            })
            .collect(),
        value => value.clone(),
    })
}

fn is_subsequence(part: &[u8], whole: &[u8]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|byte| whole.any(|other| other == byte))
}

fuzz_target!(|body: &[u8]| {
    let Ok(shown) = BOTH.apply(body, true) else {
        assert_eq!(REMOVING.apply(body, true).ok(), None);
        return;
    };
    assert_eq!(BOTH.apply(&shown, true).as_ref(), Ok(&shown), "to look twice changes nothing");
    let removed = REMOVING.apply(body, true).expect("as readable as before");
    assert!(is_subsequence(&removed, body), "something was written anew");
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    let rules = [&REMOVED[..], &MASKED[..]].map(|texts| texts.iter().map(|text| steps(text)).collect::<Vec<_>>());
    let [removing, masking] = rules.each_ref().map(|rules| rules.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let expected = left(&value, &removing, &masking).expect("the root is not denied");
    let got: Value = serde_json::from_slice(&shown).expect("still JSON");
    assert_eq!(got, expected);
    if expected == value {
        let names_once = body.iter().filter(|byte| **byte == b':').count() < 2;
        assert!(!names_once || shown == body, "nothing was denied, and it changed");
    }
});
