//! What reached the stand-in, and what should not have.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use super::wire::Request;

/// One request that reached the stand-in.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it had arrived whole, in Unix milliseconds of the stand-in's clock.
    pub at: i64,
    /// As sent.
    pub method: String,
    /// As sent, without the query.
    pub path: String,
    /// What followed `?`, undecoded; empty without one.
    pub query: String,
    /// Every header in order, names in lower case; the value of `auth` is replaced by `<token>`.
    pub headers: Vec<(String, String)>,
    /// Decoded from its framing.
    pub body: Bytes,
    /// Whether its connection had carried another one before.
    pub reused: bool,
    /// What was answered; 0 while undecided or when a fault sent no status line.
    pub status: u16,
    /// What it was counted against; `None` for a call that was turned away before.
    pub pool: Option<Pool>,
    /// The client id of the verified token.
    pub app_id: Option<String>,
    /// The first eight bytes of the token's SHA-256, in hex: another token, another id.
    pub token_id: Option<String>,
}

impl Call {
    /// The value of the first header of this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(received, _)| received == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `Null` if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What a quota is counted over (contract §1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pool {
    /// Conversation and interaction details of this account.
    Account(String),
    /// Conversation details of this bot.
    Bot(String),
}

impl fmt::Display for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pool::Account(id) => write!(out, "account {id}"),
            Pool::Bot(id) => write!(out, "bot {id}"),
        }
    }
}

/// A call's place in the journal; stale once the journal was forgotten.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    edition: usize,
    index: usize,
}

#[derive(Default)]
pub(super) struct Journal {
    edition: usize,
    calls: Vec<Call>,
    violations: Vec<String>,
}

impl Journal {
    pub(super) fn arrive(&mut self, request: &Request, now_ms: i64) -> Ticket {
        let token = request.header("auth");
        self.calls.push(Call {
            at: now_ms,
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            headers: request.headers.iter().map(without_token).collect(),
            body: request.body.clone(),
            reused: request.reused,
            status: 0,
            pool: None,
            app_id: None,
            token_id: token.map(token_id),
        });
        Ticket { edition: self.edition, index: self.calls.len() - 1 }
    }

    /// The entry of a call, unless it was forgotten while the call was under way.
    pub(super) fn entry(&mut self, ticket: Ticket) -> Option<&mut Call> {
        if ticket.edition == self.edition { self.calls.get_mut(ticket.index) } else { None }
    }

    pub(super) fn object(&mut self, violation: String) {
        self.violations.push(violation);
    }

    pub(super) fn forget(&mut self) {
        self.edition += 1;
        self.calls.clear();
        self.violations.clear();
    }

    pub(super) fn calls(&self) -> &[Call] {
        &self.calls
    }

    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }
}

fn without_token((name, value): &(String, String)) -> (String, String) {
    let shown = if name == "auth" { "<token>" } else { value };
    (name.clone(), shown.to_owned())
}

fn token_id(token: &str) -> String {
    hex::encode(&digest(&SHA256, token.as_bytes()).as_ref()[..8])
}
