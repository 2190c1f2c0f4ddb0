//! Accepts connections, lets them wait for so long and no longer, and lets them go.
//!
//! Our own loop, for `axum::serve` sets no timer: there, a connection that sends half a head is
//! held for ever.
//!
//! [`accept`] takes a connection in if it has a [`connection_limit`], [`connection`] speaks HTTP/1 or HTTP/2
//! over its [`stream`], [`stats`] says how it is doing, and [`reaper`] ends it if it does nothing. Of HTTP/2,
//! [`inline_executor`] runs the requests, [`frames`] what passes, and [`write_coalescer`] is what it writes.

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

/// Between two requests, once the process is to end: who says nothing for so long is closed.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a listener grants its connections.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    /// Of one HTTP/2 connection.
    pub max_streams: u32,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub write_timeout: Duration,
    /// For TLS.
    pub handshake_timeout: Duration,
    pub drain_timeout: Duration,
    /// Of a request's head.
    pub head: guard::HeadLimits,
}

pub use ListenerLimits as Limits;

/// TLS for a new connection; `None` where it is in the clear.
pub type Tls = Arc<dyn Fn() -> Option<Arc<ServerConfig>> + Send + Sync>;

/// A listening socket, and what its connections get.
pub struct Listener {
    pub socket: TcpListener,
    pub tls: Tls,
    pub limits: ListenerLimits,
    pub connections: Connections,
}

/// Serves until `stop` is done, each connection with the `service` for who is at its other end;
/// then lets requests under way end.
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
                // All had requests under way when it accepted.
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

/// HTTP/2 as the connections of a listener speak it, over any stream of bytes: for the fuzz target of that name.
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

/// The connections of a listener, and what a new one gets.
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
        // Small answers go out at once. The kernel's own patience reaches what it has taken and the
        // peer has not. Failing either is no reason to fail.
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

    /// Every connection gets its last answer, and those that take longer than `patience` are cut.
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

/// TLS, if the peer can and does it in time.
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
