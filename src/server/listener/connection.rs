//! One connection, from its first byte to its last.

use std::error::Error as StdError;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, Service};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};

use super::counted::Counted;
use super::http::Http;
use super::inline_executor::{InlineExecutor, SpawnHandle};
use super::stats::{ConnectionStats, DrainObserver, DrainState};
use super::stream::Stream;
use super::write_coalescer::WriteCoalescer;
use crate::server::guard::io::Guarded;

/// What a service may fail with: anything.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Serves a connection until it ends or is told to. The error is its peer's affair.
pub async fn serve<S, B>(
    mut stream: Stream,
    http: &Http,
    service: S,
    stats: Arc<ConnectionStats>,
) -> Result<(), BoxError>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let Some(begins_http2) = until_finishing(&stats, stream.begins_http2()).await else { return Ok(()) };
    let service = Counted { service, stats: stats.clone() };
    if begins_http2? {
        serve_http2(stream, http, service, &stats).await
    } else {
        // hyper would close a connection that is idle under a request that is on its way. So the last
        // answer says that it is the last one, and only who is silent is closed.
        let io = TokioIo::new(Guarded::new(stream, http.head));
        drive(http.http1.serve_connection(io, service), &stats, DrainState::Finishing).await
    }
}

/// The same for HTTP/2, from its preface on.
pub async fn serve_http2<IO, S, B>(
    io: IO,
    http: &Http,
    service: Counted<S>,
    stats: &Arc<ConnectionStats>,
) -> Result<(), BoxError>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    stats.set_http2();
    let executor = InlineExecutor::default();
    let io = WriteCoalescer::new(io, stats.clone());
    let connection = http.http2(executor.handle()).serve_connection(TokioIo::new(io.clone()), service);
    // It says goodbye in its own way: what is under way and what is on its way still gets through.
    drive(Http2Connection { connection, executor, io }, stats, DrainState::LastResponse).await
}

/// Whether a connection broke because its peer took nothing for so long that the kernel gave up.
pub fn timed_out(error: &BoxError) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error.as_ref());
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Does something before there is HTTP; `None` if the connection is told to end meanwhile.
pub async fn until_finishing<T>(stats: &ConnectionStats, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut observer = DrainObserver::default();
    poll_fn(|context| {
        if observer.state(stats, context) >= DrainState::Finishing {
            return Poll::Ready(None);
        }
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// Runs a connection; from the order `last` on it takes no new requests.
async fn drive(
    connection: impl Connection,
    stats: &ConnectionStats,
    last: DrainState,
) -> Result<(), BoxError> {
    let mut connection = pin!(connection);
    let mut observer = DrainObserver::default();
    let mut is_ending = false;
    poll_fn(|context| {
        match observer.state(stats, context) {
            DrainState::Closing | DrainState::Resetting => return Poll::Ready(Ok(())),
            state if state >= last && !is_ending => {
                is_ending = true;
                connection.as_mut().finish();
            }
            _ => {}
        }
        connection.as_mut().run(context)
    })
    .await
}

/// A connection of either version.
trait Connection {
    fn run(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
    /// Lets requests under way end, and no others begin.
    fn finish(self: Pin<&mut Self>);
}

impl<I, B, S> Connection for http1::Connection<I, S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    I: Read + Write + Unpin + 'static,
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    fn run(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Future::poll(self, context).map_err(Into::into)
    }

    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

pin_project! {
    /// A connection of HTTP/2 with its streams.
    struct Http2Connection<IO, S>
    where
        S: HttpService<Incoming>,
    {
        #[pin]
        connection: http2::Connection<TokioIo<WriteCoalescer<IO>>, S, SpawnHandle>,
        executor: InlineExecutor,
        io: WriteCoalescer<IO>,
    }
}

impl<IO, B, S> Connection for Http2Connection<IO, S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn run(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let this = self.project();
        // What was under way first: its answers are in hyper's hands when the connection is polled, and
        // leave in this turn. Those that the connection then begins are run at once, for most are hits; hyper
        // is woken by their answers, so they too leave without the peer's doing. Writing comes last, once
        // for all of it.
        this.executor.run(context);
        let ended = this.connection.poll(context)?;
        if ended.is_pending() {
            this.executor.run(context);
        }
        if let Poll::Ready(sent) = this.io.poll_send(context) {
            sent?;
        }
        ended.map(Ok)
    }

    fn finish(self: Pin<&mut Self>) {
        self.project().connection.graceful_shutdown();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures_util::future::join_all;
    use http_body_util::{BodyExt, Empty, Full};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioExecutor;
    use tokio_util::io::InspectWriter;

    use super::*;
    use crate::server::guard;

    #[tokio::test]
    async fn answers_that_are_ready_together_go_out_in_one_write() {
        const TOGETHER: usize = 16;
        static WRITES: AtomicUsize = AtomicUsize::new(0);
        let (near, far) = tokio::io::duplex(1024 * 1024);
        let counted = InspectWriter::new(near, |_: &[u8]| {
            WRITES.fetch_add(1, Ordering::SeqCst);
        });
        let (io, executor, stats) = (
            WriteCoalescer::new(counted, Arc::default()),
            InlineExecutor::default(),
            ConnectionStats::default(),
        );
        let service = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&[b'x'; 1000]))))
        });
        let head = guard::HeadLimits {
            max_head: 16 * 1024,
            max_target: 8 * 1024,
            max_fields: 100,
            max_body: 64 * 1024,
        };
        let connection =
            Http::new(100, head).http2(executor.handle()).serve_connection(TokioIo::new(io.clone()), service);
        tokio::spawn(async move {
            drive(Http2Connection { connection, executor, io }, &stats, DrainState::LastResponse).await
        });
        let (mut sender, client) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(far))
                .await
                .expect("a connection");
        tokio::spawn(client);

        let mut ask = || {
            let answer = sender.send_request(Request::new(Empty::<Bytes>::new()));
            async { answer.await.expect("an answer").collect().await.expect("a body").to_bytes().len() }
        };
        // Once the two have agreed on their settings.
        assert_eq!(ask().await, 1000);
        let before = WRITES.load(Ordering::SeqCst);
        let together: Vec<_> = (0..TOGETHER).map(|_| ask()).collect();
        assert_eq!(join_all(together).await, [1000; TOGETHER]);
        assert_eq!(WRITES.load(Ordering::SeqCst) - before, 1);
    }
}
