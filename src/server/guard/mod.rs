//! The guard decides which requests reach the router.
//!
//! If two programs can read one request in two ways, the request can bypass one of them. So the guard accepts only
//! heads that can be read in one way. It judges them before hyper parses them: hyper drops a `Content-Length` beside a
//! `Transfer-Encoding`, joins equal ones and cuts off fragments, and no layer above can tell. A refused request gets its
//! status, a request id and an access line like any other request, and its connection is closed.
//!
//! - [`head`]: judges one head of HTTP/1 by its bytes. Pure.
//! - [`framing`]: finds where heads and bodies begin and end in a connection's bytes. Pure.
//! - [`io`]: holds back bytes until they are judged, and replaces a refused head by a placeholder.
//! - This file: the refusals and their reasons, and the same rules for HTTP/2, whose framing h2 checks.

pub mod framing;
pub mod head;
pub mod io;

use std::fmt;
use std::time::Duration;

use bytes::Buf;
use http::request::Parts;
use http::{HeaderName, Method, Version, header};
use http_body::Body;
use http_body_util::BodyExt;

use crate::config;
use crate::error::{Error, Fault, Kind};

/// The size limits of a request. Each is a key of `[server]` in config/gateway.toml.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadLimits {
    /// Bytes of the request line and all header fields.
    pub max_head: usize,
    /// Bytes of path and query.
    pub max_target: usize,
    /// Number of header fields, at most [`head::MOST_FIELDS`].
    pub max_fields: usize,
    /// Bytes of the body, as announced by the head.
    pub max_body: u64,
}

impl HeadLimits {
    pub fn of(server: &config::Server) -> Self {
        Self {
            max_head: server.max_head,
            max_target: server.max_target,
            max_fields: server.max_fields,
            max_body: server.max_request_body as u64,
        }
    }
}

macro_rules! refusals {
    ($($(#[doc = $doc:literal])* $name:ident: $kind:ident, $word:literal, $place:expr, $detail:literal;)*) => {
        /// Why a request is refused before it is authenticated.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Refusal { $($(#[doc = $doc])* $name,)* }

        impl Refusal {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason as a word for the log.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The kind of error, which decides the status.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }

            /// The header field that is at fault, if it is one.
            const fn field(self) -> Option<&'static str> {
                match self { $(Self::$name => $place,)* }
            }

            const fn detail(self) -> &'static str {
                match self { $(Self::$name => $detail,)* }
            }
        }
    };
}

