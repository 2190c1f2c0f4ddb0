//! What can go wrong between two parties, and how it looks on the wire.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::bomb;
use super::gate::Gate;
use super::json::{Json, object};
use super::refusal::{Refusal, envelope};
use super::wire::{Connection, Response};

/// A way for a call to go wrong. The call is judged, journalled and counted as ever; only what
/// comes back differs.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The answer, this much later (real time).
    Latency(Duration),
    /// The answer, once the gate is open.
    Held(Gate),
    /// This status with an error body.
    Status(u16),
    /// This status with an error body and `Retry-After` in seconds.
    StatusWithRetryAfter(u16, u64),
    /// 401 "Invalid SDK credentials", whatever the token.
    Unauthorized401,
    /// RST instead of any byte.
    Reset,
    /// The head, half of the body, then RST.
    ResetInBody,
    /// Nothing at all, until the caller leaves.
    HangBeforeHead,
    /// The head and half of the body, then nothing until the caller leaves.
    HangInBody,
    /// Half of the JSON in a body that is whole as far as HTTP can tell.
    TruncatedJson,
    /// Half of the announced `Content-Length`, then the end of the connection.
    CutBody,
    /// Half of the body, without a length, ended by closing: looks whole.
    CloseDelimitedCut,
    /// 200 with a JSON content type and no body.
    Empty200,
    /// 200 with an HTML page, as a proxy's or a login's.
    Html200,
    /// 200 with an error body.
    ErrorEnvelope200,
    /// The answer in chunks, without a length.
    Chunked,
    /// The answer in gzip.
    Gzipped,
    /// The answer without a length, ended by closing.
    CloseDelimited,
    /// 200 with JSON of no known shape: what payload encryption may look like (contract §2).
    Opaque200,
    /// 200 with a well-formed answer to somebody else's question.
    OtherConversation200,
    /// 307 to this address.
    Redirect(String),
    /// The answer under both `Content-Length` and `Transfer-Encoding: chunked`, over a connection
    /// that goes on.
    LengthAndChunked,
    /// The same in gzip.
    LengthAndChunkedGzipped,
    /// The same, the chunks of which say that there is no body.
    LengthAndChunkedEmpty,
    /// 200 with a chunked body that goes on until the caller leaves.
    EndlessBody,
    /// The answer in chunks of one byte each.
    OneByteChunks,
    /// These bytes, whatever they are, and the end of the connection.
    Raw(Bytes),
    /// This status with an error body that quotes the caller's token.
    EchoedToken(u16),
    /// 200 with a body of so many bytes whose type quotes the signature of the caller's token.
    TokenInType(usize),
    /// 200 with a megabyte of gzip that becomes a gigabyte of blanks.
    GzipBomb,
}

/// Which calls go wrong. A rule for a path comes first, then the next calls, then all.
#[derive(Default)]
pub(super) struct Faults {
    by_path: Vec<(String, Fault)>,
    next: Option<(usize, Fault)>,
    every: Option<Fault>,
}

impl Faults {
    pub(super) fn every(&mut self, fault: Option<Fault>) {
        self.every = fault;
    }

    pub(super) fn next(&mut self, n: usize, fault: Fault) {
        self.next = Some((n, fault));
    }

    pub(super) fn by_path(&mut self, path_contains: &str, fault: Fault) {
        self.by_path.push((path_contains.to_ascii_lowercase(), fault));
    }

    pub(super) fn clear(&mut self) {
        *self = Faults::default();
    }

    /// The fault for a call to this path, used up if it was for a number of calls.
    pub(super) fn take(&mut self, path: &str) -> Option<Fault> {
        let path = path.to_ascii_lowercase();
        let rule = self.by_path.iter().find(|(part, _)| path.contains(part));
        if let Some((_, fault)) = rule {
            return Some(fault.clone());
        }
        if let Some((left @ 1.., fault)) = &mut self.next {
            *left -= 1;
            return Some(fault.clone());
        }
        self.every.clone()
    }
}

impl Fault {
    /// The answer that takes the place of the right one, where the fault is a matter of content.
    pub(super) fn instead_of(&self, right: Response, other: impl FnOnce() -> Json) -> Response {
        match self {
            Fault::Status(status) => failure(*status),
            Fault::StatusWithRetryAfter(status, seconds) => {
                failure(*status).with_header("retry-after", seconds.to_string())
            }
            Fault::Unauthorized401 => Refusal::Credentials("by fault").into_response(),
            Fault::TruncatedJson => Response { body: half(&right.body), ..right },
            Fault::Empty200 => Response { body: Bytes::new(), ..Response::json(200, &Json::Null) },
            Fault::Html200 => Response::new(200, "text/html; charset=utf-8", HTML.into()),
            Fault::ErrorEnvelope200 => Response::json(200, &envelope("Something went wrong", 500)),
            Fault::Opaque200 => Response::json(200, &object([("payload", OPAQUE.into())])),
            Fault::OtherConversation200 => Response::json(200, &other()),
            Fault::Redirect(to) => {
                Response::new(307, "text/plain", Bytes::new()).with_header("location", to.clone())
            }
            Fault::EndlessBody | Fault::GzipBomb => Response { status: 200, ..right },
            _ => right,
        }
    }

    /// An error body with this token in it.
    pub(super) fn quoting(status: u16, token: &str) -> Response {
        Response::json(status, &envelope(&format!("cannot verify {token}"), i64::from(status)))
    }

    /// A body of so many bytes, with the signature of this token in its type.
    pub(super) fn typed_by(token: &str, length: usize) -> Response {
        let content_type = format!("application/json; a={}", token.rsplit('.').next().unwrap_or_default());
        Response::new(200, &content_type, Bytes::from(vec![b'x'; length]))
    }

