//! Not too often? Also tells the caller where it stands, on every answer from here on down.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::Either;
use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

use super::Permitted;
use crate::access::rate_limit;
use crate::app::Snapshot;
use crate::config::{Account, Client};
use crate::error::{Error, Kind};
use crate::reply::Reply;
use crate::routes::{Ids, Route};
use crate::standing::Standing;

#[derive(Clone, Copy)]
pub struct RateLimit;

#[derive(Clone, Copy)]
pub struct RateLimited<S> {
    inner: S,
}

impl<S> Layer<S> for RateLimit {
    type Service = RateLimited<S>;

    fn layer(&self, inner: S) -> RateLimited<S> {
        RateLimited { inner }
    }
}

impl<S> Service<Permitted> for RateLimited<S>
where
    S: Service<Permitted, Response = Reply, Error = BoxError>,
{
    type Response = Reply;
    type Error = BoxError;
    type Future = Either<std::future::Ready<Result<Reply, BoxError>>, Telling<S::Future>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Permitted) -> Self::Future {
        match may_now(&request) {
            Err(error) => {
                let error = error.for_client(&request.grant.client.name);
                Either::Left(std::future::ready(Err(error.into())))
            }
            Ok(standings) => {
                let client = request.grant.client.clone();
                let pool = UpstreamPool::of(&request);
                Either::Right(Telling { answering: self.inner.call(request), client, standings, pool })
            }
        }
    }
}

pin_project! {
    /// An answer under way that will say where its caller stands.
    pub struct Telling<F> {
        #[pin]
        answering: F,
        client: Arc<Client>,
        standings: Vec<Standing>,
        pool: UpstreamPool,
    }
}

impl<F: Future<Output = Result<Reply, BoxError>>> Future for Telling<F> {
    type Output = Result<Reply, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answered = ready!(this.answering.poll(context)).map_err(Error::from_stack);
        let refused = answered.as_ref().err();
        this.standings.extend(this.pool.standing(refused));
        Poll::Ready(match answered {
            Ok(mut reply) => {
                let headers = reply.response.headers_mut();
                for (name, value) in rate_limit::headers(this.standings) {
                    headers.insert(name, value);
                }
                Ok(reply)
            }
            Err(error) => Err(with_standings(error.for_client(&this.client.name), this.standings).into()),
        })
    }
}

/// Where the caller stands, counting this request: first the one bearer, so that one who asks too
/// often costs the others of its client nothing, then the client.
fn may_now(request: &Permitted) -> Result<Vec<Standing>, Error> {
    let Permitted { call, identity, grant } = request;
    let client = &grant.client;
    // Room for the upstream's pool too.
    let mut standings = Vec::with_capacity(3);
    if let Some(rate) = client.subject_rate_limit
        && let Some(bearer) = identity.bearer(client)
    {
        let standing = call
            .app
            .subjects
            .check(bearer, rate)
            .map_err(|over| over_limit("the rate limit of this user is used up", &over, &[over]))?;
        standings.push(standing);
    }
    let Some(limiter) = call.snapshot.limiter(client) else {
        return Err(Error::new(Kind::Internal, "a client without a limiter"));
    };
    let standing = limiter.check().map_err(|over| {
        let standings: Vec<_> = std::iter::once(over).chain(standings.iter().copied()).collect();
        // The bearer's own limit has been spent, and may be what the next attempt would run into.
        let waits = standings.iter().filter(|standing| standing.left == 0).map(|standing| standing.reset);
        let wait = waits.max().unwrap_or(over.reset);
        over_limit("this client's rate limit is used up", &over, &standings).retry_after(wait)
    })?;
    standings.insert(0, standing);
    Ok(standings)
}

pub fn over_limit(detail: &'static str, over: &Standing, standings: &[Standing]) -> Error {
    let error = Error::new(Kind::QuotaExceeded, detail).violates(over.policy).retry_after(over.reset);
    with_standings(error, standings)
}

pub fn with_standings(error: Error, standings: &[Standing]) -> Error {
    let headers = rate_limit::headers(standings);
    headers.into_iter().fold(error, |error, (name, value)| error.with_header(name, value))
}

/// The pool of the upstream's quota that a request is counted by, if it comes to a call.
struct UpstreamPool {
    snapshot: Arc<Snapshot>,
    route: &'static Route,
    account: Arc<Account>,
    ids: Ids,
}

impl UpstreamPool {
    fn of(request: &Permitted) -> Self {
        Self {
            snapshot: request.call.snapshot.clone(),
            route: request.call.route,
            account: request.grant.account.clone(),
            ids: request.call.ids.clone(),
        }
    }

    /// Where it stands after the request. For a caller who was sent away there is nothing left until
    /// it is told to come back: the draft wants no `Retry-After` that is earlier than `t`.
    fn standing(&self, refused: Option<&Error>) -> Option<Standing> {
        let standing = self.snapshot.upstream.standing(&self.account.id, self.route, self.ids.bot())?;
        let wait = refused.filter(|error| error.kind == Kind::TemporaryReducedCapacity).and_then(Error::wait);
        let (left, reset) = wait.map_or((standing.left, standing.reset), |wait| (0, wait));
        Some(Standing { left, reset, ..standing })
    }
}
