//! `kore-gateway serve`.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, runtime};
use crate::app::{App, triggers};
use crate::clock::Clock;
use crate::config::{self, Sources};
use crate::observe::logging::{self, ProcessLog};
use crate::observe::metrics::{COMMIT, MAIN_LISTENER, VERSION};
use crate::server::Server;

pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    keep_memory_private()?;
    // Read once more when the app is made: the threads have to be there before.
    let (_, config) = config::load(sources).map_err(|faults| Failure::faults(&faults))?;
    let runtime = runtime(config.server.workers)?;
    let served = runtime.block_on(serve(sources.clone()));
    // Without waiting for what blocks a thread: it may never end.
    runtime.shutdown_background();
    served
}

async fn serve(sources: Sources) -> Result<(), Failure> {
    take_all_descriptors();
    let stop = CancellationToken::new();
    let copies = sources.copies_of_the_manual();
    let files = sources.files();
    let (app, log) = start(sources)?;
    for copy in copies {
        tracing::warn!("{copy}");
    }
    stop_on_signal(&stop)?;
    triggers::on_hangup(&app).map_err(|error| Failure::new("cannot listen for signals", error))?;
    tokio::spawn(triggers::on_changed_files(app.clone()));
    let (snapshot, now) = (app.snapshot(), app.clock.now());
    let expired = snapshot.config.expired_certificate(now);
    for warning in expired.into_iter().chain(snapshot.config.warnings(now)) {
        tracing::warn!(%warning, "the configuration looks wrong");
    }
    drop(snapshot);
    let server = Server::take_over(app.clone()).map_err(|error| Failure::new("cannot start", error))?;
    log_start(&app, address(server.address())?, address(server.ops_address())?, &files);
    let patience = app.snapshot().config.server.drain_timeout;
    let mut running = pin!(server.run(stop.clone()));
    tokio::select! {
        // First, so that what is under way is counted before the drain begins.
        biased;
        () = stop.cancelled() => {}
        () = &mut running => return Ok(()),
    }
    let began = Instant::now();
    let connections = app.metrics.http.connections(MAIN_LISTENER);
    let requests = app.metrics.http.active_requests.get();
    tracing::info!(requests, connections = connections.open_now(), within = ?patience, "draining");
    let ends = began + patience;
    // What connections leave of that time is shared by whoever watches the drain, and by the log and spans.
    let left_for_the_log = config::Server::kept_back(patience) / 2;
    let _ = tokio::time::timeout_at((ends - left_for_the_log).into(), running).await;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(took_ms, connections_cut = connections.cut(), "stopped");
    finish(&app, &log, ends).await;
    Ok(())
}

/// Says in one line what was read and what runs, and warns of what the machine does not grant.
fn log_start(app: &App, listen: SocketAddr, ops: SocketAddr, files: &str) {
    let snapshot = app.snapshot();
    let config = &snapshot.config;
    let capacity = snapshot.written.get("cache").and_then(|cache| cache.get("capacity"));
    tracing::info!(
        %listen,
        %ops,
        version = VERSION,
        commit = COMMIT,
        files,
        accounts = config.accounts.len(),
        clients = config.clients.iter().count(),
        issuers = config.issuers(),
        tls = config.tls_end(),
        cache_capacity = capacity.and_then(toml::Value::as_str),
        quota = config.quotas(),
        workers = Handle::current().metrics().num_workers(),
        audit = config.audit_to(),
        "serving"
    );
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if let Some(problem) = config.too_few_descriptors(limit) {
        tracing::warn!(problem, "too few file descriptors");
    }
}

/// Writes what is still to be told: of the log, of the access lines and of spans. All of it until the process is to
/// end, for whoever takes it may be stalled.
async fn finish(app: &App, log: &ProcessLog, ends: Instant) {
    let snapshot = app.snapshot();
    let left = || ends.saturating_duration_since(Instant::now());
    if let Some(tracer) = &snapshot.tracer {
        let _ = tokio::time::timeout(left(), tracer.finish()).await;
    }
    snapshot.access_log.flush(left());
    log.flush(left());
}

/// The upstream's secrets and callers' data are in memory: it becomes no core file, and other processes of
/// the same user can neither read nor trace it. Before the first secret is read.
fn keep_memory_private() -> Result<(), Failure> {
    let cannot = |error| Failure::new("cannot keep the process's memory private", error);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(cannot)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(cannot)
}

/// A connection is a descriptor, and shells hand out a thousand. What the hard limit allows is taken;
/// where that fails, what there is must do.
fn take_all_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The app of `sources`, and its log.
pub(super) fn start(sources: Sources) -> Result<(Arc<App>, ProcessLog), Failure> {
    let app = App::new(sources, Clock::system()).map_err(|faults| Failure::faults(&faults))?;
    let dropped = app.metrics.process.log_lines_dropped.clone();
    let log = ProcessLog::install(&app.snapshot().config.log, dropped)
        .map_err(|error| Failure::new("cannot start the log", error))?;
    logging::log_panics(app.metrics.process.panics.clone());
    Ok((app, log))
}

pub(super) fn address(
    address: std::io::Result<std::net::SocketAddr>,
) -> Result<std::net::SocketAddr, Failure> {
    address.map_err(|error| Failure::new("a listener has no address", error))
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
            stop.cancel();
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_process_is_its_own() {
        assert!(keep_memory_private().is_ok());
        assert!(matches!(rustix::process::dumpable_behavior(), Ok(DumpableBehavior::NotDumpable)));
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }
}
