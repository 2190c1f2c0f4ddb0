//! HTTP/1.1 by hand: one request in, one answer out.
//!
//! A server library keeps its answers well-formed, and half of the faults are answers that are
//! not. Reading is strict (RFC 9112): whatever could be understood in two ways is refused.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::json::Json;

const HEAD_MAX_BYTES: usize = 64 * 1024;
const BODY_MAX_BYTES: usize = 1024 * 1024;

/// A request, whole.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    /// Names in lower case, values trimmed, in the order received.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    /// Whether its connection had carried another one before.
    pub(super) reused: bool,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(received, _)| received == name).map(|(_, value)| value.as_str())
    }
}

/// An answer, before a fault touches it.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
}

impl Response {
    pub(super) fn new(status: u16, content_type: &str, body: Bytes) -> Response {
        Response { status, headers: vec![("content-type", content_type.to_owned())], body }
    }

    pub(super) fn json(status: u16, body: &Json) -> Response {
        Response::new(status, "application/json; charset=utf-8", body.to_bytes())
    }

    pub(super) fn with_header(mut self, name: &'static str, value: String) -> Response {
        self.headers.push((name, value));
        self
    }

    /// The status line and headers, without framing and without the empty line.
    ///
    /// The headers of a proxied Express application ride along: they are the upstream's affair,
    /// and a gateway that passes them on shows it.
    pub(super) fn head(&self) -> String {
        let reason = http::StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Unknown");
        let mut head = format!(
            "HTTP/1.1 {} {reason}\r\n\
             server: nginx\r\n\
             x-powered-by: Express\r\n\
             access-control-allow-origin: *\r\n\
             set-cookie: upstream-affinity=0a1b2c; Path=/; HttpOnly\r\n",
            self.status
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head
    }
}

/// Why no request could be read.
pub(super) enum Unread {
    /// The peer closed, between requests or within one.
    Closed,
    /// The bytes are no request the stand-in would guess at.
    Malformed(String),
}

impl From<io::Error> for Unread {
    fn from(_: io::Error) -> Unread {
        Unread::Closed
    }
}

fn malformed(why: &str) -> Unread {
    Unread::Malformed(why.to_owned())
}

/// A connection and what was read ahead of the request under way.
pub(super) struct Connection {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Connection {
        Connection { stream, ahead: Vec::new() }
    }

    /// The next request of the connection.
    pub(super) async fn read(&mut self) -> Result<Request, Unread> {
        let end = self.find(b"\r\n\r\n", HEAD_MAX_BYTES).await?;
        let head: Vec<u8> = self.ahead.drain(..end + 4).collect();
        let head = std::str::from_utf8(&head[..end]).map_err(|_| malformed("head is not UTF-8"))?;
        let mut request = parse_head(head)?;
        request.body = self.read_body(framing(&request)?).await?;
        Ok(request)
    }

    async fn read_body(&mut self, framing: Framing) -> Result<Bytes, Unread> {
        match framing {
            Framing::Length(length) => self.take(length).await.map(Bytes::from),
            Framing::Chunked => {
                let mut body = Vec::new();
                loop {
                    let end = self.find(b"\r\n", 64).await?;
                    let line: Vec<u8> = self.ahead.drain(..end + 2).collect();
                    let size = std::str::from_utf8(&line[..end])
                        .ok()
                        .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
                        .and_then(|text| usize::from_str_radix(text, 16).ok())
                        .filter(|&size| size <= BODY_MAX_BYTES - body.len())
                        .ok_or_else(|| malformed("chunk size"))?;
                    let chunk = self.take(size).await?;
                    body.extend_from_slice(&chunk);
                    if self.take(2).await? != b"\r\n" {
                        return Err(malformed("chunk end"));
                    }
                    if size == 0 {
                        return Ok(body.into());
                    }
                }
            }
        }
    }

    /// Where `pattern` begins, reading on as needed.
    async fn find(&mut self, pattern: &[u8], max: usize) -> Result<usize, Unread> {
        loop {
            let found = self.ahead.windows(pattern.len()).position(|w| w == pattern);
            match found {
                Some(at) => return Ok(at),
                None if self.ahead.len() > max => return Err(malformed("too long")),
                None => self.read_more().await?,
            }
        }
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, Unread> {
        while self.ahead.len() < length {
            self.read_more().await?;
        }
        Ok(self.ahead.drain(..length).collect())
    }

    async fn read_more(&mut self) -> Result<(), Unread> {
        match self.stream.read_buf(&mut self.ahead).await? {
            0 => Err(Unread::Closed),
            _ => Ok(()),
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Closes in good order: what was written arrives, then the end.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Closes with RST instead of FIN, as a crashed peer or an impatient middlebox does.
    pub(super) fn reset(self) -> io::Result<()> {
        self.stream.set_zero_linger()
    }

    /// Until there is something to read, which stays unread.
    pub(super) async fn wait_for_peer_to_speak(&self) {
        if self.ahead.is_empty() {
            let _ = self.stream.readable().await;
        }
    }

    /// Says nothing more until the peer has had enough.
    pub(super) async fn wait_for_peer_to_leave(&mut self) {
        let mut ignored = [0; 1024];
        while matches!(self.stream.read(&mut ignored).await, Ok(1..)) {}
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

fn framing(request: &Request) -> Result<Framing, Unread> {
    let lengths: Vec<&str> = request.values("content-length").collect();
    let codings: Vec<&str> = request.values("transfer-encoding").collect();
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(Framing::Length(0)),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => length
            .parse()
            .ok()
            .filter(|&length| length <= BODY_MAX_BYTES)
            .map(Framing::Length)
            .ok_or_else(|| malformed("content-length")),
        _ => Err(malformed("framing of the body is ambiguous")),
    }
}

fn parse_head(head: &str) -> Result<Request, Unread> {
    let mut lines = head.split("\r\n");
    let line: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1"] = line[..] else {
        return Err(malformed("request line"));
    };
    if !is_token(method) || !target.starts_with('/') || !target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(malformed("request line"));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = lines.map(parse_header).collect::<Result<Vec<_>, _>>()?;
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Bytes::new(),
        reused: false,
    };
    if request.values("host").count() != 1 {
        return Err(malformed("not exactly one host"));
    }
    Ok(request)
}

fn parse_header(line: &str) -> Result<(String, String), Unread> {
    match line.split_once(':') {
        Some((name, value)) if is_token(name) && !value.contains(['\r', '\n', '\0']) => {
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        }
        _ => Err(malformed("header line")),
    }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let mut bytes = text.bytes();
    !text.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
