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
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};
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
    /// Whether a connection was made for the exchange of this task.
    static CONNECTED: Cell<bool>;
}

/// Whether connections are kept for the next call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connections {
    Kept,
    UsedOnce,
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
        let machine =
            || Resolver::new(GaiResolver::new().map_response(|found| found.collect::<Vec<_>>().into_iter()));
        let mut tcp = HttpConnector::new_with_resolver(resolver.cloned().unwrap_or_else(machine));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        tcp.set_tcp_user_timeout(Some(UNCONFIRMED));
        let tls = HttpsConnector::from((tcp, tls(config, any_https)?));
        let mut client = legacy::Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(config.idle_timeout);
        if connections == Connections::UsedOnce {
            client.pool_max_idle_per_host(0);
        }
        Ok(Self(client.build(Connector { tls, timeout: config.connect_timeout })))
    }

    /// Sends a request, and says beside what came of it whether a connection was made for it. The answer
    /// is read as far as its head.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> (Result<Response<Body>, legacy::Error>, bool) {
        const USER_AGENT: &str = concat!("kore-gateway/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        CONNECTED
            .scope(Cell::new(false), async {
                let sent = Decompression::new(&self.0).call(request).await;
                (sent, CONNECTED.with(Cell::get))
            })
            .await
    }
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

/// Makes connections: name, socket and TLS, all of it in time. Notes on [`CONNECTED`] that it does: the
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
        // Outside of an exchange nobody asks.
        let _ = CONNECTED.try_with(|connected| connected.set(true));
        let connected = tokio::time::timeout(self.timeout, self.tls.call(upstream));
        Box::pin(async { connected.await? })
    }
}
