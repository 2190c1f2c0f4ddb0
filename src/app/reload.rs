//! Reloads, one at a time. A task of its own takes up configurations; SIGHUP, `/admin/reload` and the
//! watch of the files ask it to, and get the outcome.
//!
//! Those who ask while a reload is under way get one that begins after they have asked, all of them the
//! same: what it reads is at least as new as what they know of.

use tokio::sync::{mpsc, oneshot};

use crate::config::{ConfigFault, Fingerprint};

/// Who wait to ask.
const MOST_WAITING: usize = 16;

/// Whether the configuration as it is written is in effect now.
pub type ReloadOutcome = Result<(), Vec<ConfigFault>>;

/// Somebody who wants a reload.
pub struct ReloadRequest {
    /// None is needed if this is what was read last.
    unless_read: Option<Fingerprint>,
    reply: oneshot::Sender<ReloadOutcome>,
}

/// The way to the one who reloads.
pub struct Reloads(mpsc::Sender<ReloadRequest>);

impl Reloads {
    pub fn new() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (sender, asked) = mpsc::channel(MOST_WAITING);
        (Self(sender), asked)
    }

    /// Asks for a reload, and waits for its outcome.
    pub async fn ask(&self, unless_read: Option<Fingerprint>) -> ReloadOutcome {
        let (reply, outcome) = oneshot::channel();
        let asked = self.0.send(ReloadRequest { unless_read, reply }).await;
        match (asked, outcome.await) {
            (Ok(()), Ok(outcome)) => outcome,
            _ => Err(given_up()),
        }
    }
}

/// Has `reload` reload for those who ask, until it gives nothing: whatever is reloaded is gone. It is given what each
/// of them knows to have been read.
pub async fn serve<Reloading: Future<Output = Option<ReloadOutcome>>>(
    mut asked: mpsc::Receiver<ReloadRequest>,
    reload: impl Fn(Vec<Option<Fingerprint>>) -> Reloading,
) {
    while let Some(first) = asked.recv().await {
        let mut all = vec![first];
        while let Ok(next) = asked.try_recv() {
            all.push(next);
        }
        let unless_read = all.iter_mut().map(|asked| asked.unless_read.take()).collect();
        let Some(outcome) = reload(unless_read).await else { return };
        for asked in all {
            // Whoever has gone does not want to know.
            let _ = asked.reply.send(outcome.clone());
        }
    }
}

/// What a reload that did not end comes to.
pub fn given_up() -> Vec<ConfigFault> {
    let problem = "the reload was given up; the log says why".to_owned();
    vec![ConfigFault { path: "reload".to_owned(), problem }]
}
