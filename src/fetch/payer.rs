//! The payers of a call: the clients whose share of the quota it may use.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{Client, Lane};

/// A client with its share of the quota.
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

/// All clients that wait for one call. More may join while it waits for quota. The call is granted as soon as the
/// broker serves any of them.
#[derive(Clone, Debug)]
pub struct Payers(Arc<watch::Sender<Vec<Payer>>>);

impl Payers {
    pub fn of(first: Payer) -> Self {
        Self(Arc::new(watch::Sender::new(vec![first])))
    }

    /// The client that started the call.
    pub fn first(&self) -> Arc<str> {
        self.0.borrow().first().map_or_else(|| Arc::from(""), |first| first.client.clone())
    }

    /// The clients that wait for the call.
    pub fn clients(&self) -> Vec<Arc<str>> {
        self.0.borrow().iter().map(|payer| payer.client.clone()).collect()
    }

    /// Adds a client that waits for the call.
    pub fn join(&self, payer: &Payer) {
        self.0.send_if_modified(|all| {
            let is_new = all.iter().all(|known| known.client != payer.client);
            if is_new {
                all.push(payer.clone());
            }
            is_new
        });
    }

    /// A receiver of the payers that sees each change.
    pub fn watch(&self) -> watch::Receiver<Vec<Payer>> {
        let mut watch = self.0.subscribe();
        watch.mark_changed();
        watch
    }
}
