//! `kore-gateway serve`.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, runtime};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{self, Config, Sources};
use crate::server::Server;
use crate::telemetry;

pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    let (_, config) = config::load(sources).map_err(|faults| Failure::faults(&faults))?;
    telemetry::install(&config.log);
    runtime()?.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    stop_on_signal(&stop)?;
    let server = bind(config).await?;
    tracing::info!(
        listen = %address(server.address())?,
        ops = %address(server.ops_address())?,
        version = crate::metrics::VERSION,
        "serving"
    );
    server.run(stop).await;
    tracing::info!("stopped");
    Ok(())
}

/// A server on the configuration's addresses.
pub(super) async fn bind(config: Config) -> Result<Server, Failure> {
    let app = App::new(config, Clock::system()).map_err(|error| {
        Failure::new(
            "cannot make https connections",
            format_args!("{error}; on Debian, `apt-get install ca-certificates`"),
        )
    })?;
    Server::bind(app).await.map_err(|error| Failure::new("cannot start", error))
}

pub(super) fn address(
    address: std::io::Result<std::net::SocketAddr>,
) -> Result<std::net::SocketAddr, Failure> {
    address.map_err(|error| Failure::new("a listener has no address", error))
}

/// Cancels `stop` on SIGTERM and SIGINT; a second one ends the process at once.
pub(super) fn stop_on_signal(stop: &CancellationToken) -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::new("cannot listen for signals", error));
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