refusals! {
    Malformed: InvalidRequest, "malformed", None,
        "this is not a request of HTTP/1.1 (RFC 9112 §2.1)";
    /// RFC 9112 §2.2 allows a recipient to accept it as a line end. Some do and some do not.
    BareLineFeed: InvalidRequest, "bare-line-feed", None,
        "a line of the head ends without a carriage return";
    Version: VersionNotSupported, "version", None,
        "the protocol's version is another than HTTP/1.1, HTTP/1.0 and HTTP/2";
    /// A fragment, `*`, an authority, or bytes that are not allowed in a URI.
    Target: InvalidRequest, "target", None,
        "the target is neither a path with a query nor a URL of this host, or has characters that need percent-encoding";
    TargetTooLong: UriTooLong, "target-too-long", None,
        "path and query are longer than `server.max_target`";
    HeadTooLarge: HeadTooLarge, "head-too-large", None,
        "the head is larger than `server.max_head`";
    TooManyFields: HeadTooLarge, "too-many-fields", None,
        "the head has more fields than `server.max_fields`";
    HostMissing: InvalidRequest, "host-missing", Some("host"),
        "there is no `Host`; HTTP/1.1 wants one (RFC 9112 §3.2)";
    HostRepeated: InvalidRequest, "host-repeated", Some("host"),
        "there is more than one `Host`";
    HostInvalid: InvalidRequest, "host-invalid", Some("host"),
        "`Host` is no name or address with an optional port";
    /// RFC 9112 §3.2.2 gives priority to the target. A program that reads the field would see another host.
    HostDiffers: InvalidRequest, "host-differs", Some("host"),
        "the target names another host than `Host`";
    LengthWithEncoding: InvalidRequest, "length-with-encoding", Some("content-length"),
        "`Content-Length` and `Transfer-Encoding` together (RFC 9112 §6.1)";
    LengthRepeated: InvalidRequest, "length-repeated", Some("content-length"),
        "there is more than one `Content-Length`";
    /// A sign, a leading zero, or a list.
    LengthInvalid: InvalidRequest, "length-invalid", Some("content-length"),
        "`Content-Length` is something else than digits without leading zeros";
    EncodingInvalid: InvalidRequest, "encoding-invalid", Some("transfer-encoding"),
        "`Transfer-Encoding` is something else than one `chunked`";
    /// It ends in `chunked`, so the framing is clear (RFC 9112 §6.1), but another coding comes first.
    EncodingUnknown: NotImplemented, "encoding-unknown", Some("transfer-encoding"),
        "a transfer coding beside `chunked`";
    BodyUnexpected: InvalidRequest, "body-unexpected", None,
        "a GET or HEAD with a body";
    Expectation: ExpectationFailed, "expectation", Some("expect"),
        "`Expect` is something else than `100-continue`";
    /// Decided by the head, before any of the body is read or requested with a 100.
    ContentTooLarge: ContentTooLarge, "content-too-large", Some("content-length"),
        "the body is larger than `server.max_request_body`";
    /// HTTP/1 allows blanks around a value, and they are not part of it. RFC 9113 §8.2.1 forbids them.
    ValuePadded: InvalidRequest, "value-padded", None,
        "the value of a field begins or ends with a blank (RFC 9113 §8.2.1)";
    /// The crate `http` accepts a quotation mark in a name.
    NameInvalid: InvalidRequest, "name-invalid", None,
        "the name of a field is no token (RFC 9110 §5.6.2)";
    Connect: NotImplemented, "connect", None,
        "this is no tunnel";
}

impl Refusal {
    /// Whether the request is malformed in its version, so that its stream ends in an error (RFC 9113 §8.1.1). It is
    /// used only where HTTP/2 demands it. Everywhere else, a response tells the client more.
    fn is_malformed(self, version: Version) -> bool {
        // §8.3.1: `Host` and `:authority` must be equal.
        version == Version::HTTP_2 && self == Self::HostDiffers
    }

    /// The error of a refused request.
    pub fn into_error(self, version: Version) -> Error {
        let error = Error::from(self);
        if self.is_malformed(version) { error.malformed() } else { error }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let error = Self::new(refusal.kind(), refusal.detail()).caused_by(refusal);
        match refusal.field() {
            Some(field) => error.with_fault(Fault::in_header(field, refusal.detail())),
            None => error,
        }
    }
}

/// The header field of a placeholder, which replaces a refused head. The placeholder's target is `*`, which the guard
/// accepts from no client. If a client could send one, its request would only be refused.
const REFUSAL: HeaderName = HeaderName::from_static("refusal");

