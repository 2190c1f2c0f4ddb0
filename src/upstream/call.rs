//! The attempts of one call. Each takes quota, then a token, then makes the exchange, and its outcome says whether
//! another attempt is worthwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Upstream;
use super::breaker::AttemptKind;
use super::echo;
use super::exchange::{self, Added, ExchangeError, READING};
use super::host::{Connection, Host};
use super::outcome::{AttemptOutcome, QUOTA_REFUSED_FOR};
use super::passed_on;
use super::pool::{Exhausted, Pool, Reservation};
use super::retry::RetryPermit;
use super::secrets::Use;
use super::token::{Minter, Token};
use super::{State, request, retry};
use crate::config::Account;
use crate::error::cause::Cause;
use crate::error::{Error, Kind};
use crate::fetch::answer::Fetched;
use crate::fetch::payer::Payers;
use crate::observe::metrics::AttemptResult;
use crate::observe::trace::{self, Trace};
use crate::observe::upstream_calls::UpstreamCalls;
use crate::overload::in_flight;
use crate::overload::shares::{Full, Share};
use crate::routes::{Base, Query};

/// The most retries of one request. What fails three times would fail a fourth time, and others need the budget.
const MAX_RETRIES: u32 = 2;

/// Until when a call is of use to the request that started it, on the clock that quotas are counted on. The deadline
/// bounds the wait for the exchange. The exchange itself has the whole of `upstream.timeout` from its start: the
/// quota has been used, and the answer is stored for the next request.
#[derive(Clone, Copy)]
struct Deadline {
    /// When the waiter leaves.
    waiter: Duration,
    /// The last time at which a grant is of use. After a later one the answer would find the waiter gone.
    grant: Duration,
}

/// What all attempts of one call need.
struct CallContext<'a> {
    query: &'a Query,
    account: &'a Account,
    payers: &'a Payers,
    minter: &'a Minter,
    pool: Arc<Pool>,
    host: &'a Host,
    deadline: Deadline,
    /// The trace of the request that started the call.
    trace: Option<&'a Trace>,
    /// Attempts so far, for its access line.
    made: &'a UpstreamCalls,
}

/// The next attempt.
struct NextAttempt<'a> {
    kind: AttemptKind,
    /// Until when it waits for quota.
    grant_deadline: Duration,
    /// The outcome before it. The caller gets that one if the attempt cannot be made.
    failed: Option<AttemptOutcome>,
    /// The permit that it uses, if it is a retry.
    permit: Option<RetryPermit<'a>>,
}

impl NextAttempt<'_> {
    fn first(deadline: Deadline) -> Self {
        Self { kind: AttemptKind::First, grant_deadline: deadline.grant, failed: None, permit: None }
    }

    fn again(grant_deadline: Duration, failed: Option<AttemptOutcome>) -> Self {
        Self { kind: AttemptKind::Repeat, grant_deadline, failed, permit: None }
    }
}

impl CallContext<'_> {
    /// The base URL it goes to.
    fn base(&self) -> &str {
        request::base(self.query.route, self.account)
    }

    fn usage(&self) -> Use {
        (self.query.route.name, self.query.bot.clone())
    }
}

impl Upstream {
    /// The answer to `query`. The wait for quota ends while there is time for an answer within the configured timeout;
    /// each exchange then has the whole timeout. `payers` are the clients whose share of the quota it may use, `trace`
    /// is that of the request that starts it.
    pub async fn call(
        &self,
        query: &Query,
        payers: &Payers,
        trace: Option<&Trace>,
        made: &UpstreamCalls,
    ) -> Result<Fetched, Error> {
        let call = self.prepare(query, payers, trace, made)?;
        let (mut may_remint, mut retries) = (true, 0);
        let mut next = NextAttempt::first(call.deadline);
        loop {
            // This is the only place that makes an attempt: its future is large, and each place would hold one more.
            let (token, outcome) = match self.attempt(&call, next.kind, next.grant_deadline).await {
                Ok(made) => made,
                // The earlier failure says more than the reason why it was not retried.
                Err(error) => return next.failed.map_or(Err(error), |failed| self.conclude(&call, failed)),
            };
            if let Some(permit) = next.permit {
                permit.spend();
                retries += 1;
                self.metrics.upstream.retry(query.route);
            }
            next = match outcome {
                AttemptOutcome::TokenRefused { date, .. } => {
                    let is_worth_it = call.minter.refused(&token, &call.usage(), date).await;
                    if !(is_worth_it && std::mem::take(&mut may_remint)) {
                        return self.conclude(&call, outcome);
                    }
                    // Whether the credential is at fault shows only in the next call.
                    NextAttempt::again(call.deadline.grant, None)
                }
                // The permit for the repeat was spent with the connection.
                AttemptOutcome::Failed(ExchangeError::Stale(_)) => {
                    NextAttempt::again(call.deadline.grant, Some(outcome))
                }
                failed if retries < MAX_RETRIES && failed.ending().consequences().is_retried => {
                    match self.pause(&call, retries).await {
                        Some(permit) => NextAttempt {
                            permit: Some(permit),
                            ..NextAttempt::again(self.clock.uptime(), Some(failed))
                        },
                        None => return self.conclude(&call, failed),
                    }
                }
                outcome => return self.conclude(&call, outcome),
            };
        }
    }

