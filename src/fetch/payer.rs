//! On whose account a call to the upstream is made.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{Client, Lane};

/// A client, as the upstream's quota is shared among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spender {
    pub client: Arc<str>,
    pub lane: Lane,
    /// At least 1; twice the weight, twice the share.
    pub weight: u32,
}

impl From<&Client> for Spender {
    fn from(client: &Client) -> Self {
        Self { client: client.name.clone(), lane: client.lane, weight: client.weight }
    }
}

/// Everybody who waits for one call, whoever set it off first. More may come while it waits for its
/// turn: it has its turn as soon as any of them has.
#[derive(Clone, Debug)]
pub struct Spenders(Arc<watch::Sender<Vec<Spender>>>);

impl Spenders {
    pub fn of(first: Spender) -> Self {
        Self(Arc::new(watch::Sender::new(vec![first])))
    }

    /// The client that set it off.
    pub fn first(&self) -> Arc<str> {
        self.0.borrow().first().map_or_else(|| Arc::from(""), |first| first.client.clone())
    }

    /// One more waits for it.
    pub fn join(&self, spender: &Spender) {
        self.0.send_if_modified(|all| {
            let is_new = all.iter().all(|known| known.client != spender.client);
            if is_new {
                all.push(spender.clone());
            }
            is_new
        });
    }

    /// Them, and word of those who come.
    pub fn watch(&self) -> watch::Receiver<Vec<Spender>> {
        let mut watch = self.0.subscribe();
        watch.mark_changed();
        watch
    }
}
