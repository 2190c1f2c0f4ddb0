//! Counts the requests in flight of one connection, from the head until hyper has the last part of the response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use pin_project_lite::pin_project;

use super::stats::{ConnectionStats, DrainState};

/// A service that counts its requests in a [`ConnectionStats`].
pub struct Counted<S> {
    pub service: S,
    pub stats: Arc<ConnectionStats>,
}

impl<S, B> Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    B: Body,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = Counting<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = InFlight::begin(&self.stats);
        let version = request.version();
        Counting { future: self.service.call(request), in_flight: Some(in_flight), version }
    }
}

/// A request in flight: its response is not complete.
struct InFlight {
    stats: Arc<ConnectionStats>,
    /// The response body has data which is not polled.
    is_stalled: bool,
}

impl InFlight {
    fn begin(stats: &Arc<ConnectionStats>) -> Self {
        stats.request_started();
        Self { stats: stats.clone(), is_stalled: false }
    }

    fn set_stalled(&mut self, is_stalled: bool) {
        if self.is_stalled != is_stalled {
            self.is_stalled = is_stalled;
            self.stats.set_body_stalled(is_stalled);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.set_stalled(false);
        self.stats.request_ended();
    }
}

pin_project! {
    /// The future of one request.
    pub struct Counting<F> {
        #[pin]
        future: F,
        in_flight: Option<InFlight>,
        version: Version,
    }
}

impl<F, B, E> Future for Counting<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(context))?;
        let in_flight = this.in_flight.take();
        // HTTP/2 has GOAWAY for this.
        if *this.version <= Version::HTTP_11
            && in_flight
                .as_ref()
                .is_some_and(|request| request.stats.drain_state() >= DrainState::LastResponse)
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| CountedBody::new(body, in_flight))))
    }
}

pin_project! {
    /// The body of a response. If it has data and is not polled, the peer is slow. If it is polled and has no data, the
    /// peer is not to blame.
    pub struct CountedBody<B> {
        #[pin]
        body: B,
        in_flight: Option<InFlight>,
    }
}

impl<B: Body> CountedBody<B> {
    fn new(body: B, mut in_flight: Option<InFlight>) -> Self {
        if let Some(request) = &mut in_flight {
            request.set_stalled(!body.is_end_stream());
        }
        Self { body, in_flight }
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let polled = this.body.poll_frame(context);
        if let Some(request) = this.in_flight {
            request.set_stalled(matches!(polled, Poll::Ready(Some(_))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