    fn prepare<'a>(
        &'a self,
        query: &'a Query,
        payers: &'a Payers,
        trace: Option<&'a Trace>,
        made: &'a UpstreamCalls,
    ) -> Result<CallContext<'a>, Error> {
        let (state, minter, host) = self.way(query)?;
        let timeout = self.config.timeout;
        let waiter = self.clock.uptime() + timeout;
        let deadline = Deadline { waiter, grant: waiter - host.pace(query).expected(timeout) };
        let pool = pool(state, query, payers)?;
        let account = &state.account;
        Ok(CallContext { query, account, payers, minter, pool, host, deadline, trace, made })
    }

    /// Makes one attempt. `Err`: it was not made, because the quota had no room by `grant_deadline` or the breaker is
    /// open.
    async fn attempt(
        &self,
        call: &CallContext<'_>,
        kind: AttemptKind,
        grant_deadline: Duration,
    ) -> Result<(Token, AttemptOutcome), Error> {
        // Before the wait for quota: a call that has no room for its answer need not wait.
        let mut share = self.share(call.payers)?;
        call.host.breaker.check().map_err(|wait| breaker_open(wait, call.base()))?;
        let mut reservation = self.reserve(call, grant_deadline).await?;
        let token = call.minter.token()?;
        let permit = call.host.breaker.permit(kind).map_err(|wait| breaker_open(wait, call.base()))?;
        if kind == AttemptKind::First {
            call.host.budget.deposit();
        }

        let asked_at = self.clock.moment();
        let has_room = call.pool.available_at(asked_at.uptime).0 > 0;
        let connection = call.host.connection(has_room, asked_at.uptime);
        let http = match connection {
            Connection::Kept(_) => &self.http,
            Connection::UsedOnce => &self.http_once,
        };
        let traced = call.trace.and_then(Trace::client_span);
        let added =
            Added { token: &token, traceparent: traced.as_ref().and_then(trace::OpenClientSpan::header) };
        let (query, account, config) = (call.query, call.account, &self.config);
        let exchange = exchange::exchange(http, query, account, added, config, &mut share, &mut reservation);
        let ended = tokio::select! {
            biased;
            ended = exchange => ended,
            () = self.clock.on_sockets(self.config.timeout) => Err(ExchangeError::TimedOut(
                Error::new(Kind::UpstreamTimeout, "the upstream did not answer in time")
                    .proxy_error("http_response_timeout"),
            )),
        };
        let ended_at = self.clock.moment();
        let outcome = match ended {
            Ok(received) => AttemptOutcome::of(received, asked_at, ended_at.wall),
            Err(broken) => AttemptOutcome::Failed(broken),
        };
        if let AttemptOutcome::Failed(ExchangeError::Stale(_)) = &outcome {
            call.host.note_idle_close(ended_at.uptime);
            if let Connection::Kept(retry_permit) = connection {
                retry_permit.spend();
            }
        }
        if let AttemptOutcome::QuotaRefused(wait) = &outcome {
            // Before the reservation ends, because that may grant the next call.
            call.pool.refuse_for(*wait);
        }
        if outcome.knows_the_bot() {
            call.pool.prove();
        }
        drop(reservation);
        permit.report(!outcome.ending().consequences().counts_for_breaker);
        // An upstream that fails may not have checked the token.
        if let AttemptOutcome::Answered(answer) = &outcome
            && !answer.status().is_server_error()
        {
            call.minter.accepted(&token, &call.usage());
        }
        self.record(call, &outcome, ended_at.uptime.saturating_sub(asked_at.uptime), traced);
        // Last, because it was an answer for the quota, the breaker and the token.
        let (metrics, route) = (self.metrics.clone(), call.query.route);
        let outcome = echo::without_token(outcome, &token, move || metrics.upstream.withheld(route, "token"));
        Ok((token, passed_on::counted(outcome, share)))
    }

    /// The share of the memory for answers that this answer counts in: that of the first payer with room.
    fn share(&self, payers: &Payers) -> Result<Share, Error> {
        let mut refused = Full::All;
        for client in payers.clients() {
            let share = self.reading.begin(&Some(client));
            match share.room(self.config.max_bytes_in_flight) {
                Ok(()) => return Ok(share),
                Err(is_full) => refused = is_full,
            }
        }
        Err(in_flight::full(READING, refused))
    }

    /// Records the outcome of an attempt, and the time it took, in metrics and trace.
    fn record(
        &self,
        call: &CallContext<'_>,
        outcome: &AttemptOutcome,
        taken: Duration,
        traced: Option<trace::OpenClientSpan>,
    ) {
        let (status, result) = match outcome {
            AttemptOutcome::Answered(answer) => (answer.status().as_u16(), AttemptResult::Answered),
            AttemptOutcome::TokenRefused { status, .. } => (status.as_u16(), AttemptResult::TokenRefused),
            AttemptOutcome::QuotaRefused(_) => (429, AttemptResult::QuotaRefused),
            AttemptOutcome::Failed(_) => (0, AttemptResult::Failed),
        };
        // A refusal comes sooner than an answer, so it says nothing about the pace.
        if matches!(outcome, AttemptOutcome::Answered(_) | AttemptOutcome::Failed(ExchangeError::TimedOut(_)))
        {
            call.host.pace(call.query).note(taken);
        }
        self.metrics.upstream.attempt(call.query.route, status, result, taken);
        let before = call.made.note(call.base(), taken);
        if let Some(traced) = traced {
            traced.end(&trace::ClientSpan {
                method: call.query.route.method.as_str(),
                route: call.query.route.paths.first().copied().unwrap_or_default(),
                base: call.base(),
                status: (status > 0).then_some(status),
                result: result.as_str(),
                error: outcome.error().map(Kind::as_str),
                before,
            });
        }
    }

    async fn reserve(&self, call: &CallContext<'_>, grant_deadline: Duration) -> Result<Reservation, Error> {
        let started = Instant::now();
        let reserved = call.pool.reserve(call.payers, grant_deadline).await;
        self.metrics.upstream.quota_wait.observe(started.elapsed().as_secs_f64());
        reserved.map_err(|Exhausted(wait)| quota_used_up(wait, call.query))
    }

    /// Waits before the `nth` retry. `None`: there is no retry, because its answer would come after the waiter has
    /// left, the quota has no room at once, or the budget has no credit.
    async fn pause<'a>(&self, call: &CallContext<'a>, nth: u32) -> Option<RetryPermit<'a>> {
        let wait = retry::full_jitter(&self.config.retry, nth, random()?);
        let expected = call.host.pace(call.query).expected(self.config.timeout);
        let is_in_time = self.clock.uptime() + wait + expected < call.deadline.waiter;
        if !is_in_time || call.pool.available().0 == 0 {
            return None;
        }
        let permit = call.host.budget.reserve_retry()?;
        // On the machine's time, like the exchanges before and after it.
        tokio::time::sleep(wait).await;
        Some(permit)
    }

    /// Turns the last outcome into what the caller gets.
    fn conclude(&self, call: &CallContext<'_>, outcome: AttemptOutcome) -> Result<Fetched, Error> {
        match outcome {
            AttemptOutcome::Answered(answer) => Ok(answer),
            AttemptOutcome::Failed(broken) => Err(broken.into_error()),
            AttemptOutcome::QuotaRefused(wait) => Err(quota_used_up(wait, call.query)),
            AttemptOutcome::TokenRefused { status, .. } => {
                call.minter.is_refused(status);
                let detail = "the upstream does not accept the gateway's credential";
                Err(Error::new(Kind::UpstreamRefused, detail)
                    .because(Cause::CredentialRefused)
                    .about(call.minter.name())
                    .proxy_error("proxy_configuration_error"))
            }
        }
    }
}

