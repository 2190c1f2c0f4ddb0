//! Holds calls until a test lets them go.

use tokio::sync::watch;

/// A gate that calls wait at ([`super::Fault::Held`]). Once open, it stays open.
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// A gate that lets nobody through.
    pub fn closed() -> Gate {
        Gate(watch::Sender::new(false))
    }

    /// Lets through who waits, and who comes later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub(super) async fn passed(&self) {
        // Cannot end otherwise: the sender is held here.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}
