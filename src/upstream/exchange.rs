//! One request and its answer, over a connection of the pool.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::client::{self, Client, Unanswered};
use super::pool::Reservation;
use super::request;
use super::token::Token;
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
    Whole(Arc<[u8]>),
    /// More than is held: from its first byte on, as it comes.
    Large(Parts, Bounds),
}

type BoxError = Box<dyn StdError + Send + Sync>;

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

/// What goes with a query that is not in it.
pub struct Added<'a> {
    pub token: &'a Token,
    /// Which trace the exchange is a part of.
    pub traceparent: Option<HeaderValue>,
}

/// Sends a query and reads the answer, decoded, as far as `max_body` allows. The quota's
/// reservation is spent as soon as the request may have left.
pub async fn exchange(
    client: &Client,
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
    let target = Uri::try_from(request::url(query, account)).map_err(|error| {
        let detail = "the gateway cannot write the upstream's URL";
        Broken::Invalid(Error::new(Kind::Internal, detail).caused_by(error))
    })?;
    let body = Bytes::copy_from_slice(query.key.parts().body.as_bytes());
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = query.route.method.clone();
    *request.uri_mut() = target;
    *request.headers_mut() = headers;
    reservation.make();
    let sent = client.send(request).await;
    reservation.over();
    let mut response = sent.map_err(not_answered).inspect_err(|broken| {
        if let Broken::NotSent(_) = broken {
            reservation.unmake();
        }
    })?;
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    // The client takes the length of a compressed body away with its coding.
    let mut body = response.into_body();
    let is_framed = body.size_hint().exact().is_some() || headers.contains_key(header::TRANSFER_ENCODING);
    let body = match read(&mut body, config.max_body).await? {
        Ok(body) => Body::Whole(body),
        Err(start) => {
            let until = Instant::now() + config.large_timeout;
            let bounds = Bounds { is_framed, until, patience: config.timeout };
            Body::Large(rest(start, body, config.timeout), bounds)
        }
    };
    Ok(Received { status, headers, body })
}

/// The whole body; or, where it is larger than that, what came of it so far.
async fn read(body: &mut client::Body, max_body: usize) -> Result<Result<Arc<[u8]>, Bytes>, Broken> {
    // Parts, for a buffer that grows by doubling would hold three times the cap for a moment.
    let (mut parts, mut length) = (Vec::new(), 0);
    while let Some(part) = next(body).await {
        let part = part.map_err(broken_off)?;
        length += part.len();
        parts.push(part);
        if length > max_body {
            return Ok(Err(parts.concat().into()));
        }
    }
    // Exactly as large as it is: what a buffer has over would be kept by the store, uncounted.
    Ok(Ok(match &*parts {
        [whole] => Arc::from(&**whole),
        _ => {
            let whole = parts.concat();
            drop(parts);
            whole.into()
        }
    }))
}

/// What comes next of a body; trailers tell nothing that anybody gets.
async fn next(body: &mut client::Body) -> Option<Result<Bytes, BoxError>> {
    loop {
        match body.frame().await?.map(Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// A body from its start, which has been read, to its end, as it comes. Each part of it has to come
/// within `patience`.
fn rest(start: Bytes, body: client::Body, patience: Duration) -> Parts {
    let parts = stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(patience, next(&mut body)).await {
            Ok(None) => None,
            Ok(Some(Ok(part))) => Some((Ok(part), Some(body))),
            Ok(Some(Err(error))) => Some((Err(broken_off(error).into_error()), None)),
            Err(_) => {
                let detail = "the upstream stopped in the middle of its answer";
                Some((Err(Error::new(Kind::UpstreamTimeout, detail)), None))
            }
        }
    });
    Parts::new(stream::once(async { Ok(start) }).chain(parts).boxed())
}

/// An exchange that broke before there was an answer to read.
fn not_answered(unanswered: Unanswered) -> Broken {
    let (error, is_reused) = match unanswered {
        Unanswered::Broken { error, is_reused } => (error, is_reused),
        Unanswered::TwoLengths => {
            let told = Error::new(Kind::UpstreamInvalid, "the upstream's answer has two lengths");
            return Broken::Invalid(told.proxy_status("http_protocol_error"));
        }
    };
    if error.is_connect() {
        let (kind, detail, proxy_status) = if is_late(&error) {
            (Kind::UpstreamTimeout, "connecting to the upstream took too long", "connection_timeout")
        } else {
            (Kind::UpstreamUnreachable, "the upstream cannot be reached", connect_failure(&error))
        };
        return Broken::NotSent(Error::new(kind, detail).proxy_status(proxy_status).caused_by(error));
    }
    match broken_off(error.into()) {
        Broken::Cut(told) if is_reused => Broken::Stale(told),
        broken => broken,
    }
}

/// An exchange that broke.
fn broken_off(error: BoxError) -> Broken {
    let told = |kind, detail, proxy_status| Error::new(kind, detail).proxy_status(proxy_status);
    if is_late(&*error) || is_lost(&*error) {
        // The upstream's machine has confirmed nothing for so long that ours gave the connection up.
        let detail = "the upstream was not heard of any more";
        return Broken::TimedOut(
            told(Kind::UpstreamTimeout, detail, "http_response_timeout").caused_by(error),
        );
    }
    if has_ended(&*error) {
        let detail = "the upstream broke off its answer";
        return Broken::Cut(told(Kind::UpstreamInvalid, detail, "http_response_incomplete").caused_by(error));
    }
    let detail = "the upstream's answer cannot be decoded";
    Broken::Invalid(told(Kind::UpstreamInvalid, detail, "http_protocol_error").caused_by(error))
}

/// An error and what caused it.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |cause| (**cause).source())
}

/// Whether one of the causes is a socket's error of such a kind.
fn by_socket(error: &(dyn StdError + 'static), kinds: &[io::ErrorKind]) -> bool {
    let mut errors = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors.any(|error| kinds.contains(&error.kind()))
}

/// Whether something did not come in time: by our clock, or by the system's.
fn is_late(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(<dyn StdError>::is::<Elapsed>) || by_socket(error, &[io::ErrorKind::TimedOut])
}

/// Whether a connection that was there was given up because there is no way to the upstream any more: what the
/// machine tells instead of a time-out where somebody on the way has told it so.
fn is_lost(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable};
    by_socket(error, &[HostUnreachable, NetworkUnreachable, NetworkDown, ConnectionRefused])
}

/// Whether the connection ended before the answer did.
fn has_ended(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    let mut by_http = causes(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>());
    by_http.any(|error| error.is_incomplete_message() || error.is_closed() || error.is_canceled())
        || by_socket(error, &[ConnectionReset, ConnectionAborted, BrokenPipe, UnexpectedEof, NotConnected])
}

/// Which of RFC 9209's error types a failed connect is.
fn connect_failure(error: &(dyn StdError + 'static)) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_gave_up_came_too_late_and_is_no_malformed_answer() {
        let broken = |kind: io::ErrorKind| broken_off(io::Error::from(kind).into());
        // With or without word from somebody on the way.
        for kind in [
            io::ErrorKind::TimedOut,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::NetworkDown,
            io::ErrorKind::ConnectionRefused,
        ] {
            let Broken::TimedOut(told) = broken(kind) else { panic!("{kind} is late") };
            assert_eq!(told.kind, Kind::UpstreamTimeout);
        }
        assert!(matches!(broken(io::ErrorKind::ConnectionReset), Broken::Cut(_)));
        assert!(matches!(broken(io::ErrorKind::InvalidData), Broken::Invalid(_)));
    }
}
