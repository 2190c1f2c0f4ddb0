//! Not too often? Also tells the caller where it stands, on every answer from here on down.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tower::{Layer, Service};

use super::{Outcome, Permitted, at_once, later};
use crate::access::rate_limit;
use crate::app::Snapshot;
use crate::config::{Account, Client};
use crate::error::{Error, Kind};
use crate::reply::Reply;
use crate::routes::{Ids, Route};
use crate::standing::{Standing, Standings};

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
    S: Service<Permitted, Response = Reply, Error = Error, Future = Outcome<Reply>>,
{
    type Response = Reply;
    type Error = Error;
    type Future = Outcome<Reply>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Permitted) -> Outcome<Reply> {
        let standings = match may_now(&request) {
            Ok(standings) => standings,
            Err(error) => return at_once(Err(error.for_client(&request.grant.client.name))),
        };
        let asker = Asker::of(&request);
        match self.inner.call(request) {
            Either::Left(answered) => at_once(asker.told(answered.into_inner(), standings)),
            Either::Right(answering) => later(async move { asker.told(answering.await, standings) }),
        }
    }
}

/// Where the caller stands, counting this request: first the one bearer, so that one who asks too
/// often costs the others of its client nothing, then the client.
fn may_now(request: &Permitted) -> Result<Standings, Error> {
    let Permitted { call, identity, grant } = request;
    let client = &grant.client;
    let mut standings = Standings::default();
    if let Some(rate) = client.subject_rate_limit
        && let Some(bearer) = identity.bearer(client)
    {
        let standing = call
            .app
            .subjects
            .check(bearer, rate, call.now.uptime)
            .map_err(|over| over_limit("the rate limit of this user is used up", &over, over.into()))?;
        standings.subject = Some(standing);
    }
    let Some(limiter) = call.snapshot.limiter(client) else {
        return Err(Error::new(Kind::Internal, "a client without a limiter"));
    };
    match limiter.check(call.now.uptime) {
        Ok(standing) => standings.client = Some(standing),
        Err(over) => {
            standings.client = Some(over);
            // The bearer's own limit has been spent, and may be what the next attempt would run into.
            let spent = standings.iter().filter(|standing| standing.left == 0);
            let wait = spent.map(|standing| standing.reset).max().unwrap_or(over.reset);
            let error = over_limit("this client's rate limit is used up", &over, standings);
            return Err(error.retry_after(wait));
        }
    }
    Ok(standings)
}

pub fn over_limit(detail: &'static str, over: &Standing, standings: Standings) -> Error {
    let error = Error::new(Kind::QuotaExceeded, detail).violates(over.policy).retry_after(over.reset);
    with_standings(error, standings)
}

pub fn with_standings(error: Error, standings: Standings) -> Error {
    let headers = rate_limit::headers(&standings);
    headers.into_iter().fold(error, |error, (name, value)| error.with_header(name, value))
}

/// Who will be told where he stands, and by which pool of the upstream's quota his request is counted
/// if it comes to a call.
struct Asker {
    client: Arc<Client>,
    account: Arc<Account>,
    snapshot: Arc<Snapshot>,
    route: &'static Route,
    ids: Ids,
}

impl Asker {
    fn of(Permitted { call, grant, .. }: &Permitted) -> Self {
        Self {
            client: grant.client.clone(),
            account: grant.account.clone(),
            snapshot: call.snapshot.clone(),
            route: call.route,
            ids: call.ids.clone(),
        }
    }

    /// The answer, and with it where its caller stands.
    fn told(self, answered: Result<Reply, Error>, mut standings: Standings) -> Result<Reply, Error> {
        standings.upstream = self.upstream(answered.as_ref().err());
        match answered {
            Ok(mut reply) => {
                let headers = reply.response.headers_mut();
                let told = match self.snapshot.limiter(&self.client) {
                    Some(limiter) => limiter.headers(self.route.name, &standings),
                    None => rate_limit::headers(&standings),
                };
                for (name, value) in told {
                    headers.insert(name, value);
                }
                Ok(reply)
            }
            Err(error) => Err(with_standings(error.for_client(&self.client.name), standings)),
        }
    }

    /// Where the upstream's pool stands after the request. For a caller who was sent away there is
    /// nothing left until it is told to come back: the draft wants no `Retry-After` that is earlier
    /// than `t`.
    fn upstream(&self, refused: Option<&Error>) -> Option<Standing> {
        let standing = self.snapshot.upstream.standing(&self.account.id, self.route, self.ids.bot())?;
        let wait = refused.filter(|error| error.kind == Kind::TemporaryReducedCapacity).and_then(Error::wait);
        let (left, reset) = wait.map_or((standing.left, standing.reset), |wait| (0, wait));
        Some(Standing { left, reset, ..standing })
    }
}
