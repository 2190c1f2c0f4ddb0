//! One exchange: a request and its answer, over one connection.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::stream::{self, Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::client::{self, Client, MAX_FIELDS, MAX_HEAD, Unanswered};
use super::collected::Collected;
use super::pool::Reservation;
use super::request;
use super::token::Token;
use crate::config;
use crate::error::{Error, Kind};
use crate::fetch::answer::{Bounds, Parts};
use crate::observe::trace::TRACEPARENT;
use crate::overload::in_flight;
use crate::overload::shares::Share;
use crate::routes::Query;

/// An answer, read to the end or to the limit.
pub struct Received {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

/// The body of an answer.
pub enum Body {
    /// Complete.
    Whole(Arc<[u8]>),
    /// Larger than is held: a stream from the first byte.
    Large(Parts, Bounds),
}

/// Parts of at least this many bytes are passed on alone.
const SMALL: usize = 16 * 1024;

/// The name of the share that answers in memory count in.
pub const READING: &str = "reading";

type BoxError = Box<dyn StdError + Send + Sync>;

/// Why an exchange failed, and the error that its caller gets.
pub enum ExchangeError {
    /// There was no connection, so the upstream has not seen the request.
    NotSent(Error),
    /// An idle connection ended before the first byte of the answer. Most likely the upstream was just closing it and
    /// has not seen the request (RFC 9112 §9.3.1).
    Stale(Error),
    /// The connection ended in the middle of the answer.
    Cut(Error),
    TimedOut(Error),
    /// The answer came and cannot be used.
    Invalid(Error),
}

impl ExchangeError {
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

/// What the request carries besides the query.
pub struct Added<'a> {
    pub token: &'a Token,
    /// The trace that the exchange belongs to.
    pub traceparent: Option<HeaderValue>,
}

/// Sends a query and reads the answer, decoded, as far as `max_body` allows; what has been read counts in `share`.
/// The reservation counts as soon as the request may have been sent.
pub async fn exchange(
    client: &Client,
    query: &Query,
    account: &config::Account,
    added: Added<'_>,
    config: &config::Upstream,
    share: &mut Share,
    reservation: &mut Reservation,
) -> Result<Received, ExchangeError> {
    let mut headers = request::headers(query, account, added.token.header.clone()).map_err(|error| {
        let detail = "the gateway cannot write the upstream request";
        ExchangeError::Invalid(Error::new(Kind::Internal, detail).caused_by(error))
    })?;
    headers.extend(added.traceparent.map(|context| (TRACEPARENT, context)));
    let target = Uri::try_from(request::url(query, account)).map_err(|error| {
        let detail = "the gateway cannot write the upstream's URL";
        ExchangeError::Invalid(Error::new(Kind::Internal, detail).caused_by(error))
    })?;
    let body = Bytes::copy_from_slice(query.key.parts().body.as_bytes());
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = query.route.method.clone();
    *request.uri_mut() = target;
    *request.headers_mut() = headers;
    reservation.mark_sent();
    let sent = client.send(request).await;
    reservation.mark_done();
    let mut response = sent.map_err(not_answered).inspect_err(|broken| {
        if let ExchangeError::NotSent(_) = broken {
            reservation.mark_unsent();
        }
    })?;
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    // The client removes the length of a compressed body together with its coding.
    let body = response.into_body();
    let is_framed = body.size_hint().exact().is_some() || headers.contains_key(header::TRANSFER_ENCODING);
    let until = Instant::now() + config.large_timeout;
    let bounds = Bounds { is_framed, until, stall_timeout: config.timeout };
    let body = read(body, config, bounds, share).await?;
    Ok(Received { status, headers, body })
}

/// The complete body, or a stream if it is larger than `upstream.max_body`.
async fn read(
    mut body: client::Body,
    config: &config::Upstream,
    bounds: Bounds,
    share: &mut Share,
) -> Result<Body, ExchangeError> {
    let mut collected = Collected::default();
    while let Some(part) = next(&mut body).await {
        collected.push(part.map_err(broken_off)?);
        share
            .grow_to(collected.weight(), config.max_bytes_in_flight)
            .map_err(|is_full| ExchangeError::Invalid(in_flight::full(READING, is_full)))?;
        if collected.weight() > config.max_body {
            let start = stream::iter(collected.into_pieces()).map(Ok);
            let parts = start.chain(rest(body, bounds.stall_timeout));
            return Ok(Body::Large(Parts::new(parts.boxed()), bounds));
        }
    }
    Ok(Body::Whole(collected.into_whole()))
}

/// The next part of a body. Trailers are skipped: nobody gets them.
async fn next(body: &mut client::Body) -> Option<Result<Bytes, BoxError>> {
    loop {
        match body.frame().await?.map(Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// The rest of a body as a stream. Each part has to come within `timeout`. Small parts that are there already are
/// joined.
fn rest(body: client::Body, timeout: Duration) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    stream::unfold(Some(Ok(body)), move |body| async move {
        let mut body = match body? {
            Ok(body) => body,
            Err(broken) => return Some((Err(broken), None)),
        };
        let first = match tokio::time::timeout(timeout, next(&mut body)).await {
            Ok(None) => return None,
            Ok(Some(Ok(part))) => part,
            Ok(Some(Err(error))) => return Some((Err(broken_off(error).into_error()), None)),
            Err(_) => {
                let detail = "the upstream stopped in the middle of its answer";
                return Some((Err(Error::new(Kind::UpstreamTimeout, detail)), None));
            }
        };
        if first.len() >= SMALL {
            return Some((Ok(first), Some(Ok(body))));
        }
        let mut joined = BytesMut::from(first);
        while joined.len() < SMALL {
            match next(&mut body).now_or_never() {
                Some(Some(Ok(part))) => joined.extend_from_slice(&part),
                // The error follows the bytes that came before it.
                Some(Some(Err(error))) => {
                    return Some((Ok(joined.freeze()), Some(Err(broken_off(error).into_error()))));
                }
                Some(None) => return Some((Ok(joined.freeze()), None)),
                None => break,
            }
        }
        Some((Ok(joined.freeze()), Some(Ok(body))))
    })
}

/// The error of an exchange that has no answer to read.
fn not_answered(unanswered: Unanswered) -> ExchangeError {
    let (error, is_reused) = match unanswered {
        Unanswered::Broken { error, is_reused } => (error, is_reused),
        Unanswered::ClosedIdle => {
            let detail = "the upstream closed the connection instead of reading the request (408)";
            let error = Error::new(Kind::UpstreamInvalid, detail);
            return ExchangeError::Stale(error.proxy_error("http_response_incomplete"));
        }
        Unanswered::Unreadable(why) => {
            let error = Error::new(Kind::UpstreamInvalid, why);
            return ExchangeError::Invalid(error.proxy_error("http_protocol_error"));
        }
    };
    if error.is_connect() {
        let (kind, detail, proxy_status) = if is_late(&error) {
            (Kind::UpstreamTimeout, "connecting to the upstream took too long", "connection_timeout")
        } else {
            (Kind::UpstreamUnreachable, "the upstream cannot be reached", connect_failure(&error))
        };
        return ExchangeError::NotSent(Error::new(kind, detail).proxy_error(proxy_status).caused_by(error));
    }
    match broken_off(error.into()) {
        ExchangeError::Cut(error) if is_reused => ExchangeError::Stale(error),
        broken => broken,
    }
}

/// The error of an exchange that broke off.
fn broken_off(error: BoxError) -> ExchangeError {
    let upstream_error =
        |kind, detail: Cow<'static, str>, proxy_status| Error::new(kind, detail).proxy_error(proxy_status);
    if is_late(&*error) || is_lost(&*error) {
        // The upstream's machine acknowledged nothing for so long that ours closed the connection.
        let detail = "the upstream was not heard of any more";
        return ExchangeError::TimedOut(
            upstream_error(Kind::UpstreamTimeout, detail.into(), "http_response_timeout").caused_by(error),
        );
    }
    if has_ended(&*error) {
        let detail = "the upstream broke off its answer";
        return ExchangeError::Cut(
            upstream_error(Kind::UpstreamInvalid, detail.into(), "http_response_incomplete").caused_by(error),
        );
    }
    let detail = malformed(&*error);
    ExchangeError::Invalid(
        upstream_error(Kind::UpstreamInvalid, detail, "http_protocol_error").caused_by(error),
    )
}

/// Describes what is wrong with an answer that cannot be read. For most cases hyper has only a text.
fn malformed(error: &(dyn StdError + 'static)) -> Cow<'static, str> {
    let Some(by_http) = causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>()) else {
        return "the upstream's answer is not in the coding that it names".into();
    };
    if by_http.is_parse_too_large() {
        return format!(
            "the head of the upstream's answer is too large: at most {MAX_FIELDS} fields and {} KiB are read",
            MAX_HEAD / 1024
        )
        .into();
    }
    let text = by_http.to_string();
    let is_about = |words: &str| text.contains(words);
    if by_http.is_parse_status() || is_about("version") {
        "the upstream's answer does not begin with a status line of HTTP/1".into()
    } else if is_about("content-length") {
        "the upstream's answer has two lengths, or one that is no number".into()
    } else if is_about("transfer-encoding") {
        "the upstream's answer has a transfer coding that is not allowed there".into()
    } else if by_http.is_parse() {
        "the upstream's answer has a header field that is none: a byte that is not allowed, or no colon"
            .into()
    } else {
        "the upstream's answer has a chunk that is none".into()
    }
}

/// An error and its causes.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |cause| (**cause).source())
}

/// Whether one of the causes is a socket error of such a kind.
fn by_socket(error: &(dyn StdError + 'static), kinds: &[io::ErrorKind]) -> bool {
    let mut errors = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors.any(|error| kinds.contains(&error.kind()))
}

/// Whether something timed out, by our clock or by the system's.
fn is_late(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(<dyn StdError>::is::<Elapsed>) || by_socket(error, &[io::ErrorKind::TimedOut])
}

/// Whether an established connection was lost because there is no route to the upstream any more. The machine reports
/// this instead of a timeout if a router has told it so.
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

/// The error type of RFC 9209 for a failed connect.
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
            let ExchangeError::TimedOut(error) = broken(kind) else { panic!("{kind} is late") };
            assert_eq!(error.kind, Kind::UpstreamTimeout);
        }
        assert!(matches!(broken(io::ErrorKind::ConnectionReset), ExchangeError::Cut(_)));
        assert!(matches!(broken(io::ErrorKind::InvalidData), ExchangeError::Invalid(_)));
    }
}
