//! A caller in any version of HTTP that the gateway speaks, for tests that hold all of them to the same.

use std::error::Error;
use std::fmt::Display;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::tls_listener::{Authority, connected};
use crate::world::{Got, MINUTE, REPORTING, World};

/// How a caller speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// Over as many connections as it takes.
    Http1,
    /// All over one connection, in the clear.
    Http2,
    /// The same over TLS, agreed on by ALPN.
    Http2OverTls,
}

/// The client `reporting`.
#[derive(Clone)]
pub struct Caller {
    base: String,
    speaks: Speaks,
}

#[derive(Clone)]
enum Speaks {
    Http1(reqwest::Client),
    Http2(SendRequest<Full<Bytes>>),
}

/// An answer of which the head has come.
pub type Begun = Response<UnsyncBoxBody<Bytes, String>>;

impl Caller {
    /// One of `world`, which has TLS by `authority` where that is what is spoken.
    pub async fn of(world: &World, version: Version, authority: &Authority) -> Self {
        let base = format!("http://{}", world.address);
        match version {
            Version::Http1 => Self { base, speaks: Speaks::Http1(world.http.clone()) },
            Version::Http2 => {
                let stream = TcpStream::connect(world.address).await.unwrap();
                let (sender, _) = http2(stream).await.unwrap();
                Self { base, speaks: Speaks::Http2(sender) }
            }
            Version::Http2OverTls => {
                let stream = connected(world, authority, &["h2", "http/1.1"], None).await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                let (sender, _) = http2(stream).await.unwrap();
                Self { base: format!("https://{}", world.address), speaks: Speaks::Http2(sender) }
            }
        }
    }

    /// Asks, and waits for the head of the answer.
    pub async fn ask(&self, method: Method, path: &str, body: &str) -> Begun {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("x-api-key", REPORTING)
            .header("content-type", "application/json")
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap();
        match &self.speaks {
            Speaks::Http1(http) => begun(http.execute(request.try_into().unwrap()).await.unwrap().into()),
            Speaks::Http2(sender) => {
                begun(sender.clone().send_request(request.map(Full::new)).await.unwrap())
            }
        }
    }

    /// All of an answer, which comes within a minute.
    pub async fn get(&self, path: &str) -> Got {
        let asked = async { to_its_end(self.ask(Method::GET, path, "").await).await };
        let (got, is_whole) = tokio::time::timeout(MINUTE, asked).await.expect("an answer");
        assert!(is_whole, "{got:?}");
        got
    }
}

/// A caller that knows HTTP/2 is spoken here, for requests with bodies of `B`. The task ends with the connection.
pub async fn http2<B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> hyper::Result<(SendRequest<B>, JoinHandle<hyper::Result<()>>)>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    Ok((sender, tokio::spawn(connection)))
}

pub fn begun<B>(answer: Response<B>) -> Begun
where
    B: Body<Data = Bytes, Error: Display> + Send + 'static,
{
    answer.map(|body| body.map_err(|error| error.to_string()).boxed_unsync())
}

/// What came, and whether it ended well. Of an endless body nothing is kept.
pub async fn to_its_end(answer: Begun) -> (Got, bool) {
    const KEPT: usize = 1024 * 1024;
    let (head, mut rest) = answer.into_parts();
    let mut body = Vec::new();
    let is_whole = loop {
        match rest.frame().await {
            None => break true,
            Some(Err(_)) => break false,
            Some(Ok(frame)) => {
                let part = frame.into_data().unwrap_or_default();
                if body.len() < KEPT {
                    body.extend_from_slice(&part);
                }
            }
        }
    };
    (Got { status: head.status, headers: head.headers, body: body.into() }, is_whole)
}
