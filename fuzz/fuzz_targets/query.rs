//! The canonical request: it is its own canonical form, equal meaning has an equal key, and a request
//! that is refused is told why.

#![no_main]

use http::Method;
use http::uri::PathAndQuery;
use kore_gateway::routes::{self, Found, Key, RequestLimits, Request};
use libfuzzer_sys::fuzz_target;

const LIMITS: RequestLimits = RequestLimits { conversation_details_limit: 100, max_json_depth: 32 };

/// Method and path of each route.
const PATHS: [(Method, &str); 3] = [
    (Method::GET, "/agentassist/api/v1/public/st-1/conversations/c-1"),
    (Method::POST, "/agentassist/api/public/analytics/account/a1/v2/interactionDetails"),
    (Method::POST, "/api/public/bot/st-1/conversationDetails"),
];

struct Canonical {
    query: String,
    body: String,
    key: Key,
}

fn canonical(route: usize, query: &str, body: &[u8]) -> Option<Canonical> {
    let (method, path) = &PATHS[route];
    let target: PathAndQuery = format!("{path}?{query}").parse().ok()?;
    let Found::Route(route, ids) = routes::find(method, &target) else { panic!("{path} leads nowhere") };
    let body = (method == Method::POST).then_some(body);
    let query = target.query().unwrap_or_default();
    match (route.parse)(&Request { ids: &ids, query, body, limits: LIMITS }) {
        Ok(canonical) => {
            let key = Key::new("account", route, &ids, &canonical);
            Some(Canonical { query: canonical.query, body: canonical.body, key })
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            assert!(faults.iter().all(|fault| !fault.detail.is_empty()));
            None
        }
    }
}

/// The same parameters, every letter and digit spelled in percent.
fn in_percent(query: &str) -> String {
    let mut spelled = String::new();
    let mut bytes = query.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            spelled.push('%');
            spelled.extend(bytes.by_ref().take(2).map(char::from));
        } else if byte.is_ascii_alphanumeric() {
            spelled.push_str(&format!("%{byte:02x}"));
        } else {
            spelled.push(char::from(byte));
        }
    }
    spelled
}

/// The same JSON with a blank after all that stands outside of strings and is no part of a word.
fn spaced(body: &[u8]) -> Vec<u8> {
    let mut spelled = Vec::new();
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in body {
        spelled.push(*byte);
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'}' | b'[' | b']' | b',' | b':' if !in_string => spelled.extend(b" \t"),
            _ => {}
        }
    }
    spelled
}

fuzz_target!(|input: &[u8]| {
    let Some((route, rest)) = input.split_first() else { return };
    let route = usize::from(*route) % 3;
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (query, body) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    let Ok(query) = std::str::from_utf8(query) else { return };
    if !query.is_ascii() || query.contains('#') {
        return;
    }
    let Some(first) = canonical(route, query, body) else { return };
    let again = canonical(route, &first.query, first.body.as_bytes()).expect("a canonical request is valid");
    assert_eq!((&again.query, &again.body), (&first.query, &first.body));
    assert_eq!(again.key, first.key);
    // A `%` that begins no escape stands for itself; what follows it must then not be spelled anew.
    let is_plain = query.match_indices('%').all(|(at, _)| {
        query.get(at + 1..at + 3).is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    });
    if is_plain {
        let other = canonical(route, &in_percent(query), &spaced(body)).expect("the same request");
        assert_eq!(other.key, first.key);
    }
});
