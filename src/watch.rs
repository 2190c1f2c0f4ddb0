//! Takes up a changed configuration by itself.
//!
//! The files are read every few seconds and not watched: that is right for the links that Kubernetes
//! swaps, for editors that rename and for network file systems, and costs a few reads. A change counts
//! once it is read twice alike, so that what is half written is not taken up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use toml::{Table, Value};

use crate::app::App;
use crate::config::{Layer, Sources};

/// While files are not looked at: how soon it is noticed that they are to be again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What is in the files of a configuration, as a digest.
pub type Fingerprint = [u8; 32];

/// Reloads `app` whenever its files have changed, for as long as the process lives.
pub async fn watch(app: Arc<App>) {
    let mut last = app.loaded();
    loop {
        let every = app.snapshot().config.reload.check_files_every;
        app.clock.sleep(if every.is_zero() { LOOK_AGAIN } else { every }).await;
        if every.is_zero() {
            continue;
        }
        let look = app.clone();
        let Ok(now) = tokio::task::spawn_blocking(move || look.fingerprint()).await else { return };
        let is_settled = now == last;
        last = now;
        if is_settled && now != app.loaded() {
            let reload = app.clone();
            // Both outcomes are logged and counted there.
            let _ = tokio::task::spawn_blocking(move || reload.reload()).await;
        }
    }
}

/// What is in the files that `sources` name, and in those that `written`, made from them, names and
/// that nobody else looks at. The upstream's secrets are not among them: those are taken up without a
/// reload.
pub fn fingerprint(sources: &Sources, written: &Table) -> Fingerprint {
    let mut context = digest::Context::new(&digest::SHA256);
    let files = sources.layers.iter().filter_map(|layer| match layer {
        Layer::File(file) => Some(file.clone()),
        Layer::Text(_) => None,
    });
    for file in files.chain(named(written)) {
        match std::fs::read(&file) {
            Ok(bytes) => {
                context.update(&(bytes.len() as u64).to_be_bytes());
                context.update(&bytes);
            }
            // Gone is another state than empty.
            Err(error) => context.update(error.kind().to_string().as_bytes()),
        }
    }
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(context.finish().as_ref());
    fingerprint
}

fn named(written: &Table) -> impl Iterator<Item = PathBuf> {
    let token = written.get("ops").and_then(|ops| ops.get("token")).and_then(|token| token.get("file"));
    let authorities = written.get("upstream").and_then(|upstream| upstream.get("ca_file"));
    [token, authorities].into_iter().flatten().filter_map(Value::as_str).map(PathBuf::from)
}
