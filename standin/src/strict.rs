//! What no well-behaved gateway puts into a request, whatever its caller sent.

use serde_json::Value;

use super::options::Switches;
use super::wire::Request;

/// All a request to the vendor needs. Anything else is a caller's header leaking through.
const ALLOWED: [&str; 11] = [
    "host",
    "auth",
    "accountid",
    "iid",
    "accept",
    "accept-encoding",
    "content-type",
    "content-length",
    "user-agent",
    "traceparent",
    "connection",
];

/// Everything wrong with the form of a request; its content is judged by the route.
pub(super) fn objections(request: &Request, switches: &Switches) -> Vec<String> {
    let mut objections: Vec<String> = request
        .headers
        .iter()
        .filter(|(name, _)| !ALLOWED.contains(&name.as_str()))
        .map(|(name, _)| format!("header: {name} has no business here"))
        .collect();
    let agent = request.header("user-agent").unwrap_or_default();
    if agent.contains("Mozilla") {
        objections.push("header: the user-agent is a browser's".into());
    }
    match request.method.as_str() {
        "GET" if !request.body.is_empty() => objections.push("body: a GET has none".into()),
        "POST" => {
            if !is_json(request.header("content-type").unwrap_or_default()) {
                objections.push("header: content-type is not JSON".into());
            }
            if switches.canonical_bodies && !is_canonical(&request.body) {
                objections.push("body: not canonical JSON".into());
            }
        }
        _ => {}
    }
    objections
}

/// `application/json`, in UTF-8 if it says.
fn is_json(content_type: &str) -> bool {
    let bare = content_type.to_ascii_lowercase().replace(' ', "");
    matches!(bare.as_str(), "application/json" | "application/json;charset=utf-8")
}

/// No blanks, members sorted and unrepeated: one question, one spelling.
fn is_canonical(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body)
        .ok()
        .filter(Value::is_object)
        .and_then(|value| serde_json::to_vec(&value).ok())
        .is_some_and(|canonical| canonical == body)
}
