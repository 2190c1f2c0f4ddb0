//! Accepts connections and lets them go.
//!
//! Our own loop, for `axum::serve` sets no timer: there, a connection that sends half a head is
//! held for ever.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::BoxError;

use super::guard::{self, io::Guarded};

/// After an accept that failed for want of file descriptors or memory.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// What a listener grants its connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_connections: usize,
    pub header_timeout: Duration,
    pub drain_timeout: Duration,
    pub head: guard::Limits,
}

/// Serves until `stop` is done, each connection with the `service` for who is at its other end;
/// then lets requests under way end.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: impl Fn(IpAddr) -> S,
    limits: Limits,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    let places = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let connections = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, peer, place) = tokio::select! {
            accepted = accept(&listener, &places) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_BACK_OFF).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        let guarded = TokioIo::new(Guarded::new(stream, limits.head));
        let connection = http.serve_connection(guarded, service(peer));
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // A connection that breaks is its peer's affair.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain_timeout, connections.shutdown()).await.is_err() {
        tracing::warn!(after = ?limits.drain_timeout, "connections were cut that did not end in time");
    }
}

/// The next connection, once there is a place for it. Errors of a connection that was gone before
/// it was accepted are passed over.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, IpAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Small answers go out at once. Failing that is no reason to fail.
                let _ = stream.set_nodelay(true);
                return Ok((stream, peer.ip(), place));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}
