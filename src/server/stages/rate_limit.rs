//! Not too often? Also tells the caller where it stands, on every answer from here on down.

use std::time::Duration;

use super::check::{Check, Checking};
use super::{Admitted, Identified, Limited};
use crate::access::rate_limit;
use crate::error::cause::Cause;
use crate::error::{Error, Kind};
use crate::fetch::limit_status::{LimitStatus, LimitStatuses};
use crate::reply::Reply;

#[derive(Clone, Copy)]
pub struct RateLimit;

impl Check<Identified> for RateLimit {
    type Checked = Limited;

    fn check(&self, request: Identified) -> Checking<Limited> {
        let limit_statuses = may_now(&request);
        let Identified { call, identity, client } = request;
        Checking::Done(match limit_statuses {
            Ok(limit_statuses) => Ok(Limited { call, identity, client, limit_statuses }),
            Err(error) => Err(error.for_client(&client.name)),
        })
    }
}

/// Where the caller stands, counting this request: first the one bearer, so that one who asks too
/// often costs the others of its client nothing, then the client.
fn may_now(request: &Identified) -> Result<LimitStatuses, Error> {
    let Identified { call, identity, client } = request;
    let mut limit_statuses = LimitStatuses::default();
    if let Some(rate) = client.subject_rate_limit
        && let Some(bearer) = identity.bearer(client)
    {
        let limit_status = call
            .app
            .subjects
            .check(bearer, rate, call.now.uptime)
            .map_err(|over| over_limit("the rate limit of this user is used up", &over, over.into()))?;
        limit_statuses.subject = Some(limit_status);
    }
    let Some(limiter) = call.snapshot.limiter(client) else {
        return Err(Error::new(Kind::Internal, "a client without a limiter"));
    };
    match limiter.check(call.now.uptime) {
        Ok(limit_status) => limit_statuses.client = Some(limit_status),
        Err(over) => {
            limit_statuses.client = Some(over);
            // The bearer's own limit has been spent, and may be what the next attempt would run into.
            let spent = limit_statuses.iter().filter(|limit_status| limit_status.left == 0);
            let wait = spent.map(|limit_status| limit_status.reset).max().unwrap_or(over.reset);
            let error = over_limit("this client's rate limit is used up", &over, limit_statuses);
            return Err(error.retry_after(wait));
        }
    }
    Ok(limit_statuses)
}

pub fn over_limit(detail: &'static str, over: &LimitStatus, limit_statuses: LimitStatuses) -> Error {
    let cause = match over.policy {
        "address" => Cause::AddressLimit,
        "subject" => Cause::SubjectLimit,
        _ => Cause::ClientLimit,
    };
    let error = Error::new(Kind::QuotaExceeded, detail).violates(over.policy).retry_after(over.reset);
    let error = error.because(cause);
    with_limit_statuses(error, limit_statuses)
}

pub fn with_limit_statuses(error: Error, limit_statuses: LimitStatuses) -> Error {
    let headers = rate_limit::headers(&limit_statuses);
    headers.into_iter().fold(error, |error, (name, value)| error.with_header(name, value))
}

impl Admitted {
    /// Adds what is left of the limits at `now` of the clock's uptime.
    pub(super) fn add_limit_fields(&self, reply: &mut Reply, now: Duration) {
        let limit_statuses = LimitStatuses { upstream: self.upstream(None, now), ..self.limit_statuses };
        let headers = reply.response.headers_mut();
        for (name, value) in rate_limit::headers(&limit_statuses) {
            headers.insert(name, value);
        }
    }

    /// The same, of a request that comes to nothing.
    pub(super) fn refused(&self, error: Error) -> Error {
        let now = self.call.app.clock.uptime();
        let limit_statuses =
            LimitStatuses { upstream: self.upstream(Some(&error), now), ..self.limit_statuses };
        with_limit_statuses(error.for_client(&self.grant.client.name), limit_statuses)
    }

    /// Where the upstream's pool stands after the request, by which it is counted if it comes to a call.
    /// For a caller who was sent away there is nothing left until it is told to come back: the draft
    /// wants no `Retry-After` that is earlier than `t`.
    fn upstream(&self, refused: Option<&Error>, now: Duration) -> Option<LimitStatus> {
        let Self { call, grant, .. } = self;
        // What is kept from a caller must look the same whether it is stored, fetched, or not there.
        if refused.is_some_and(|error| matches!(error.kind, Kind::Forbidden | Kind::NotFound)) {
            return None;
        }
        let limit_status =
            call.snapshot.upstream.limit_status(&grant.account.id, call.route, call.ids.bot(), now)?;
        let wait = refused.filter(|error| error.kind == Kind::TemporaryReducedCapacity).and_then(Error::wait);
        let (left, reset) = wait.map_or((limit_status.left, limit_status.reset), |wait| (0, wait));
        Some(LimitStatus { left, reset, ..limit_status })
    }
}
