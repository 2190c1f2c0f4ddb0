//! A small Kore: the other party, for the tests and the demo.
//!
//! A real HTTP/1.1 server on 127.0.0.1 that answers the vendor's three APIs (E1 conversation, E2
//! interaction details, E3 conversation details) as the contract with the upstream has them,
//! cited as "contract §…". It believes nothing it is told and keeps a journal. It shares no code
//! with the gateway: what both got wrong in the same way would go unnoticed.
//!
//! A call comes in through `listener` and `wire`, is judged in `kore` (`route`, `token`, `quota`,
//! `strict`), gets its answer from `answers` or its `refusal`, and leaves through `fault`, which
//! may spoil it. `conversation` holds the records and their lives, `clock` the time, `journal`
//! what happened.
//!
//! Where the contract is open there is a switch ([`Switches`]), or one choice, made here:
//! conversation details of an unknown id answers 200 with an empty transcript; an unknown
//! conversation 404 with an error body; a stream of nobody 400 "Invalid StreamId", of somebody
//! else 401; a missing `accountId` header 412, a foreign one 401.

mod answers;
mod bomb;
mod clock;
mod conversation;
mod demo;
mod fault;
mod gate;
mod journal;
mod json;
mod kore;
mod listener;
mod options;
mod quota;
mod refusal;
mod route;
mod strict;
mod time;
mod token;
mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use clock::Clock;
pub use conversation::{Conversation, Survey};
pub use demo::DemoIds;
pub use fault::Fault;
pub use gate::Gate;
pub use journal::{Call, Pool};
pub use options::{
    Account, App, EXAMPLE_ACCOUNT, EXAMPLE_CLIENT_ID, EXAMPLE_STREAM, KeepAlive, NumResults, OTHER_ACCOUNT,
    OTHER_CLIENT_ID, OTHER_STREAM, Offset, Options, OverLimit, QuotaRefusal, Range, Scope, Switches,
    example_secret, other_secret,
};

use kore::{Canned, Kore};
use wire::Response;

/// A running stand-in. Dropping it closes its port and all of its connections.
pub struct Standin {
    address: SocketAddr,
    kore: Arc<Kore>,
    server: JoinHandle<()>,
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Standin {
    /// Listens on 127.0.0.1 and serves from tasks of the current Tokio runtime.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn start(options: Options) -> io::Result<Standin> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        let address = listener.local_addr()?;
        let kore = Arc::new(Kore::new(options));
        let server = tokio::spawn(listener::serve(listener, Arc::clone(&kore)));
        Ok(Standin { address, kore, server })
    }

    /// Stops and waits until the port is closed, so that the next connection is refused.
    pub async fn stop(mut self) {
        self.server.abort();
        // Cancelled is what it should be.
        let _ = (&mut self.server).await;
    }

    /// `http://127.0.0.1:PORT`: the base of `/agentassist/*` and of `/api/public/*`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its clock; moving it moves tokens, quotas and conversations.
    pub fn clock(&self) -> &Clock {
        &self.kore.clock
    }

    /// Changes the switches from the next call on.
    pub fn set(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.kore.state().switches);
    }

    /// Changes accounts, apps and secrets from the next call on.
    pub fn set_accounts(&self, change: impl FnOnce(&mut Vec<Account>)) {
        change(&mut self.kore.state().accounts);
    }

    /// Every call goes wrong like this, until told otherwise with `None`.
    pub fn fault(&self, fault: Option<Fault>) {
        self.kore.state().faults.every(fault);
    }

    /// The next `n` calls go wrong like this; takes the place of an earlier such order.
    pub fn fault_next(&self, n: usize, fault: Fault) {
        self.kore.state().faults.next(n, fault);
    }

    /// Calls whose path contains this, in any case, go wrong like this, before other faults.
    pub fn fault_where(&self, path_contains: &str, fault: Fault) {
        self.kore.state().faults.by_path(path_contains, fault);
    }

    /// All goes well again.
    pub fn clear_faults(&self) {
        self.kore.state().faults.clear();
    }

    /// Puts down a record, in place of one with the same conversation id and stream.
    pub fn put(&self, conversation: Conversation) {
        let mut state = self.kore.state();
        state.conversations.retain(|known| {
            known.conversation_id != conversation.conversation_id || known.stream != conversation.stream
        });
        state.conversations.push(conversation);
    }

    /// These bytes for every good call whose path contains this, in any case. A later order
    /// comes before an earlier one. "Good" is a call that was let in and whose arguments are
    /// sound; whether its record exists is not asked.
    pub fn serve_body(&self, path_contains: &str, status: u16, content_type: &str, body: impl Into<Bytes>) {
        self.serve_bytes_when(path_contains, "", status, content_type, body);
    }

    /// As [`Standin::serve_body`], only when the body of the request contains this text.
    pub fn serve_bytes_when(
        &self,
        path_contains: &str,
        body_contains: &str,
        status: u16,
        content_type: &str,
        body: impl Into<Bytes>,
    ) {
        self.kore.state().canned.push(Canned {
            path_contains: path_contains.to_ascii_lowercase(),
            body_contains: body_contains.to_owned(),
            response: Response::new(status, content_type, body.into()),
        });
    }

    /// Every request that reached it, in order of arrival, refused ones included.
    pub fn calls(&self) -> Vec<Call> {
        self.kore.state().journal.calls().to_vec()
    }

    /// How many requests reached it.
    pub fn count(&self) -> usize {
        self.kore.state().journal.calls().len()
    }

    /// In strict mode, everything that a well-behaved gateway must never do, in words.
    pub fn violations(&self) -> Vec<String> {
        self.kore.state().journal.violations().to_vec()
    }

    /// Empties the journal and the violations; the quota's windows stay.
    pub fn forget(&self) {
        self.kore.state().journal.forget();
    }

    /// Empties the quota's windows.
    pub fn reset_quota(&self) {
        self.kore.state().quota.reset();
    }
}