/// The pool that counts a call: the account's, or its bot's (contract §1).
fn pool(state: &State, query: &Query, payers: &Payers) -> Result<Arc<Pool>, Error> {
    match (query.route.base, query.bot.as_deref()) {
        (Base::Automation, Some(bot)) => state.pools.bots.get(bot, &payers.first()).ok_or_else(too_many_bots),
        _ => Ok(state.pools.whole.clone()),
    }
}

fn random() -> Option<u32> {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(u32::from_ne_bytes(bytes))
}

pub(super) fn quota_used_up(wait: Duration, query: &Query) -> Error {
    let wait = wait.max(Duration::from_secs(1));
    let cause = match query.route.base {
        Base::ContactCenter => Cause::AccountQuota,
        Base::Automation => Cause::BotQuota,
    };
    Error::new(Kind::TemporaryReducedCapacity, "the upstream's quota is used up")
        .because(cause)
        .about(query.account.clone())
        .retry_after(wait)
        .proxy_error("connection_limit_reached")
}

fn too_many_bots() -> Error {
    let detail = "this client asks for more bots than quotas can be counted for";
    Error::new(Kind::TemporaryReducedCapacity, detail)
        .because(Cause::BotPools)
        .retry_after(QUOTA_REFUSED_FOR)
        .proxy_error("connection_limit_reached")
}

pub(super) fn breaker_open(wait: Duration, base: &str) -> Error {
    Error::new(
        Kind::TemporaryReducedCapacity,
        "the upstream has failed several times in a row and is left alone for a moment",
    )
    .because(Cause::BreakerOpen)
    .about(base)
    .retry_after(wait)
    .proxy_error("destination_unavailable")
}
