//! Renews the certificate when its files have changed.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;

/// How often to check whether a reload has turned TLS on, while it is off.
const WITHOUT_TLS: Duration = Duration::from_secs(10);

/// Reads the files of `server.tls` again every so often, for as long as it is polled. A valid new pair is used from the
/// next connection on. An invalid one is logged once, and the old pair stays.
pub async fn renew(app: Arc<App>) {
    let mut logged = None;
    loop {
        let snapshot = app.snapshot();
        let current = snapshot.tls.load_full();
        tokio::time::sleep(current.as_ref().map_or(WITHOUT_TLS, |tls| tls.refresh)).await;
        let Some(current) = current else { continue };
        let read = tokio::task::spawn_blocking(move || current.renewed()).await;
        match read {
            Ok(Ok(None)) => logged = None,
            Ok(Ok(Some(renewed))) => {
                snapshot.tls.store(Some(renewed));
                app.metrics.process.certificate_loaded(true);
                tracing::info!("the certificate was renewed");
                logged = None;
            }
            Ok(Err(problem)) if logged.as_ref() == Some(&problem) => {}
            Ok(Err(problem)) => {
                app.metrics.process.certificate_loaded(false);
                tracing::warn!(%problem, "the certificate was not renewed");
                logged = Some(problem);
            }
            // The runtime is shutting down.
            Err(_) => return,
        }
    }
}
