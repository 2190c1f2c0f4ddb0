//! `kore-gateway serve`.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, runtime};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{self, Sources};
use crate::server::Server;
use crate::telemetry;
use crate::watch;

pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    // Read once more when the app is made: the threads have to be there before.
    let (_, config) = config::load(sources).map_err(|faults| Failure::faults(&faults))?;
    runtime(config.server.workers)?.block_on(serve(sources.clone()))
}

async fn serve(sources: Sources) -> Result<(), Failure> {
    take_all_descriptors();
    let stop = CancellationToken::new();
    let app = start(sources)?;
    stop_on_signal(&stop)?;
    reload_on_signal(&app)?;
    tokio::spawn(watch::watch(app.clone()));
    let server = Server::take_over(app.clone()).map_err(|error| Failure::new("cannot start", error))?;
    tracing::info!(
        listen = %address(server.address())?,
        ops = %address(server.ops_address())?,
        version = crate::metrics::VERSION,
        "serving"
    );
    server.run(stop).await;
    let snapshot = app.snapshot();
    snapshot.access_log.flush();
    if let Some(tracer) = &snapshot.tracer {
        tracer.finish().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// A connection is a descriptor, and shells hand out a thousand. What the hard limit allows is taken;
/// where that fails, what there is must do.
fn take_all_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The app of `sources`, and its log.
pub(super) fn start(sources: Sources) -> Result<Arc<App>, Failure> {
    let app = App::new(sources, Clock::system()).map_err(|faults| Failure::faults(&faults))?;
    telemetry::install(&app.snapshot().config.log);
    Ok(app)
}

pub(super) fn address(
    address: std::io::Result<std::net::SocketAddr>,
) -> Result<std::net::SocketAddr, Failure> {
    address.map_err(|error| Failure::new("a listener has no address", error))
}

/// Reloads the configuration on SIGHUP.
fn reload_on_signal(app: &Arc<App>) -> Result<(), Failure> {
    let mut hang_up = listen(SignalKind::hangup())?;
    let app = app.clone();
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            // Both outcomes are logged there.
            let _ = app.reload();
        }
    });
    Ok(())
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new("cannot listen for signals", error))
}

/// Cancels `stop` on SIGTERM and SIGINT; a second one ends the process at once.
pub(super) fn stop_on_signal(stop: &CancellationToken) -> Result<(), Failure> {
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(1);
            }
            tracing::info!("draining");
            stop.cancel();
        }
    });
    Ok(())
}
