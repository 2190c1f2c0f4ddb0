//! HTTP: the listeners, the layers around every request, the typed stages, and the ops endpoints.

mod admin;
mod docs;
pub mod guard;
mod layers;
mod listener;
mod ops;

mod stages;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use listener::Limits;

/// The ops listener has few callers and must answer when the main one is full.
const OPS_CONNECTIONS: usize = 100;

/// Both listeners, bound and not yet serving.
pub struct Server {
    app: Arc<App>,
    main: TcpListener,
    ops: TcpListener,
}

impl Server {
    /// Binds what the configuration says. The error says which address it was.
    pub async fn bind(app: Arc<App>) -> io::Result<Self> {
        let snapshot = app.snapshot();
        let main = bind(snapshot.config.server.listen).await?;
        let ops = bind(snapshot.config.ops.listen).await?;
        Ok(Self { app, main, ops })
    }

    /// Where callers connect.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.main.local_addr()
    }

    /// Where operators connect.
    pub fn ops_address(&self) -> io::Result<SocketAddr> {
        self.ops.local_addr()
    }

    /// Serves until `stop` is cancelled; then not ready any more, no new connections, and requests
    /// under way end. The ops listener goes last, so that the drain can be watched.
    pub async fn run(self, stop: CancellationToken) {
        let Self { app, main, ops } = self;
        let server = &app.snapshot().config.server;
        let limits = Limits {
            max_connections: server.max_connections,
            header_timeout: server.header_timeout,
            drain_timeout: server.drain_timeout,
            head: guard::Limits::of(server),
        };
        let ops_limits =
            Limits { max_connections: OPS_CONNECTIONS, drain_timeout: Duration::from_secs(1), ..limits };
        let drained = CancellationToken::new();
        let watch_drain = drained.clone();
        let ops_service = TowerToHyperService::new(ops::service(app.clone()));
        let ops = tokio::spawn(listener::serve(ops, move |_| ops_service.clone(), ops_limits, async move {
            watch_drain.cancelled().await;
        }));
        let draining = async {
            stop.cancelled().await;
            app.drain();
        };
        listener::serve(main, |peer| layers::service(app.clone(), peer), limits, draining).await;
        drained.cancel();
        let _ = ops.await;
    }
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}