/// The head that hyper gets in place of a refused one.
fn placeholder(refusal: Refusal, is_head: bool, origin: Option<&[u8]>) -> Vec<u8> {
    // The client of a HEAD accepts no body. Any other method becomes `_OTHER`, as in the metrics, for it may not be
    // known.
    let method = if is_head { "HEAD" } else { "_OTHER" };
    let mut head =
        format!("{method} * HTTP/1.1\r\nconnection: close\r\n{REFUSAL}: {refusal}\r\n").into_bytes();
    if let Some(origin) = origin {
        head.extend_from_slice(b"origin: ");
        head.extend_from_slice(origin);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Whether it is not yet known if an HTTP/2 request has content: its stream did not end with the head. A GET or a HEAD
/// must not have any.
pub fn is_open(head_method: &Method, version: Version, body: &impl Body) -> bool {
    version == Version::HTTP_2
        && (head_method == Method::GET || head_method == Method::HEAD)
        && !body.is_end_stream()
}

/// Waits for the end of a body that [`is_open`]. Returns whether there was content. A body that does not end in time
/// counts as content.
pub async fn has_content<B: Body + Unpin>(body: &mut B, within: Duration) -> bool {
    let reading = async {
        while let Some(frame) = body.frame().await {
            // A stream that breaks off gets no response, whatever this returns.
            let Ok(frame) = frame else { return true };
            if frame.data_ref().is_some_and(Buf::has_remaining) {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(within, reading).await.unwrap_or(true)
}

/// Decides whether a request is refused. An HTTP/1 head was judged by its bytes, and only its placeholder has to be
/// recognised. An HTTP/2 head is judged here.
pub fn check(head: &Parts, has_body: bool, limits: &HeadLimits) -> Result<(), Refusal> {
    if head.version == Version::HTTP_2 {
        return check_http2(head, has_body, limits);
    }
    if head.uri.path() != "*" {
        return Ok(());
    }
    let word = head.headers.get(REFUSAL).map_or(&b""[..], |word| word.as_bytes());
    let refusal = Refusal::ALL.iter().find(|refusal| refusal.as_str().as_bytes() == word);
    Err(refusal.copied().unwrap_or(Refusal::Target))
}

/// The rules for HTTP/2. h2 checks the framing: it refuses connection-specific fields and a length that differs from
/// the content's (RFC 9113 §8.1.1, §8.2.2).
fn check_http2(head: &Parts, has_body: bool, limits: &HeadLimits) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    let target = head.uri.path_and_query().ok_or(Refusal::Target)?.as_str();
    if target.len() > limits.max_target {
        return Err(Refusal::TargetTooLong);
    }
    // `*` addresses a server as a whole. Without any `:path`, `path_and_query` is `/` and the URI's path is empty.
    if !target.starts_with('/') || head.uri.path().is_empty() || !head::is_path(target.as_bytes()) {
        return Err(Refusal::Target);
    }
    // RFC 9113 §8.3.1: if there are both `:authority` and `Host`, they must be equal.
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(header::HeaderValue::as_bytes);
    // `:authority` counts as a field, for HTTP/1 sends it as `Host`.
    if head.headers.len() + usize::from(host.is_none() && authority.is_some()) > limits.max_fields {
        return Err(Refusal::TooManyFields);
    }
    if hosts.next().is_some() {
        return Err(Refusal::HostRepeated);
    }
    let named = authority.or(host).ok_or(Refusal::HostMissing)?;
    if !head::is_host(named) {
        return Err(Refusal::HostInvalid);
    }
    if host.is_some_and(|host| !host.eq_ignore_ascii_case(named)) {
        return Err(Refusal::HostDiffers);
    }
    if has_body && (head.method == Method::GET || head.method == Method::HEAD) {
        return Err(Refusal::BodyUnexpected);
    }
    if head.headers.keys().any(|name| memchr::memchr(b'"', name.as_str().as_bytes()).is_some()) {
        return Err(Refusal::NameInvalid);
    }
    if head.headers.values().any(|value| is_padded(value.as_bytes())) {
        return Err(Refusal::ValuePadded);
    }
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let length = head::length(length.as_bytes()).ok_or(Refusal::LengthInvalid)?;
        if lengths.next().is_some() {
            return Err(Refusal::LengthRepeated);
        }
        if length > 0 && (head.method == Method::GET || head.method == Method::HEAD) {
            return Err(Refusal::BodyUnexpected);
        }
        if length > limits.max_body {
            return Err(Refusal::ContentTooLarge);
        }
    }
    if head.headers.get(header::EXPECT).is_some_and(|expect| !head::is_continue(expect.as_bytes())) {
        return Err(Refusal::Expectation);
    }
    Ok(())
}

/// Whether the value begins or ends with a blank.
fn is_padded(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.first()) || is_blank(value.last())
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_head: 1024, max_target: 64, max_fields: 4, max_body: 1000 };

    fn http2(method: &str, uri: &str, headers: &[(&str, &str)], has_body: bool) -> Result<(), Refusal> {
        let mut request = http::Request::builder().method(method).uri(uri).version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        check_http2(&head, has_body, &LIMITS)
    }

    #[test]
    fn http2_without_a_path_is_refused() {
        let request = http::Request::get(Uri::from_parts(Default::default()).unwrap());
        let (head, ()) = request.version(Version::HTTP_2).header("host", "gw").body(()).unwrap().into_parts();
        assert_eq!(check_http2(&head, false, &LIMITS), Err(Refusal::Target));
    }

    #[test]
    fn http2_with_a_name_that_is_no_token_is_refused() {
        let name = HeaderName::from_lowercase(b"x\"").unwrap();
        let request = http::Request::get("https://gw/a").version(Version::HTTP_2).header(name, "y");
        let (head, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(check_http2(&head, false, &LIMITS), Err(Refusal::NameInvalid));
    }

    #[test]
    fn http2_is_held_to_the_same_rules() {
        let ok = "https://gw.example:8443/a?b=c";
        assert_eq!(http2("GET", ok, &[], false), Ok(()));
        assert_eq!(http2("GET", ok, &[("host", "GW.example:8443")], false), Ok(()));
        assert_eq!(http2("POST", ok, &[("expect", "100-Continue")], true), Ok(()));
        assert_eq!(http2("GET", "/a", &[("host", "gw")], false), Ok(()));
        assert_eq!(http2("GET", ok, &[("a", "1"), ("b", "1"), ("c", "1")], false), Ok(()));
        let long = format!("https://gw/{}", "a".repeat(64));
        let five = [("host", "gw"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1")];
        for (method, uri, headers, has_body, refusal) in [
            ("GET", "/a", &[][..], false, Refusal::HostMissing),
            ("GET", ok, &[("host", "other")], false, Refusal::HostDiffers),
            ("GET", "/a", &[("host", "a"), ("host", "a")], false, Refusal::HostRepeated),
            ("GET", "/a", &[("host", "a b")], false, Refusal::HostInvalid),
            ("GET", "https://u@gw/a", &[], false, Refusal::HostInvalid),
            ("GET", ok, &[], true, Refusal::BodyUnexpected),
            ("HEAD", ok, &[], true, Refusal::BodyUnexpected),
            ("CONNECT", "gw:443", &[], false, Refusal::Connect),
            ("GET", &long, &[], false, Refusal::TargetTooLong),
            ("GET", "https://gw/%7C|", &[], false, Refusal::Target),
            ("OPTIONS", "*", &[("host", "gw")], false, Refusal::Target),
            ("GET", "/a", &five, false, Refusal::TooManyFields),
            ("GET", ok, &five[1..], false, Refusal::TooManyFields),
            ("POST", ok, &[("expect", "more")], true, Refusal::Expectation),
            ("POST", ok, &[("content-length", "047")], true, Refusal::LengthInvalid),
            ("POST", ok, &[("content-length", "+4")], true, Refusal::LengthInvalid),
            ("POST", ok, &[("content-length", "1001")], true, Refusal::ContentTooLarge),
            ("POST", ok, &[("x", " y")], true, Refusal::ValuePadded),
            ("POST", ok, &[("x", "y\t")], true, Refusal::ValuePadded),
        ] {
            assert_eq!(http2(method, uri, headers, has_body), Err(refusal), "{method} {uri} {headers:?}");
        }
    }

    #[test]
    fn a_placeholder_is_recognised_for_what_it_stands_for() {
        for refusal in Refusal::ALL {
            for is_head in [true, false] {
                let text = placeholder(*refusal, is_head, Some(b"https://page.example"));
                let mut fields = [httparse::EMPTY_HEADER; 4];
                let mut parsed = httparse::Request::new(&mut fields);
                assert!(parsed.parse(&text).unwrap().is_complete());
                let mut request =
                    http::Request::builder().method(parsed.method.unwrap()).uri(parsed.path.unwrap());
                for field in parsed.headers.iter() {
                    request = request.header(field.name, field.value);
                }
                let (head, ()) = request.body(()).unwrap().into_parts();
                assert_eq!(head.headers["origin"], "https://page.example");
                assert_eq!(check(&head, false, &LIMITS), Err(*refusal));
            }
        }
    }
}
