//! One request and its answer, over a connection of the pool.

use std::cell::Cell;
use std::error::Error as _;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::pool::Reservation;
use super::token::Token;
use super::{Resolver, request};
use crate::answer::{Bounds, Parts};
use crate::config;
use crate::error::{Error, Kind};
use crate::routes::Query;
use crate::trace::TRACEPARENT;

/// An answer, as far as it has been read.
pub struct Received {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

/// What came after the head.
pub enum Body {
    /// To its end.
    Whole(Bytes),
    /// More than is held: from its first byte on, as it comes.
    Large(Parts, Bounds),
}

/// How an exchange came to nothing, and what its caller is told.
pub enum Broken {
    /// There was no connection: the upstream has not seen the request.
    NotSent(Error),
    /// A connection that had lain in the pool ended before the first byte of an answer. Most likely
    /// the upstream was closing it just then and has not seen the request (RFC 9112 §9.3.1).
    Stale(Error),
    /// The connection ended in the middle.
    Cut(Error),
    TimedOut(Error),
    /// It came, and it is not to be used.
    Invalid(Error),
}

impl Broken {
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotSent(error)
            | Self::Stale(error)
            | Self::Cut(error)
            | Self::TimedOut(error)
            | Self::Invalid(error) => error.kind,
        }
    }

    pub fn into_error(self) -> Error {
        match self {
            Self::NotSent(error)
            | Self::Stale(error)
            | Self::Cut(error)
            | Self::TimedOut(error)
            | Self::Invalid(error) => error,
        }
    }
}

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

/// The client for all upstreams. Fails where the machine has no certificates to trust and one is
/// needed.
pub fn client(
    config: &config::Upstream,
    connections: Connections,
    any_https: bool,
    resolver: Option<&Resolver>,
) -> Result<reqwest::Client, reqwest::Error> {
    let mut client = reqwest::Client::builder()
        .user_agent(concat!("kore-gateway/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.connect_timeout)
        .pool_idle_timeout(config.idle_timeout)
        // A redirect would carry the token to wherever it points.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .connector_layer(NoteConnects);
    if connections == Connections::UsedOnce {
        client = client.pool_max_idle_per_host(0);
    }
    if let Some(resolver) = resolver {
        client = client.dns_resolver(resolver.clone());
    }
    if let Some(pem) = &config.ca {
        client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
    } else if !any_https {
        // Nobody to trust: a machine without certificates will do.
        client = client.tls_certs_only([]);
    }
    client.build()
}

/// What goes with a query that is not in it.
pub struct Added<'a> {
    pub token: &'a Token,
    /// Which trace the exchange is a part of.
    pub traceparent: Option<HeaderValue>,
}

/// Sends a query and reads the answer, decoded, as far as `max_body` allows. The quota's
/// reservation is spent as soon as the request may have left.
pub async fn exchange(
    client: &reqwest::Client,
    query: &Query,
    account: &config::Account,
    added: Added<'_>,
    config: &config::Upstream,
    reservation: &mut Reservation,
) -> Result<Received, Broken> {
    let mut headers = request::headers(query, account, added.token.header.clone()).map_err(|error| {
        let detail = "the gateway cannot write the upstream request";
        Broken::Invalid(Error::new(Kind::Internal, detail).caused_by(error))
    })?;
    headers.extend(added.traceparent.map(|context| (TRACEPARENT, context)));
    let url = request::url(query, account);
    let mut request = client.request(query.route.method.clone(), url).headers(headers);
    let body = query.key.parts().body;
    if !body.is_empty() {
        request = request.body(body.to_owned());
    }
    reservation.make();
    let (sent, has_connected) = CONNECTED
        .scope(Cell::new(false), async {
            let sent = request.send().await;
            (sent, CONNECTED.with(Cell::get))
        })
        .await;
    reservation.over();
    let mut response = sent.map_err(|error| broken(error, !has_connected)).inspect_err(|broken| {
        if let Broken::NotSent(_) = broken {
            reservation.unmake();
        }
    })?;
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
        // RFC 9112 §6.3: two lengths are an attempt at smuggling, or a proxy that could be smuggled
        // through. Dropping the response unread closes its connection.
        return Err(Broken::Invalid(
            Error::new(Kind::UpstreamInvalid, "the upstream's answer has two lengths")
                .proxy_status("http_protocol_error"),
        ));
    }
    // The client takes the length of a compressed body away with its coding.
    let is_framed = response.content_length().is_some() || headers.contains_key(header::TRANSFER_ENCODING);
    let body = match read(&mut response, config.max_body).await? {
        Ok(body) => Body::Whole(body),
        Err(start) => {
            let until = Instant::now() + config.large_timeout;
            let bounds = Bounds { is_framed, until, patience: config.timeout };
            Body::Large(rest(start, response, config.timeout), bounds)
        }
    };
    Ok(Received { status, headers, body })
}

