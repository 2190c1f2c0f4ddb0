//! On whose account a call to the upstream is made.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{Client, Lane};

/// A client, as the upstream's quota is shared among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payer {
    pub client: Arc<str>,
    pub lane: Lane,
    /// At least 1; twice the weight, twice the share.
    pub weight: u32,
}

impl From<&Client> for Payer {
    fn from(client: &Client) -> Self {
        Self { client: client.name.clone(), lane: client.lane, weight: client.weight }
    }
}

/// Everybody who waits for one call, whoever set it off first. More may come while it waits for its
/// turn: it has its turn as soon as any of them has.
#[derive(Clone, Debug)]
pub struct Payers(Arc<watch::Sender<Vec<Payer>>>);

impl Payers {
    pub fn of(first: Payer) -> Self {
        Self(Arc::new(watch::Sender::new(vec![first])))
    }

    /// The client that set it off.
    pub fn first(&self) -> Arc<str> {
        self.0.borrow().first().map_or_else(|| Arc::from(""), |first| first.client.clone())
    }

    /// The clients that wait for it.
    pub fn clients(&self) -> Vec<Arc<str>> {
        self.0.borrow().iter().map(|payer| payer.client.clone()).collect()
    }

    /// One more waits for it.
    pub fn join(&self, payer: &Payer) {
        self.0.send_if_modified(|all| {
            let is_new = all.iter().all(|known| known.client != payer.client);
            if is_new {
                all.push(payer.clone());
            }
            is_new
        });
    }

    /// Them, and word of those who come.
    pub fn watch(&self) -> watch::Receiver<Vec<Payer>> {
        let mut watch = self.0.subscribe();
        watch.mark_changed();
        watch
    }
}
