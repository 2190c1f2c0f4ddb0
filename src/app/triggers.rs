//! What sets off a reload without anybody asking for it by HTTP: SIGHUP, and files that have changed.
//!
//! The files are read every few seconds and not watched: that is right for the links that Kubernetes
//! swaps, for editors that rename and for network file systems, and costs a few reads. A change counts
//! once it is read twice alike, so that what is half written is not taken up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::App;
use crate::config;

/// While files are not looked at: how soon it is noticed that they are to be again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Reloads `app` whenever its files have changed, for as long as the process lives.
pub async fn on_changed_files(app: Arc<App>) {
    let mut last = app.last_read();
    loop {
        let every = app.snapshot().config.reload.check_files_every;
        app.clock.sleep(if every.is_zero() { LOOK_AGAIN } else { every }).await;
        if every.is_zero() {
            continue;
        }
        let look = app.clone();
        let Ok(now) = tokio::task::spawn_blocking(move || look.last_read().again(config::read_file)).await
        else {
            return;
        };
        if now == last && now != app.last_read() {
            // Both outcomes are logged and counted there.
            let _ = app.reload_unless_read(now.clone()).await;
        }
        last = now;
    }
}

/// Reloads `app` on each SIGHUP, for as long as the process lives.
///
/// # Errors
/// The process cannot listen for the signal.
pub fn on_hangup(app: &Arc<App>) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let app = app.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // Both outcomes are logged there.
            let _ = app.reload().await;
        }
    });
    Ok(())
}