/// The whole body; or, where it is larger than that, what came of it so far.
async fn read(response: &mut reqwest::Response, max_body: usize) -> Result<Result<Bytes, Bytes>, Broken> {
    // Parts, for a buffer that grows by doubling would hold three times the cap for a moment.
    let (mut parts, mut length) = (Vec::new(), 0);
    while let Some(part) = response.chunk().await.map_err(|error| broken(error, false))? {
        length += part.len();
        parts.push(part);
        if length > max_body {
            return Ok(Err(parts.concat().into()));
        }
    }
    // Exactly as large as it is: what a buffer has over would be kept by the store, uncounted.
    Ok(Ok(parts.concat().into()))
}

/// A body from its start, which has been read, to its end, as it comes. Each part of it has to come
/// within `patience`.
fn rest(start: Bytes, response: reqwest::Response, patience: Duration) -> Parts {
    let parts = stream::unfold(Some(response), move |response| async move {
        let mut response = response?;
        match tokio::time::timeout(patience, response.chunk()).await {
            Ok(Ok(None)) => None,
            Ok(Ok(Some(part))) => Some((Ok(part), Some(response))),
            Ok(Err(error)) => Some((Err(broken(error, false).into_error()), None)),
            Err(_) => {
                let detail = "the upstream stopped in the middle of its answer";
                Some((Err(Error::new(Kind::UpstreamTimeout, detail)), None))
            }
        }
    });
    Parts::new(stream::once(async { Ok(start) }).chain(parts).boxed())
}

/// An exchange that broke. The URL is taken out of the cause: its query may name anything.
fn broken(error: reqwest::Error, is_reused: bool) -> Broken {
    let error = error.without_url();
    if error.is_connect() {
        let (kind, detail, proxy_status) = if error.is_timeout() {
            (Kind::UpstreamTimeout, "connecting to the upstream took too long", "connection_timeout")
        } else {
            (Kind::UpstreamUnreachable, "the upstream cannot be reached", connect_failure(&error))
        };
        return Broken::NotSent(Error::new(kind, detail).proxy_status(proxy_status).caused_by(error));
    }
    if error.is_timeout() {
        let detail = "the upstream did not answer in time";
        let timeout = Error::new(Kind::UpstreamTimeout, detail).proxy_status("http_response_timeout");
        return Broken::TimedOut(timeout.caused_by(error));
    }
    let is_cut = has_ended(&error);
    let is_before_the_head = error.is_request();
    let (detail, proxy_status) = if is_cut {
        ("the upstream broke off its answer", "http_response_incomplete")
    } else {
        ("the upstream's answer cannot be decoded", "http_protocol_error")
    };
    let told = Error::new(Kind::UpstreamInvalid, detail).proxy_status(proxy_status).caused_by(error);
    match (is_cut, is_before_the_head && is_reused) {
        (true, true) => Broken::Stale(told),
        (true, false) => Broken::Cut(told),
        (false, _) => Broken::Invalid(told),
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| (**cause).source())
}

/// Whether the connection ended before the answer did.
fn has_ended(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        let by_http = cause.downcast_ref::<hyper::Error>();
        let by_socket = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        by_http.is_some_and(|error| error.is_incomplete_message() || error.is_closed() || error.is_canceled())
            || matches!(
                by_socket,
                Some(
                    io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::NotConnected
                )
            )
    })
}

/// Which of RFC 9209's error types a failed connect is.
fn connect_failure(error: &reqwest::Error) -> &'static str {
    let texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    let tells = |words: &str| texts.iter().any(|text| text.contains(words));
    if tells("certificate") {
        "tls_certificate_error"
    } else if tells("dns error") {
        "dns_error"
    } else {
        "connection_refused"
    }
}

/// Notes on [`CONNECTED`] that a connection is made: the one thing the client does not tell.
#[derive(Clone, Copy)]
struct NoteConnects;

#[derive(Clone)]
struct Noting<S>(S);

impl<S> Layer<S> for NoteConnects {
    type Service = Noting<S>;

    fn layer(&self, inner: S) -> Noting<S> {
        Noting(inner)
    }
}

impl<S: Service<R>, R> Service<R> for Noting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> S::Future {
        // Outside of an exchange nobody asks.
        let _ = CONNECTED.try_with(|connected| connected.set(true));
        self.0.call(request)
    }
}
