//! The HTTP client of all upstreams. It is hyper's, with a connection pool, and with or without TLS. It decodes
//! compressed answers; an answer that cannot be decoded is an error.
//!
//! It is not reqwest's: so a URL is parsed once and not three times, and nothing follows redirects, keeps cookies or
//! reads proxies from the environment.

use std::borrow::Cow;
use std::cell::Cell;
use std::error::Error as StdError;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::{
    Connected, Connection, HttpConnector, HttpInfo, capture_connection,
};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use pin_project_lite::pin_project;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt, service_fn};
use tower_http::decompression::{Decompression, DecompressionBody};

use crate::clock::Clock;
use crate::config;

/// Resolves the names of upstreams, in place of the machine's resolver.
pub type Resolver = BoxCloneSyncService<Name, std::vec::IntoIter<SocketAddr>, io::Error>;

type BoxError = Box<dyn StdError + Send + Sync>;

/// A decoded body, as a stream.
pub type Body = DecompressionBody<Incoming>;

/// Keep-alive probes of a silent connection, so that a lost one does not stay in the pool.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

/// For how long the upstream's machine may acknowledge nothing of what was sent.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

tokio::task_local! {
    /// The local address of the connection that was made while the exchange of this task waited for one.
    static CONNECTED: Cell<Option<SocketAddr>>;
}

/// Whether connections are kept for the next call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connections {
    Kept,
    UsedOnce,
}

/// Why there is no readable answer.
#[derive(Debug)]
pub enum Unanswered {
    Broken {
        error: legacy::Error,
        /// Whether the connection came from the pool and was not made for this exchange.
        is_reused: bool,
    },
    /// A 408 over a connection from the pool: the upstream was closing it and has not read the request
    /// (RFC 9110 §15.5.9).
    ClosedIdle,
    /// By its head, the body of the answer cannot be read. The text says why.
    Unreadable(Cow<'static, str>),
}

/// The most header fields of an answer, and the most bytes of its head. hyper's default of 100 fields is too low for an
/// answer that came through several proxies.
pub const MAX_FIELDS: usize = 200;
pub const MAX_HEAD: usize = 128 * 1024;

/// The codings that the client asks for. It decodes `deflate` too, but does not ask for it: half of its senders mean
/// a different format.
const ACCEPTED_CODINGS: HeaderValue = HeaderValue::from_static("gzip, br");

/// Sends requests to upstreams. It follows no redirect, because that would send the token to another place.
pub struct Client {
    http: legacy::Client<Connector, Full<Bytes>>,
    clock: Clock,
}

impl Client {
    /// Fails if certificates are needed and the machine has none to trust.
    pub fn new(
        config: &config::Upstream,
        connections: Connections,
        any_https: bool,
        resolver: Option<&Resolver>,
        clock: &Clock,
    ) -> Result<Self, rustls::Error> {
        let tls = HttpsConnector::from((tcp(config.connect_timeout, resolver), tls(config, any_https)?));
        let mut client = legacy::Client::builder(TokioExecutor::new());
        // The age is checked on use only, so an idle connection must not outlive it.
        let idle_timeout = config.idle_timeout.min(config.max_connection_age);
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(idle_timeout);
        client.http1_max_headers(MAX_FIELDS).http1_max_buf_size(MAX_HEAD);
        if connections == Connections::UsedOnce {
            client.pool_max_idle_per_host(0);
        }
        let (timeout, max_age) = (config.connect_timeout, config.max_connection_age);
        let connector = Connector { tls, timeout, max_age, clock: clock.clone() };
        Ok(Self { http: client.build(connector), clock: clock.clone() })
    }

    /// Sends a request and reads the head of the answer.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Body>, Unanswered> {
        const USER_AGENT: &str = concat!("kore-gateway/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        request.headers_mut().insert(header::ACCEPT_ENCODING, ACCEPTED_CODINGS);
        // Below the decompression, which removes the length of what it decodes.
        Decompression::new(service_fn(|request| self.send_undecoded(request))).call(request).await
    }

