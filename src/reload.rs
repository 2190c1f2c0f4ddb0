//! Reloads, one at a time. A task of its own takes up configurations; SIGHUP, `/admin/reload` and the
//! watch of the files ask it to, and are told the outcome.
//!
//! Those who ask while a reload is under way get one that begins after they have asked, all of them the
//! same: what it reads is at least as new as what they know of.

use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};

use crate::app::App;
use crate::config::Fault;
use crate::watch::Seen;

/// Who wait to ask.
const MOST_WAITING: usize = 16;

/// Whether the configuration as it is written is in effect now.
pub type Outcome = Result<(), Vec<Fault>>;

/// Somebody who wants a reload.
pub struct Asked {
    /// None is needed if this is what was read last.
    unless_seen: Option<Seen>,
    told: oneshot::Sender<Outcome>,
}

/// The way to the one who reloads.
pub struct Reloads(mpsc::Sender<Asked>);

impl Reloads {
    pub fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (sender, asked) = mpsc::channel(MOST_WAITING);
        (Self(sender), asked)
    }

    /// Asks for a reload, and waits for its outcome.
    pub async fn ask(&self, unless_seen: Option<Seen>) -> Outcome {
        let (told, outcome) = oneshot::channel();
        let asked = self.0.send(Asked { unless_seen, told }).await;
        match (asked, outcome.await) {
            (Ok(()), Ok(outcome)) => outcome,
            _ => Err(given_up()),
        }
    }
}

/// Reloads `app` for those who ask, until it is gone.
pub async fn serve(app: Weak<App>, mut asked: mpsc::Receiver<Asked>) {
    while let Some(first) = asked.recv().await {
        let Some(app) = app.upgrade() else { return };
        let mut all = vec![first];
        while let Ok(next) = asked.try_recv() {
            all.push(next);
        }
        let seen = app.seen();
        let is_needed = all.iter().any(|asked| asked.unless_seen.as_ref() != Some(&seen));
        let outcome = if is_needed { reload(app).await } else { Ok(()) };
        for asked in all {
            // Whoever has gone does not want to know.
            let _ = asked.told.send(outcome.clone());
        }
    }
}

/// Reads files and opens some, which may take its time: never on a thread that serves requests.
async fn reload(app: Arc<App>) -> Outcome {
    tokio::task::spawn_blocking(move || app.take_up()).await.unwrap_or_else(|_| Err(given_up()))
}

fn given_up() -> Vec<Fault> {
    let problem = "the reload was given up; the log says why".to_owned();
    vec![Fault { path: "reload".to_owned(), problem }]
}
