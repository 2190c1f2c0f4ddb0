//! A stage that establishes something about a request, or refuses it.

use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use tower::{Layer, Service};

use super::{Outcome, at_once, later};
use crate::error::Error;
use crate::reply::Reply;

/// Turns what the stage above has established into what the one below takes.
pub trait Check<Request> {
    type Checked;

    fn check(&self, request: Request) -> Checking<Self::Checked>;
}

/// What a check comes to.
pub enum Checking<T> {
    Done(Result<T, Error>),
    UnderWay(BoxFuture<'static, Result<T, Error>>),
}

impl<T> Checking<T> {
    pub fn of(work: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        Self::UnderWay(work.boxed())
    }
}

/// Puts a check in front of a service.
#[derive(Clone, Copy)]
pub struct CheckLayer<C>(pub C);

#[derive(Clone, Copy)]
pub struct Checked<C, S> {
    check: C,
    inner: S,
}

impl<C: Copy, S> Layer<S> for CheckLayer<C> {
    type Service = Checked<C, S>;

    fn layer(&self, inner: S) -> Checked<C, S> {
        Checked { check: self.0, inner }
    }
}

impl<Request, C, S> Service<Request> for Checked<C, S>
where
    C: Check<Request, Checked: Send + 'static>,
    S: Service<C::Checked, Response = Reply, Error = Error, Future = Outcome<Reply>>,
    S: Clone + Send + 'static,
{
    type Response = Reply;
    type Error = Error;
    type Future = Outcome<Reply>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    /// What is checked on the spot is passed on on the spot.
    fn call(&mut self, request: Request) -> Outcome<Reply> {
        match self.check.check(request) {
            Checking::Done(Ok(checked)) => self.inner.call(checked),
            Checking::Done(Err(error)) => at_once(Err(error)),
            Checking::UnderWay(checking) => {
                let mut inner = self.inner.clone();
                later(async move { inner.call(checking.await?).await })
            }
        }
    }
}
