//! Accepts connections, lets them wait for so long and no longer, and lets them go.
//!
//! Our own loop, for `axum::serve` sets no timer: there, a connection that sends half a head is
//! held for ever.
//!
//! [`accept`] takes a connection in if it has a [`places`], [`connection`] speaks HTTP/1 or HTTP/2
//! over its [`stream`], [`pulse`] says how it is doing, and [`watch`] ends it if it does nothing. Of HTTP/2,
//! [`exchanges`] are a connection's requests, [`frames`] what passes, and [`gathered`] is what it writes.

mod accept;
mod connection;
mod counted;
mod exchanges;
mod frames;
mod gathered;
mod http;
mod places;
mod pulse;
mod stream;
mod watch;

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
use accept::{Acceptor, Came};
use connection::BoxError;
use counted::Counted;
use http::Http;
use places::{Place, Places};
use pulse::{Order, Pulse};
use stream::{Socket, Stream};
use watch::{Timeouts, Watch};

/// Between two requests, once the process is to end: who says nothing for so long is closed.
const LAST_IDLE: Duration = Duration::from_secs(1);

/// What a listener grants its connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
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
    pub head: guard::Limits,
}

/// TLS for a new connection; `None` where it is in the clear.
pub type Tls = Arc<dyn Fn() -> Option<Arc<ServerConfig>> + Send + Sync>;

/// A listening socket, and what its connections get.
pub struct Listener {
    pub socket: TcpListener,
    pub tls: Tls,
    pub limits: Limits,
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
    let places = Places::new(limits.max_connections, limits.max_connections_per_address);
    let mut acceptor = Acceptor::new(socket, places, connections.clone());
    let timeouts = Timeouts {
        header: limits.header_timeout,
        idle: limits.idle_timeout,
        write: limits.write_timeout,
        last: LAST_IDLE,
    };
    let mut open = Open {
        service,
        tls,
        http: Arc::new(Http::new(limits.max_streams, limits.head)),
        limits,
        tasks: TaskTracker::new(),
        watch: Watch::new(timeouts, connections.clone()),
        connections,
    };
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            came = acceptor.next() => match came {
                Came::Connection(stream, place) => open.begin(stream, place),
                Came::Waits => open.watch.make_room(Instant::now()),
            },
            now = open.watch.due() => {
                open.watch.look(now);
                // All had requests under way when it came.
                if acceptor.waits() {
                    open.watch.make_room(now);
                }
            }
            () = &mut stop => break,
        }
    }
    while let Some((stream, place)) = acceptor.left_over().await {
        open.begin(stream, place);
    }
    drop(acceptor);
    open.drain(limits.drain_timeout).await;
}

/// HTTP/2 as the connections of a listener speak it, over any stream of bytes: for the fuzz target of that name.
#[doc(hidden)]
pub async fn serve_http2<IO, S, B>(
    io: IO,
    max_streams: u32,
    head: guard::Limits,
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
    let pulse = Arc::new(Pulse::new(head.max_body));
    let service = Counted { service, pulse: pulse.clone() };
    connection::serve_http2(io, &Http::new(max_streams, head), service, &pulse).await
}

/// The connections of a listener, and what a new one gets.
struct Open<F> {
    service: F,
    tls: Tls,
    http: Arc<Http>,
    limits: Limits,
    tasks: TaskTracker,
    watch: Watch,
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
    fn begin(&mut self, tcp: TcpStream, place: Place) {
        // Small answers go out at once. The kernel's own patience reaches what it has taken and the
        // peer has not. Failing either is no reason to fail.
        let _ = tcp.set_nodelay(true);
        let _ = SockRef::from(&tcp).set_tcp_user_timeout(Some(self.limits.write_timeout));
        let pulse = Arc::new(Pulse::new(self.limits.head.max_body));
        self.watch.add(pulse.clone());
        let service = (self.service)(place.address());
        let http = self.http.clone();
        let socket = Socket::new(tcp, pulse.clone());
        let tls = (self.tls)();
        let (patience, connections) = (self.limits.handshake_timeout, self.connections.clone());
        let open = connections.open();
        self.tasks.spawn(async move {
            let stream = match tls {
                None => Some(Stream::clear(socket)),
                Some(tls) => shake_hands(socket, tls, patience, &pulse, &connections).await,
            };
            if let Some(stream) = stream
                && let Err(error) = connection::serve(stream, &http, service, pulse.clone()).await
                && connection::timed_out(&error)
            {
                connections.ended(Ended::WriteTimeout);
            }
            if pulse.is_flooded() {
                connections.ended(Ended::Flood);
            }
            drop((place, open));
        });
    }

    /// Every connection gets its last answer, and those that take longer than `patience` are cut.
    async fn drain(mut self, patience: Duration) {
        let patience = patience - config::Server::kept_back(patience);
        let until = Instant::now() + patience;
        self.tasks.close();
        self.watch.tell_all(Order::Last);
        loop {
            tokio::select! {
                () = self.tasks.wait() => return,
                now = self.watch.due() => self.watch.look(now),
                () = tokio::time::sleep_until(until) => break,
            }
        }
        tracing::warn!(after = ?patience, connections = self.tasks.len(), "connections were cut that did not end in time");
        (0..self.tasks.len()).for_each(|_| self.connections.ended(Ended::DrainTimeout));
        self.watch.tell_all(Order::Reset);
        self.tasks.wait().await;
    }
}

/// TLS, if the peer can and does it in time.
async fn shake_hands(
    socket: Socket,
    tls: Arc<ServerConfig>,
    patience: Duration,
    pulse: &Pulse,
    connections: &Connections,
) -> Option<Stream> {
    let handshake = tokio::time::timeout(patience, TlsAcceptor::from(tls).accept(socket));
    match connection::obeying(pulse, handshake).await {
        Some(Ok(Ok(stream))) => Some(Stream::tls(stream)),
        Some(_) => {
            connections.ended(Ended::Handshake);
            None
        }
        None => None,
    }
}