    /// The same, not yet decoded, in a coding that can be decoded.
    async fn send_undecoded(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let connection = capture_connection(&mut request);
        // While a connection was being made, one of the pool may have become free.
        let is_reused = |made: Option<SocketAddr>, used| made.is_none() || made != used;
        let asked = async {
            let asked = self.http.request(request).await;
            let made = CONNECTED.with(Cell::get);
            asked.map(|answer| (answer, made)).map_err(|error| {
                let used = error.connect_info().and_then(address_here);
                Unanswered::Broken { is_reused: is_reused(made, used), error }
            })
        };
        let (mut answer, made) = CONNECTED.scope(Cell::new(None), asked).await?;
        let connection = connection.connection_metadata();
        let framed = check_framing(answer.headers());
        if let Some(connection) = &*connection {
            let is_old = ends_at(connection).is_some_and(|end| self.clock.uptime() >= end);
            // If there is no body, hyper has already returned the connection to the pool. The pool checks on the next
            // use whether it is poisoned.
            if framed.is_err() || is_old {
                connection.poison();
            }
            if answer.status() == StatusCode::REQUEST_TIMEOUT && is_reused(made, address_here(connection)) {
                return Err(Unanswered::ClosedIdle);
            }
        }
        framed.map_err(|why| Unanswered::Unreadable(why.into()))?;
        let has_body = !answer.body().is_end_stream();
        let coding = coding(answer.headers()).map_err(|why| Unanswered::Unreadable(why.into()))?;
        answer.headers_mut().remove(header::CONTENT_ENCODING);
        if let Some(coding) = coding.filter(|_| has_body) {
            answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        Ok(answer)
    }
}

/// Checks that the end of an answer's body is defined in exactly one way. RFC 9112 §6.3: an answer with two lengths
/// is an attempt at smuggling, or comes through a proxy that is open to it.
fn check_framing(fields: &HeaderMap) -> Result<(), &'static str> {
    let mut transfer = fields.get_all(header::TRANSFER_ENCODING).iter();
    let Some(only) = transfer.next() else { return Ok(()) };
    if fields.contains_key(header::CONTENT_LENGTH) {
        return Err("the upstream's answer has two lengths");
    }
    // hyper accepts any list that ends in `chunked`, and does not decode the rest of it.
    if transfer.next().is_some() || !only.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err("the upstream's answer has a transfer coding other than `chunked`");
    }
    Ok(())
}

/// The coding of a body, by the decoder's name. `None`: it has no coding. RFC 9110 §8.4: names are in any letter
/// case, in one field or in several; `identity` is no coding, `x-gzip` is `gzip`.
fn coding(fields: &HeaderMap) -> Result<Option<&'static str>, String> {
    let mut found = None;
    for field in fields.get_all(header::CONTENT_ENCODING) {
        for name in field.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let known = match name.to_ascii_lowercase().as_slice() {
                b"" | b"identity" => continue,
                b"gzip" | b"x-gzip" => "gzip",
                b"deflate" => "deflate",
                b"br" => "br",
                _ => {
                    let is_name = name.len() <= 20 && name.iter().all(u8::is_ascii_alphanumeric);
                    let name = if is_name { String::from_utf8_lossy(name) } else { "something else".into() };
                    return Err(format!(
                        "the upstream's answer is coded as {name}; gzip, br and deflate can be decoded"
                    ));
                }
            };
            if found.replace(known).is_some() {
                return Err("the upstream's answer is coded twice over; once can be decoded".to_owned());
            }
        }
    }
    Ok(found)
}

/// The local address of a connection. No two open connections have the same one.
fn address_here(connected: &Connected) -> Option<SocketAddr> {
    let mut extras = Extensions::new();
    connected.get_extras(&mut extras);
    extras.get::<HttpInfo>().map(HttpInfo::local_addr)
}