    /// The status line that this fault lets out, if any.
    pub(super) fn lets_status_out(&self) -> bool {
        !matches!(self, Fault::Reset | Fault::HangBeforeHead)
    }
}

const HTML: &str = "<!doctype html><html><head><title>Sign in</title></head><body></body></html>";
const OPAQUE: &str = "yF0aQmWv5m1xk1c0nN9s3sYtQ8m6S3Jt0V2l0x1c8Rk=.9v4Jm0oGZc2w5u8b";

fn failure(status: u16) -> Response {
    Response::json(status, &envelope("Something went wrong", i64::from(status)))
}

fn half(body: &Bytes) -> Bytes {
    body.slice(..body.len() / 2)
}

/// Puts an answer on the wire, the way `fault` wants it. `Some` if the connection can go on.
pub(super) async fn deliver(
    mut connection: Connection,
    response: &Response,
    fault: Option<&Fault>,
    close: bool,
) -> io::Result<Option<Connection>> {
    let head = response.head();
    let body = &response.body;
    let length = format!("content-length: {}\r\n", body.len());
    match fault {
        Some(Fault::Reset) => connection.reset()?,
        Some(Fault::HangBeforeHead) => connection.wait_for_peer_to_leave().await,
        Some(Fault::ResetInBody) => {
            send(&mut connection, &head, &length, &half(body)).await?;
            connection.reset()?;
        }
        Some(Fault::HangInBody) => {
            send(&mut connection, &head, &length, &half(body)).await?;
            connection.wait_for_peer_to_leave().await;
        }
        Some(Fault::CutBody) => {
            send(&mut connection, &head, &length, &half(body)).await?;
            connection.close().await?;
        }
        Some(Fault::CloseDelimitedCut) => {
            send(&mut connection, &head, "connection: close\r\n", &half(body)).await?;
            connection.close().await?;
        }
        Some(Fault::Chunked) => {
            let chunks: Vec<u8> = body.chunks(16 * 1024).chain([&b""[..]]).flat_map(chunk).collect();
            send(&mut connection, &head, "transfer-encoding: chunked\r\n", &chunks).await?;
            return Ok(Some(connection));
        }
        Some(Fault::OneByteChunks) => {
            let chunks: Vec<u8> = body.chunks(1).chain([&b""[..]]).flat_map(chunk).collect();
            send(&mut connection, &head, "transfer-encoding: chunked\r\n", &chunks).await?;
            return Ok(Some(connection));
        }
        Some(Fault::Raw(bytes)) => {
            connection.write(bytes).await?;
            connection.close().await?;
        }
        Some(Fault::Gzipped) => {
            let coded = gzipped(body)?;
            let framing = format!("content-encoding: gzip\r\ncontent-length: {}\r\n", coded.len());
            send(&mut connection, &head, &framing, &coded).await?;
            return Ok(Some(connection));
        }
        Some(Fault::CloseDelimited) => {
            send(&mut connection, &head, "connection: close\r\n", body).await?;
            connection.close().await?;
        }
        Some(Fault::LengthAndChunked) => {
            return two_lengths(connection, &head, &length, body, close).await;
        }
        Some(Fault::LengthAndChunkedGzipped) => {
            let coded = gzipped(body)?;
            let framing = format!("content-encoding: gzip\r\ncontent-length: {}\r\n", coded.len());
            return two_lengths(connection, &head, &framing, &coded, close).await;
        }
        Some(Fault::LengthAndChunkedEmpty) => {
            return two_lengths(connection, &head, &length, b"", close).await;
        }
        Some(Fault::EndlessBody) => {
            let framing = "transfer-encoding: chunked\r\n";
            send(&mut connection, &head, framing, &chunk(b"{\"data\":[")).await?;
            let blanks = chunk(&[b' '; 16 * 1024]);
            loop {
                connection.write(&blanks).await?;
            }
        }
        Some(Fault::GzipBomb) => {
            let framing = format!(
                "content-encoding: gzip\r\ncontent-length: {}\r\nconnection: close\r\n",
                bomb::LENGTH
            );
            send(&mut connection, &head, &framing, &[]).await?;
            for part in bomb::parts() {
                connection.write(part).await?;
            }
            connection.close().await?;
        }
        _ if close => {
            let framing = format!("{length}connection: close\r\n");
            send(&mut connection, &head, &framing, body).await?;
            connection.close().await?;
        }
        _ => {
            send(&mut connection, &head, &length, body).await?;
            return Ok(Some(connection));
        }
    }
    Ok(None)
}

async fn send(connection: &mut Connection, head: &str, framing: &str, body: &[u8]) -> io::Result<()> {
    let bytes = [head.as_bytes(), framing.as_bytes(), b"\r\n", body].concat();
    connection.write(&bytes).await
}

/// A body in chunks, under a head that gives a length beside them.
async fn two_lengths(
    mut connection: Connection,
    head: &str,
    length: &str,
    body: &[u8],
    close: bool,
) -> io::Result<Option<Connection>> {
    let framing = format!("{length}transfer-encoding: chunked\r\n");
    let chunks = if body.is_empty() { chunk(b"") } else { [chunk(body), chunk(b"")].concat() };
    send(&mut connection, head, &framing, &chunks).await?;
    if close {
        connection.close().await?;
        return Ok(None);
    }
    Ok(Some(connection))
}

fn gzipped(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut coded = GzEncoder::new(Vec::new(), Compression::fast());
    coded.write_all(body)?;
    coded.finish()
}

fn chunk(data: &[u8]) -> Vec<u8> {
    let size = format!("{:x}\r\n", data.len());
    [size.as_bytes(), data, b"\r\n"].concat()
}
