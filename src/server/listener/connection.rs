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

/// Any error that a service may fail with.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Serves a connection until it ends or its drain state ends it. An error is the peer's doing, and nothing to log.
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
        // hyper's graceful shutdown closes an idle connection at once, even if a request is on its way. So the last
        // response says `Connection: close`, and only a connection that stays idle is shut down.
        let io = TokioIo::new(Guarded::new(stream, http.head));
        drive(http.http1.serve_connection(io, service), &stats, DrainState::Finishing).await
    }
}

/// Serves HTTP/2, from its preface on.
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
    // GOAWAY lets requests through that are in flight or on their way. So HTTP/2 shuts down one state earlier.
    drive(Http2Connection { connection, executor, io }, stats, DrainState::LastResponse).await
}

/// Whether a connection broke by the kernel's own timeout, because its peer received nothing for too long.
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

/// Runs `work`, which comes before HTTP. `None` if the connection has to finish before `work` is done.
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

/// Runs a connection. From the drain state `last` on, it accepts no new requests.
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

/// A connection of either HTTP version.
trait Connection {
    fn run(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
    /// Lets requests in flight end, and accepts no new ones.
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
    /// An HTTP/2 connection with its requests.
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
        // Requests in flight run first, so that the connection sends their responses in this turn. Requests that the
        // connection then starts run at once, for most of them are hits. Their responses wake hyper, so they too leave
        // without any action of the peer. The write comes last, once for all of them.
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
        // The first response comes after both sides have exchanged their settings.
        assert_eq!(ask().await, 1000);
        let before = WRITES.load(Ordering::SeqCst);
        let together: Vec<_> = (0..TOGETHER).map(|_| ask()).collect();
        assert_eq!(join_all(together).await, [1000; TOGETHER]);
        assert_eq!(WRITES.load(Ordering::SeqCst) - before, 1);
    }
}
