//! The guard: which requests get as far as the router.
//!
//! A request that two programs could read in two ways is a way past one of them. So its head is
//! held to one reading, before hyper has it: hyper drops a `Content-Length` beside a
//! `Transfer-Encoding`, joins equal ones, cuts off fragments, and no layer above can tell. What is
//! refused gets its status, a request id and its line in the log like any other request, and its
//! connection is closed.
//!
//! - [`head`]: one head of HTTP/1, as it was sent, and what is wrong with it. Pure.
//! - [`framing`]: where heads and bodies begin and end in a connection's bytes. Pure.
//! - [`io`]: holds back what has not been judged yet, and puts a word in place of what is refused.
//! - here: what is refused and why; and the same rules for HTTP/2, whose framing is h2's affair.

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

/// How much a request may be. Each is a key of `[server]` in config/gateway.toml.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadLimits {
    /// Bytes of the request line and all fields.
    pub max_head: usize,
    /// Bytes of path and query.
    pub max_target: usize,
    /// At most [`head::MOST_FIELDS`].
    pub max_fields: usize,
    /// Bytes that a request may announce as its body.
    pub max_body: u64,
}

pub use HeadLimits as Limits;

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
        /// Why a request is refused before anybody asks whose it is.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Refusal { $($(#[doc = $doc])* $name,)* }

        impl Refusal {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word for it in the log.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What HTTP has for it.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }

            /// The field it is about.
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
    /// RFC 9112 §2.2 lets a reader take it for a line's end; others do not.
    BareLineFeed: InvalidRequest, "bare-line-feed", None,
        "a line of the head ends without a carriage return";
    Version: VersionNotSupported, "version", None,
        "the protocol's version is another than HTTP/1.1, HTTP/1.0 and HTTP/2";
    /// A fragment, `*`, an authority, or bytes that no URI has.
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
    /// RFC 9112 §3.2.2 lets the target win; whoever looks at the field is then mistaken.
    HostDiffers: InvalidRequest, "host-differs", Some("host"),
        "the target names another host than `Host`";
    LengthWithEncoding: InvalidRequest, "length-with-encoding", Some("content-length"),
        "`Content-Length` and `Transfer-Encoding` together (RFC 9112 §6.1)";
    LengthRepeated: InvalidRequest, "length-repeated", Some("content-length"),
        "there is more than one `Content-Length`";
    /// Signs, leading zeros, lists.
    LengthInvalid: InvalidRequest, "length-invalid", Some("content-length"),
        "`Content-Length` is something else than digits without leading zeros";
    EncodingInvalid: InvalidRequest, "encoding-invalid", Some("transfer-encoding"),
        "`Transfer-Encoding` is something else than one `chunked`";
    /// Ends in `chunked`, so that the framing is clear (RFC 9112 §6.1).
    EncodingUnknown: NotImplemented, "encoding-unknown", Some("transfer-encoding"),
        "a transfer coding beside `chunked`";
    BodyUnexpected: InvalidRequest, "body-unexpected", None,
        "a GET or HEAD with a body";
    Expectation: ExpectationFailed, "expectation", Some("expect"),
        "`Expect` is something else than `100-continue`";
    /// Told from the head, before any of it is read or asked for with a 100.
    ContentTooLarge: ContentTooLarge, "content-too-large", Some("content-length"),
        "the body is larger than `server.max_request_body`";
    /// HTTP/1 allows blanks around a value and nobody counts them to it; RFC 9113 §8.2.1 forbids them.
    ValuePadded: InvalidRequest, "value-padded", None,
        "the value of a field begins or ends with a blank (RFC 9113 §8.2.1)";
    /// The crate `http` lets a quotation mark be in a name.
    NameInvalid: InvalidRequest, "name-invalid", None,
        "the name of a field is no token (RFC 9110 §5.6.2)";
    Connect: NotImplemented, "connect", None,
        "this is no tunnel";
}

impl Refusal {
    /// Whether a request is none at all in its version: its stream ends in an error (RFC 9113 §8.1.1).
    /// Only where HTTP/2 asks for it by name; in all else an answer says more.
    fn is_malformed(self, version: Version) -> bool {
        // §8.3.1: `Host` and `:authority` are one thing.
        version == Version::HTTP_2 && self == Self::HostDiffers
    }

    /// What becomes of a request that is refused for it.
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

/// The field of the head that stands in place of a refused one. Its target is `*`, which the guard
/// lets nobody send; and who managed it would only be refused.
const REFUSAL: HeaderName = HeaderName::from_static("refusal");

/// What hyper is given in place of a refused head.
fn placeholder(refusal: Refusal, is_head: bool, origin: Option<&[u8]>) -> Vec<u8> {
    // Who sent HEAD takes no body. The others are `_OTHER`, as in the metrics: who knows what it was.
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

/// Whether a request of HTTP/2 may yet turn out to have no content, which a GET must not have: its end did not come
/// with its head.
pub fn is_open(head_method: &Method, version: Version, body: &impl Body) -> bool {
    version == Version::HTTP_2
        && (head_method == Method::GET || head_method == Method::HEAD)
        && !body.is_end_stream()
}

/// Waits for the end of what [`is_open`]: whether there is any octet before it. One that does not end in time counts as
/// content.
pub async fn has_content<B: Body + Unpin>(body: &mut B, within: Duration) -> bool {
    let reading = async {
        while let Some(frame) = body.frame().await {
            // A stream that breaks off is answered by nobody.
            let Ok(frame) = frame else { return true };
            if frame.data_ref().is_some_and(Buf::has_remaining) {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(within, reading).await.unwrap_or(true)
}

/// Whether the request is to be refused. Of HTTP/1 it was judged by its bytes already and only has to be
/// recognised; of HTTP/2 it is judged here.
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

/// The rules where h2 has seen to the framing: it refuses fields of the connection and a length that is
/// not the content's (RFC 9113 §8.1.1, §8.2.2).
fn check_http2(head: &Parts, has_body: bool, limits: &HeadLimits) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    let target = head.uri.path_and_query().ok_or(Refusal::Target)?.as_str();
    if target.len() > limits.max_target {
        return Err(Refusal::TargetTooLong);
    }
    // `*` is for servers as a whole; where there is no `:path` at all, this is `/` and the URI's own is empty.
    if !target.starts_with('/') || head.uri.path().is_empty() || !head::is_path(target.as_bytes()) {
        return Err(Refusal::Target);
    }
    // RFC 9113 §8.3.1: `:authority`, and a `Host` says the same or is not there.
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(header::HeaderValue::as_bytes);
    // `:authority` is a field where HTTP/1 is spoken.
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

/// Whether a blank is at either end.
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
