//! Takes up certificates whose files have changed.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;

/// How often to see whether there is TLS now, where there is none.
const WITHOUT_TLS: Duration = Duration::from_secs(10);

/// Looks at the files of `server.tls` every so often, for as long as it is polled. A good new pair
/// is used from the next connection on; a bad one is told of once, and the old one stays.
pub async fn renew(app: Arc<App>) {
    let mut told = None;
    loop {
        let snapshot = app.snapshot();
        let current = snapshot.tls.load_full();
        tokio::time::sleep(current.as_ref().map_or(WITHOUT_TLS, |tls| tls.refresh)).await;
        let Some(current) = current else { continue };
        let read = tokio::task::spawn_blocking(move || current.renewed()).await;
        match read {
            Ok(Ok(None)) => told = None,
            Ok(Ok(Some(renewed))) => {
                snapshot.tls.store(Some(renewed));
                app.metrics.process.certificate_loaded(true);
                tracing::info!("the certificate was renewed");
                told = None;
            }
            Ok(Err(problem)) if told.as_ref() == Some(&problem) => {}
            Ok(Err(problem)) => {
                app.metrics.process.certificate_loaded(false);
                tracing::warn!(%problem, "the certificate was not renewed");
                told = Some(problem);
            }
            // The runtime is going down.
            Err(_) => return,
        }
    }
}