/// When a connection must not be reused any more, on the gateway's clock.
#[derive(Clone, Copy, Debug)]
struct EndsAt(Duration);

fn ends_at(connected: &Connected) -> Option<Duration> {
    let mut extras = Extensions::new();
    connected.get_extras(&mut extras);
    extras.get::<EndsAt>().map(|end| end.0)
}

/// A maximum age, shortened by up to a fifth, so that connections that were made together do not end together.
fn jittered(max_age: Duration) -> Duration {
    let mut random = [0; 4];
    // Without random numbers all connections have the same age.
    let _ = ::aws_lc_rs::rand::fill(&mut random);
    let part = f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX);
    max_age.mul_f64(1.0 - part / 5.0)
}

/// Makes sockets. `timeout` is divided among the addresses of a name, so that a dead address leaves time for the
/// others. The look-up of the name has no part of its own; its time shortens that of the last address.
fn tcp(timeout: Duration, resolver: Option<&Resolver>) -> HttpConnector<Resolver> {
    let machine =
        || Resolver::new(GaiResolver::new().map_response(|found| found.collect::<Vec<_>>().into_iter()));
    let mut tcp = HttpConnector::new_with_resolver(resolver.cloned().unwrap_or_else(machine));
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(timeout));
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    tcp
}

/// The TLS configuration. It trusts the certificates of the configuration, or else those of the machine.
fn tls(config: &config::Upstream, any_https: bool) -> Result<ClientConfig, rustls::Error> {
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let tls = tls.with_safe_default_protocol_versions()?;
    let tls = if let Some(pem) = &config.ca {
        let mut trusted = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            trusted.add(certificate.map_err(|error| rustls::Error::General(error.to_string()))?)?;
        }
        tls.with_root_certificates(trusted)
    } else if any_https {
        tls.try_with_platform_verifier()?
    } else {
        // No TLS, so a machine without certificates is enough.
        tls.with_root_certificates(RootCertStore::empty())
    };
    let mut tls = tls.with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// Makes connections: name, socket and TLS, within one timeout. It records in [`CONNECTED`] which connection it has
/// made, because hyper's client does not say so.
#[derive(Clone)]
struct Connector {
    tls: HttpsConnector<HttpConnector<Resolver>>,
    timeout: Duration,
    max_age: Duration,
    clock: Clock,
}

type Stream = <HttpsConnector<HttpConnector<Resolver>> as Service<Uri>>::Response;

impl Service<Uri> for Connector {
    type Response = Aging;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Aging, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tls.poll_ready(context)
    }

    fn call(&mut self, upstream: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.timeout, self.tls.call(upstream));
        let ends_at = EndsAt(self.clock.uptime() + jittered(self.max_age));
        Box::pin(async move {
            let stream = connecting.await??;
            // If a connection of the pool became free first, this continues outside of the exchange, for the next
            // one. Then there is nothing to record.
            let _ = CONNECTED.try_with(|made| made.set(address_here(&stream.connected())));
            Ok(Aging { stream, ends_at })
        })
    }
}

pin_project! {
    /// A connection that knows until when it may be used.
    struct Aging {
        #[pin]
        stream: Stream,
        ends_at: EndsAt,
    }
}

impl Connection for Aging {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.ends_at)
    }
}

impl Read for Aging {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().stream.poll_read(context, into)
    }
}

impl Write for Aging {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(context, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_lost_is_noticed_by_the_machine() {
        let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let url = format!("http://{}", upstream.local_addr().expect("an address"));
        let connection = tcp(Duration::from_secs(5), None).call(url.parse().expect("a URL")).await;
        let connection = connection.expect("a connection").into_inner();
        let socket = SockRef::from(&connection);
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), KEEPALIVE);
        assert_eq!(socket.tcp_keepalive_interval().expect("an option"), KEEPALIVE);
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), KEEPALIVE_PROBES);
        assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(UNACKNOWLEDGED));
        assert!(socket.tcp_nodelay().expect("an option"));
    }
}
