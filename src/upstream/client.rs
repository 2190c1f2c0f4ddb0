//! The HTTP client of all upstreams: hyper's, with connections that are kept, over TLS or without, and
//! what comes compressed decoded.
//!
//! hyper's own and not reqwest's: a URL is parsed once and not three times, and there is nothing in
//! between that follows redirects, keeps cookies or reads proxies from the environment.

use std::cell::Cell;
use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Extensions, HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::{
    Connected, Connection as _, HttpConnector, HttpInfo, capture_connection,
};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt, service_fn};
use tower_http::decompression::{Decompression, DecompressionBody};

use crate::config;

/// What finds the addresses of upstreams by their names, in place of the machine.
pub type Resolver = BoxCloneSyncService<Name, std::vec::IntoIter<SocketAddr>, io::Error>;

type BoxError = Box<dyn StdError + Send + Sync>;

/// A body as it comes, decoded.
pub type Body = DecompressionBody<Incoming>;

/// Probes of a connection that says nothing, so that one which is lost does not lie in the pool.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

/// For how long the upstream's machine may confirm nothing of what was sent.
const UNCONFIRMED: Duration = Duration::from_secs(30);

tokio::task_local! {
    /// Which connection came about while the exchange of this task waited for one: its address here.
    static CONNECTED: Cell<Option<SocketAddr>>;
}

/// Whether connections are kept for the next call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connections {
    Kept,
    UsedOnce,
}

/// Why there is no answer that could be read.
#[derive(Debug)]
pub enum Unanswered {
    Broken {
        error: legacy::Error,
        /// The connection came out of the pool, and was not made for this exchange.
        is_reused: bool,
    },
    /// RFC 9112 §6.3: an answer with two lengths is an attempt at smuggling, or comes through a proxy that
    /// could be smuggled through.
    TwoLengths,
}

/// Makes requests of upstreams. Follows no redirects: one would carry the token to wherever it points.
pub struct Client(legacy::Client<Connector, Full<Bytes>>);

impl Client {
    /// Fails where the machine has no certificates to trust and one is needed.
    pub fn new(
        config: &config::Upstream,
        connections: Connections,
        any_https: bool,
        resolver: Option<&Resolver>,
    ) -> Result<Self, rustls::Error> {
        let tls = HttpsConnector::from((tcp(config.connect_timeout, resolver), tls(config, any_https)?));
        let mut client = legacy::Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(config.idle_timeout);
        if connections == Connections::UsedOnce {
            client.pool_max_idle_per_host(0);
        }
        Ok(Self(client.build(Connector { tls, timeout: config.connect_timeout })))
    }

    /// Sends a request. The answer is read as far as its head.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Body>, Unanswered> {
        const USER_AGENT: &str = concat!("kore-gateway/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        // Below the decompression, which takes away the length of what it decodes.
        Decompression::new(service_fn(|request| self.ask(request))).call(request).await
    }

    /// The same, still in its coding.
    async fn ask(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unanswered> {
        let connection = capture_connection(&mut request);
        let asked = async {
            let asked = self.0.request(request).await;
            asked.map_err(|error| {
                let (made, used) = (CONNECTED.with(Cell::get), error.connect_info().and_then(address_here));
                // While one was being made, one of the pool may have become free.
                Unanswered::Broken { is_reused: made.is_none() || made != used, error }
            })
        };
        let answer = CONNECTED.scope(Cell::new(None), asked).await?;
        let fields = answer.headers();
        if fields.contains_key(header::TRANSFER_ENCODING) && fields.contains_key(header::CONTENT_LENGTH) {
            // Whatever follows on it may be a part of this answer. Where there was no body to wait for, hyper
            // has given it back to the pool a moment ago: the pool looks whether it may be used when it hands
            // one out.
            if let Some(connection) = &*connection.connection_metadata() {
                connection.poison();
            }
            return Err(Unanswered::TwoLengths);
        }
        Ok(answer)
    }
}

/// Where a connection begins: no two that are open at a time begin at one address.
fn address_here(connected: &Connected) -> Option<SocketAddr> {
    let mut told = Extensions::new();
    connected.get_extras(&mut told);
    told.get::<HttpInfo>().map(HttpInfo::local_addr)
}

/// Makes sockets. `timeout` is divided among the addresses of a name, so that one which is lost leaves time
/// for the others. The look-up of the name has no part of its own: its time is taken off the last one's.
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
    tcp.set_tcp_user_timeout(Some(UNCONFIRMED));
    tcp
}

/// Whom to trust: the configuration's certificates, or else the machine's.
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
        // Nobody to trust: a machine without certificates will do.
        tls.with_root_certificates(RootCertStore::empty())
    };
    let mut tls = tls.with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// Makes connections: name, socket and TLS, all of it in time. Notes on [`CONNECTED`] which it has made: the
/// one thing the client does not tell.
#[derive(Clone)]
struct Connector {
    tls: HttpsConnector<HttpConnector<Resolver>>,
    timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector<Resolver>> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tls.poll_ready(context)
    }

    fn call(&mut self, upstream: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.timeout, self.tls.call(upstream));
        Box::pin(async {
            let connection = connecting.await??;
            // Where a connection of the pool was free first, this goes on outside of the exchange, for the
            // next one, and nobody asks.
            let _ = CONNECTED.try_with(|made| made.set(address_here(&connection.connected())));
            Ok(connection)
        })
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
        assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(UNCONFIRMED));
        assert!(socket.tcp_nodelay().expect("an option"));
    }
}
