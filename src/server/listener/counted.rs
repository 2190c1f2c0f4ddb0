//! Counts the requests of one connection from their heads until the last of their answers is handed on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use pin_project_lite::pin_project;

use super::pulse::{Order, Pulse};

/// A service whose requests are seen in a [`Pulse`].
pub struct Counted<S> {
    pub service: S,
    pub pulse: Arc<Pulse>,
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
        let under_way = UnderWay::begin(&self.pulse);
        let version = request.version();
        Counting { future: self.service.call(request), under_way: Some(under_way), version }
    }
}

/// A request, as long as it is not answered whole.
struct UnderWay {
    pulse: Arc<Pulse>,
    /// Its answer has more to give, and nobody asks for it.
    is_held_up: bool,
}

impl UnderWay {
    fn begin(pulse: &Arc<Pulse>) -> Self {
        pulse.begins();
        Self { pulse: pulse.clone(), is_held_up: false }
    }

    fn held_up(&mut self, is_held_up: bool) {
        if self.is_held_up != is_held_up {
            self.is_held_up = is_held_up;
            self.pulse.holds_up(is_held_up);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.held_up(false);
        self.pulse.ends();
    }
}

pin_project! {
    /// One request being served.
    pub struct Counting<F> {
        #[pin]
        future: F,
        under_way: Option<UnderWay>,
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
        let under_way = this.under_way.take();
        // HTTP/2 says the same with a frame of its own.
        if *this.version <= Version::HTTP_11
            && under_way.as_ref().is_some_and(|request| request.pulse.order() >= Order::Last)
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| CountedBody::new(body, under_way))))
    }
}

pin_project! {
    /// The body of an answer. While it has something to give and nobody asks, the peer is slow;
    /// while it is asked and has nothing, the peer is not to blame.
    pub struct CountedBody<B> {
        #[pin]
        body: B,
        under_way: Option<UnderWay>,
    }
}

impl<B: Body> CountedBody<B> {
    fn new(body: B, mut under_way: Option<UnderWay>) -> Self {
        if let Some(request) = &mut under_way {
            request.held_up(!body.is_end_stream());
        }
        Self { body, under_way }
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
        if let Some(request) = this.under_way {
            request.held_up(matches!(polled, Poll::Ready(Some(_))));
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
