//! The guard as a layer: it answers what it refuses.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::response::{IntoResponse, Response};
use futures_util::future::{Either, Ready, ready};
use http::Request;
use http::request::Parts;
use tower::{Layer, Service};

use super::Exchange;
use crate::error::Error;
use crate::server::guard::{HeadLimits, check};

#[derive(Clone, Copy)]
pub struct GuardLayer;

impl<S> Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded(inner)
    }
}

#[derive(Clone)]
pub struct Guarded<S>(S);

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        match judge(&head) {
            Ok(()) => Either::Right(self.0.call(Request::from_parts(head, body))),
            Err(refused) => Either::Left(ready(Ok(refused.into_response()))),
        }
    }
}

/// Checks the head alone. Whether an HTTP/2 GET that is still open has content is checked later, once its caller is
/// known.
fn judge(head: &Parts) -> Result<(), Error> {
    let exchange = Exchange::of(&head.extensions)?;
    let limits = HeadLimits::of(&exchange.snapshot.config.server);
    check(head, false, &limits)
        .map_err(|refusal| exchange.refused(&head.headers, refusal.into_error(head.version)))
}
