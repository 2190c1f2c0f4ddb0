//! Credentials where none may be: in the path, the query string and the body, which go upstream and end up in
//! logs there. It is the values that count, whatever their names are.

use std::borrow::Cow;

use serde_json::{Number, Value};

use super::identify::key_digest;
use crate::config::Clients;
use crate::error::{Fault, MOST_FAULTS};
use crate::routes::{Ids, Spellings};

/// How deep a body is looked into. Deeper ones are refused.
const DEEPEST: usize = 128;

/// What of a request goes upstream, as it was sent.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    pub ids: &'a Ids,
    pub query: &'a str,
    pub body: Option<&'a [u8]>,
    /// The credential in its header: a token is known by it alone.
    pub presented: Option<&'a [u8]>,
}

/// A fault for each credential, which names its place and does not repeat it.
pub fn credentials(clients: &Clients, sent: Sent<'_>) -> Vec<Fault> {
    let mut search = Search { clients, presented: sent.presented, faults: Vec::new() };
    for (id, name) in [
        (sent.ids.account(), "accountId"),
        (sent.ids.bot(), "streamId"),
        (sent.ids.conversation(), "conversationId"),
    ] {
        if id.is_some_and(|id| search.is_credential(id)) {
            search.report(|detail| Fault::in_parameter(name, detail), "an id in the path");
        }
    }
    for (name, value) in form_urlencoded::parse(sent.query.as_bytes()) {
        search.parameter(&name, &value);
    }
    // A plus sign is a blank in a form, and itself in a key.
    if sent.query.contains('+') {
        for (name, value) in form_urlencoded::parse(sent.query.replace('+', "%2B").as_bytes()) {
            search.parameter(&name, &value);
        }
    }
    if let Some(body) = sent.body
        && let Ok(value) = serde_json::from_slice(body)
    {
        search.value(&value, &mut Vec::new());
        search.numbers(body);
    }
    search.faults
}

struct Search<'a> {
    clients: &'a Clients,
    presented: Option<&'a [u8]>,
    faults: Vec<Fault>,
}

impl Search<'_> {
    fn report(&mut self, at: impl FnOnce(String) -> Fault, what: &str) {
        if self.faults.len() <= MOST_FAULTS {
            self.faults.push(at(format!("{what} is a credential; send it in its header and nowhere else")));
        }
    }

    /// Whether a text is a client's key, valid or expired, or what the caller has presented; also behind
    /// the name of a scheme.
    fn is_credential(&self, text: &str) -> bool {
        let text = text.trim();
        let bare = text.split_once(' ').map_or(text, |(_, rest)| rest.trim());
        let is = |text: &str| {
            let bytes = text.as_bytes();
            let is_presented = self.presented.is_some_and(|presented| presented == bytes);
            !bytes.is_empty() && (is_presented || self.clients.has_key(&key_digest(bytes)))
        };
        is(text) || bare.len() < text.len() && is(bare)
    }

    fn parameter(&mut self, name: &str, value: &str) {
        if self.is_credential(name) {
            self.report(|detail| Fault::in_parameter("…", detail), "the name of a parameter");
        } else if self.is_credential(value) {
            self.report(|detail| Fault::in_parameter(name.to_owned(), detail), "the value of a parameter");
        }
    }

    /// The numbers of a body that a value has lost digits of, as they are spelled.
    fn numbers(&mut self, body: &[u8]) {
        let is_exact = |text: &str| text.parse::<u64>().is_ok() || text.parse::<i64>().is_ok();
        let mut long = Spellings::of(body).filter(|text| !is_exact(text));
        if long.any(|text| self.is_credential(text)) {
            self.report(|detail| Fault::at_pointer("", detail), "a number of the body");
        }
    }

    fn value<'v>(&mut self, value: &'v Value, path: &mut Vec<Cow<'v, str>>) {
        let text = match value {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            Value::Number(number) if is_exact(number) => Cow::Owned(number.to_string()),
            Value::Array(items) if path.len() < DEEPEST => {
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string().into());
                    self.value(item, path);
                    path.pop();
                }
                return;
            }
            Value::Object(members) if path.len() < DEEPEST => {
                for (name, item) in members {
                    let is_credential = self.is_credential(name);
                    path.push(if is_credential { "…".into() } else { name.as_str().into() });
                    if is_credential {
                        self.report(
                            |detail| Fault::at_pointer(pointer(path), detail),
                            "the name of a member",
                        );
                    }
                    self.value(item, path);
                    path.pop();
                }
                return;
            }
            _ => return,
        };
        if self.is_credential(&text) {
            self.report(|detail| Fault::at_pointer(pointer(path), detail), "the value of a member");
        }
    }
}

/// Whether it is held with all its digits.
fn is_exact(number: &Number) -> bool {
    number.is_u64() || number.is_i64()
}

/// RFC 6901.
fn pointer(path: &[Cow<'_, str>]) -> String {
    path.iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect()
}
