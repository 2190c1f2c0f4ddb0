//! The accept loop and its connections, with a limit and a timeout for everything that a peer can hold up.
//!
//! The loop is our own because `axum::serve` sets no timers. There, a connection that sends half a head is held for
//! ever.
//!
//! - [`accept`] takes a connection off the socket, once [`connection_limit`] has a permit for it.
//! - [`connection`] speaks HTTP/1 or HTTP/2 ([`http`]) over the connection's [`stream`].
//! - [`stats`] counts bytes and requests ([`counted`]), and holds the connection's drain state.
//! - [`reaper`] reads these counts and ends the connections that have run into a timeout.
//! - HTTP/2 only: [`inline_executor`] runs the requests in the connection's task, [`write_coalescer`] sends all output
//!   of one turn in one write, and [`frames`] follows the frames in both directions.

mod accept;
mod connection;
mod connection_limit;
mod counted;
mod frames;
mod http;
mod inline_executor;
mod reaper;
mod stats;
mod stream;
mod write_coalescer;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::task::TaskTracker;

use super::guard;
use crate::config;
use crate::observe::metrics::{Connections, Ended};
use accept::{Accepted, Acceptor};
use connection::BoxError;
use connection_limit::{ConnectionLimit, ConnectionPermit};
use counted::Counted;
use http::Http;
use reaper::{Reaper, Timeouts};
use stats::{ConnectionStats, DrainState};
use stream::{Socket, Stream};

/// While the process drains, a connection that is idle for this long is closed.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The limits of one listener and its connections.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    /// Concurrent streams of one HTTP/2 connection.
    pub max_streams: u32,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub write_timeout: Duration,
    /// For the TLS handshake.
    pub handshake_timeout: Duration,
    pub drain_timeout: Duration,
    /// For the head of each request.
    pub head: guard::HeadLimits,
}

/// Returns the TLS settings for a new connection, or `None` where connections are cleartext.
pub type Tls = Arc<dyn Fn() -> Option<Arc<ServerConfig>> + Send + Sync>;

/// A listening socket, and the settings of its connections.
pub struct Listener {
    pub socket: TcpListener,
    pub tls: Tls,
    pub limits: ListenerLimits,
    pub connections: Connections,
}

/// Serves until `stop` is done, and then drains: requests in flight may end. `service` makes the service of each
/// connection from its peer's address.
pub async fn serve<S, B>(listener: Listener, service: impl Fn(IpAddr) -> S, stop: impl Future<Output = ()>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let Listener { socket, tls, limits, connections } = listener;
    let limit = ConnectionLimit::new(limits.max_connections, limits.max_connections_per_address);
    let mut acceptor = Acceptor::new(socket, limit, connections.clone());
    let timeouts = Timeouts {
        header: limits.header_timeout,
        idle: limits.idle_timeout,
        write: limits.write_timeout,
        drain_idle: DRAIN_IDLE_TIMEOUT,
    };
    let mut open = Open {
        service,
        tls,
        http: Arc::new(Http::new(limits.max_streams, limits.head)),
        limits,
        tasks: TaskTracker::new(),
        reaper: Reaper::new(timeouts, connections.clone()),
        connections,
    };
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            accepted = acceptor.next() => match accepted {
                Accepted::Connection(stream, permit) => open.begin(stream, permit),
                Accepted::Waiting => open.reaper.make_room(Instant::now()),
            },
            now = open.reaper.next_sweep() => {
                open.reaper.sweep(now);
                // When the waiting connection was accepted, all others had requests in flight.
                if acceptor.has_waiting() {
                    open.reaper.make_room(now);
                }
            }
            () = &mut stop => break,
        }
    }
    while let Some((stream, permit)) = acceptor.next_queued().await {
        open.begin(stream, permit);
    }
    drop(acceptor);
    open.drain(limits.drain_timeout).await;
}

/// HTTP/2 as the connections of a listener speak it, over any stream of bytes. The fuzz target of that name calls it.
#[doc(hidden)]
pub async fn serve_http2<IO, S, B>(
    io: IO,
    max_streams: u32,
    head: guard::HeadLimits,
    service: S,
) -> Result<(), BoxError>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let stats = Arc::new(ConnectionStats::new(head.max_body));
    let service = Counted { service, stats: stats.clone() };
    connection::serve_http2(io, &Http::new(max_streams, head), service, &stats).await
}

/// The open connections of a listener, and the settings of a new one.
struct Open<F> {
    service: F,
    tls: Tls,
    http: Arc<Http>,
    limits: ListenerLimits,
    tasks: TaskTracker,
    reaper: Reaper,
    connections: Connections,
}

impl<F, S, B> Open<F>
where
    F: Fn(IpAddr) -> S,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn begin(&mut self, tcp: TcpStream, permit: ConnectionPermit) {
        // Without Nagle's algorithm, small responses go out at once. The kernel's own timeout covers bytes that it has
        // accepted and the peer has not. The connection works without either, so errors are ignored.
        let _ = tcp.set_nodelay(true);
        let _ = SockRef::from(&tcp).set_tcp_user_timeout(Some(self.limits.write_timeout));
        let stats = Arc::new(ConnectionStats::new(self.limits.head.max_body));
        self.reaper.add(stats.clone());
        let service = (self.service)(permit.address());
        let http = self.http.clone();
        let socket = Socket::new(tcp, stats.clone());
        let tls = (self.tls)();
        let (timeout, connections) = (self.limits.handshake_timeout, self.connections.clone());
        let open = connections.open();
        self.tasks.spawn(async move {
            let stream = match tls {
                None => Some(Stream::clear(socket)),
                Some(tls) => shake_hands(socket, tls, timeout, &stats, &connections).await,
            };
            if let Some(stream) = stream
                && let Err(error) = connection::serve(stream, &http, service, stats.clone()).await
                && connection::timed_out(&error)
            {
                connections.ended(Ended::WriteTimeout);
            }
            if stats.is_flooded() {
                connections.ended(Ended::Flood);
            }
            drop((permit, open));
        });
    }

    /// Lets every connection send its last response. Connections that are still open after `timeout` are reset.
    async fn drain(mut self, timeout: Duration) {
        let timeout = timeout - config::Server::kept_back(timeout);
        let until = Instant::now() + timeout;
        self.tasks.close();
        self.reaper.advance_all(DrainState::LastResponse);
        loop {
            tokio::select! {
                () = self.tasks.wait() => return,
                now = self.reaper.next_sweep() => self.reaper.sweep(now),
                () = tokio::time::sleep_until(until) => break,
            }
        }
        tracing::warn!(after = ?timeout, connections = self.tasks.len(), "connections were cut that did not end in time");
        (0..self.tasks.len()).for_each(|_| self.connections.ended(Ended::DrainTimeout));
        self.reaper.advance_all(DrainState::Resetting);
        self.tasks.wait().await;
    }
}

/// The TLS handshake. `None` if it failed, timed out, or the connection has to end.
async fn shake_hands(
    socket: Socket,
    tls: Arc<ServerConfig>,
    timeout: Duration,
    stats: &ConnectionStats,
    connections: &Connections,
) -> Option<Stream> {
    let handshake = tokio::time::timeout(timeout, TlsAcceptor::from(tls).accept(socket));
    match connection::until_finishing(stats, handshake).await {
        Some(Ok(Ok(stream))) => Some(Stream::tls(stream)),
        Some(_) => {
            connections.ended(Ended::Handshake);
            None
        }
        None => None,
    }
}
