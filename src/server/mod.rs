//! HTTP: the listeners, every route (`router`), every layer around them (`middleware`), the typed stages, and the
//! ops endpoints.

mod admin;
mod certificates;
mod docs;
mod explain;
pub mod guard;
mod listener;
mod middleware;
mod ops;
mod route;
mod router;
mod sockets;
mod stages;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tower::Service;

use crate::app::App;
use crate::config;
use crate::observe::metrics::{MAIN_LISTENER, OPS_LISTENER};
#[doc(hidden)]
pub use listener::serve_http2;
use listener::{Listener, ListenerLimits};
use sockets::Sockets;

/// Who watches: few, and briefly.
const OPS_CONNECTIONS: usize = 100;
const OPS_DRAIN: Duration = Duration::from_secs(1);

/// Both listeners, bound and not yet serving.
pub struct Server {
    app: Arc<App>,
    sockets: Sockets,
}

impl Server {
    /// Binds what the configuration says. The error says which address it was.
    pub fn bind(app: Arc<App>) -> io::Result<Self> {
        let sockets = Sockets::bind(&app.snapshot().config)?;
        Ok(Self { app, sockets })
    }

    /// Takes the sockets that were handed to the process, and binds those that were not.
    pub fn take_over(app: Arc<App>) -> io::Result<Self> {
        let sockets = Sockets::inherit_or_bind(&app.snapshot().config)?;
        Ok(Self { app, sockets })
    }

    /// Where callers connect.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.sockets.main.local_addr()
    }

    /// Where operators connect.
    pub fn ops_address(&self) -> io::Result<SocketAddr> {
        self.sockets.ops.local_addr()
    }

    /// Serves until `stop` is cancelled; then not ready any more, no new connections, and requests
    /// under way end. The ops listener goes last, so that the drain can be watched.
    pub async fn run(self, stop: CancellationToken) {
        let Self { app, sockets: Sockets { main, ops } } = self;
        let limits = limits(&app.snapshot().config.server);
        let drained = CancellationToken::new();
        let watch_drain = drained.clone();
        let ops = Listener {
            socket: ops,
            tls: Arc::new(|| None),
            limits: ops_limits(limits),
            connections: app.metrics.http.connections(OPS_LISTENER),
        };
        let ops_service = TowerToHyperService::new(middleware::ops(&app, router::ops(&app)));
        let ops_service = move |_| ops_service.clone();
        let ops = tokio::spawn(listener::serve(ops, ops_service, async move {
            watch_drain.cancelled().await;
        }));

        let tls = app.clone();
        let main = Listener {
            socket: main,
            tls: Arc::new(move || tls.snapshot().tls.load().as_ref().map(|tls| tls.server().clone())),
            limits,
            connections: app.metrics.http.connections(MAIN_LISTENER),
        };
        let router = router::main();
        let service = |peer| {
            let stack = middleware::main(app.clone(), peer, router.clone());
            // It is always ready.
            service_fn(move |request: Request<Incoming>| stack.clone().call(request))
        };
        let certificates = AbortOnDropHandle::new(tokio::spawn(certificates::renew(app.clone())));
        listener::serve(main, service, async {
            stop.cancelled().await;
            app.drain();
        })
        .await;
        drop(certificates);
        drained.cancel();
        let _ = ops.await;
    }
}

fn limits(server: &config::Server) -> ListenerLimits {
    ListenerLimits {
        max_connections: server.max_connections,
        max_connections_per_address: server.max_connections_per_address,
        max_streams: server.max_streams,
        header_timeout: server.header_timeout,
        idle_timeout: server.idle_timeout,
        write_timeout: server.write_timeout,
        handshake_timeout: server.handshake_timeout,
        drain_timeout: server.drain_timeout,
        head: guard::HeadLimits::of(server),
    }
}

/// The ops listener has few callers and must answer when the main one is full.
fn ops_limits(main: ListenerLimits) -> ListenerLimits {
    ListenerLimits {
        max_connections: OPS_CONNECTIONS,
        max_connections_per_address: OPS_CONNECTIONS,
        drain_timeout: OPS_DRAIN,
        ..main
    }
}
