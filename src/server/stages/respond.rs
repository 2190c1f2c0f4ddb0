//! The answer: what is at hand at once, everything else by way of a fill.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use tower::Service;

use super::served::served;
use super::visible::{may_see, may_see_unread};
use super::{Admitted, ClientRequest, Outcome, Valid, at_once, later, owner};
use crate::access::cache_control::Directives;
use crate::access::identify::CallerIdentity;
use crate::access::permit::{Grant, forbidden, permit};
use crate::access::redact::Work;
use crate::app::Snapshot;
use crate::cache::{Coding, Entry, Part, Served, Source, Turn};
use crate::config::Client;
use crate::error::{Error, Kind};
use crate::fetch::answer::Answer;
use crate::observe::audit::AuditRecord;
use crate::observe::metrics;
use crate::overload::waiting::{Place, with_place};
use crate::reply::{self, Conditions, Reply, Shown};
use crate::routes::{Key, Query, Requested, phase_of_own_rows};

#[derive(Clone, Copy)]
pub struct Respond;

impl Service<Valid> for Respond {
    type Response = Reply;
    type Error = Error;
    type Future = Outcome<Reply>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut valid: Valid) -> Outcome<Reply> {
        match at_hand(&mut valid) {
            Some(answered) => at_once(answered),
            None => match place(&valid) {
                Err(error) => at_once(Err(valid.admitted.refused(error))),
                Ok(place) => later(async move {
                    let answered = answer(&valid, place).await;
                    let calls = valid.admitted.call.calls_made();
                    let mut reply = answered.map_err(|error| {
                        valid.admitted.refused(hidden(&valid, error)).after(calls.clone())
                    })?;
                    reply.calls = calls;
                    valid.admitted.add_limit_fields(&mut reply, valid.admitted.call.app.clock.uptime());
                    Ok(reply)
                }),
            },
        }
    }
}

/// A place to wait in, for a request that may come to a call. What is stored is not waited for, though it may have
/// to be made ready. Before anything goes upstream, it is searched for credentials: nothing that holds one was ever
/// stored.
fn place(valid: &Valid) -> Result<Option<Place>, Error> {
    let Valid { admitted, query, body, revalidate, .. } = valid;
    let ClientRequest { app, now, .. } = &*admitted.call;
    if !revalidate && app.cache.fresh(&query.key, *now).is_some() {
        return Ok(None);
    }
    admitted.call.without_credentials(body.as_deref())?;
    admitted.begin_to_wait().map(Some)
}

/// The answer, if it is stored and fresh in the very form this caller gets: then there is nothing
/// to wait for. `None` says nothing but that it is [`answer`]'s to find.
fn at_hand(valid: &mut Valid) -> Option<Result<Reply, Error>> {
    let Valid { admitted, query, conditions, .. } = valid;
    let Admitted { call, grant, .. } = admitted;
    let ClientRequest { app, snapshot, now, .. } = &**call;
    let is_whole = matches!(snapshot.projection(&grant.client, query.route), Ok(None));
    if !is_whole || valid.revalidate || snapshot.audit.is_on() || !snapshot.is_current() {
        return None;
    }
    let (entry, left) = app.cache.fresh(&query.key, *now)?;
    let shown = reply::shown(&entry, conditions);
    let body = match shown {
        Shown::NotModified(_) => None,
        Shown::Whole(coding) => Some(app.cache.body_at_hand(&entry, coding)?),
    };
    let held =
        may_see(grant, query.route, &entry, false, false).and_then(|()| held(call, &grant.client, body));
    let body = match held {
        Ok(body) => body,
        Err(error) => {
            let error = hidden(valid, error);
            return Some(Err(valid.admitted.refused(error)));
        }
    };
    let (source, now) = (Source::Hit { left }, *now);
    let headers = std::mem::take(&mut admitted.call.head.headers);
    let response = reply::response(&entry, source, shown, body, conditions, now, headers);
    let client = admitted.grant.client.name.clone();
    let mut reply = Reply { response, client, outcome: metrics::CacheOutcome::Hit, calls: None };
    admitted.add_limit_fields(&mut reply, now.uptime);
    Some(Ok(reply))
}

/// To who takes only what is stored, what it may not see looks like what is not: or it would learn which of the two
/// it is.
fn hidden(valid: &Valid, error: Error) -> Error {
    let is_hidden =
        error.kind == Kind::Forbidden && Directives::of(&valid.admitted.call.head.headers).only_if_cached;
    if is_hidden { Error::not_cached() } else { error }
}

/// A body for one more response, as long as responses do not hold too many bytes.
fn held(
    call: &ClientRequest,
    client: &Client,
    body: Option<(Coding, Arc<[u8]>)>,
) -> Result<Option<(Coding, Bytes)>, Error> {
    let Some((coding, body)) = body else { return Ok(None) };
    let bound = call.snapshot.config.server.max_bytes_in_flight;
    Ok(Some((coding, call.app.responses.hold(body, &client.name, bound)?)))
}

async fn answer(valid: &Valid, place: Option<Place>) -> Result<Reply, Error> {
    let Valid { admitted, query, revalidate, conditions, .. } = valid;
    let Admitted { call, identity, grant, .. } = admitted;
    let snapshot = &call.snapshot;
    owner::check(valid).await?;
    let served = served(call, grant, query, *revalidate).await?;
    let outcome = reply::outcome(&served);

    let asker = Asker { admitted, place, call, identity, query, conditions, outcome };
    let mut policy = Policy { snapshot: snapshot.clone(), grant: grant.clone() };
    let response = match served {
        Served::Entry(entry, source) => loop {
            policy = policy.of_now(&asker)?;
            let response = asker.shown(&policy, (&entry, source)).await?;
            asker.audit(&policy, response.status(), !response.body().is_end_stream()).await?;
            // Making it and writing down who gets it take their time too.
            if policy.snapshot.is_current() {
                break response;
            }
        },
        Served::Large(large, source) => {
            let status = large.status;
            policy = policy.of_now(&asker)?;
            policy.may_see_unread(&asker, status)?;
            let response = reply::large(large, source, conditions);
            asker.audit(&policy, response.status(), !response.body().is_end_stream()).await?;
            policy = policy.of_now(&asker)?;
            policy.may_see_unread(&asker, status)?;
            response
        }
    };
    Ok(Reply { response, client: policy.grant.client.name.clone(), outcome, calls: None })
}

/// What a caller may see, by the configuration of one moment.
struct Policy {
    snapshot: Arc<Snapshot>,
    grant: Grant,
}

impl Policy {
    /// The same by now: an answer that took its time is handed out by the configuration of now, and
    /// to whom the credential still makes a client.
    fn of_now(self, asker: &Asker<'_>) -> Result<Self, Error> {
        let ClientRequest { app, ids, .. } = asker.call;
        let snapshot = app.snapshot();
        let client = asker.identity.client(&snapshot.config.clients, app.clock.now())?;
        if Arc::ptr_eq(&snapshot, &self.snapshot) {
            return Ok(self);
        }
        let account = permit(&client, asker.query.route, ids, &snapshot.config)?.clone();
        // A bot that has come to be another account's: this is the answer of the one it was.
        if account.id != asker.query.account {
            return Err(forbidden());
        }
        Ok(Self { snapshot, grant: Grant { client, account } })
    }

    fn turn(&self) -> Turn {
        let client = Some(self.grant.client.name.clone());
        Turn { client, at_most: self.snapshot.config.upstream.timeout }
    }

    /// Whether a body may be handed out that nobody has looked into.
    fn may_see_unread(&self, asker: &Asker<'_>, status: StatusCode) -> Result<(), Error> {
        let route = asker.query.route;
        let is_projected = self.snapshot.projection(&self.grant.client, route)?.is_some();
        may_see_unread(&self.grant, route, status, is_projected)
    }
}

/// Who asked what, and how.
struct Asker<'a> {
    admitted: &'a Admitted,
    /// Where it waits, if it has waited.
    place: Option<Place>,
    call: &'a ClientRequest,
    identity: &'a CallerIdentity,
    query: &'a Query,
    conditions: &'a Conditions,
    outcome: metrics::CacheOutcome,
}

impl Asker<'_> {
    /// What the policy leaves of an entry.
    async fn shown(
        &self,
        policy: &Policy,
        (entry, source): (&Arc<Entry>, Source),
    ) -> Result<Response, Error> {
        let query = self.query;
        let projection = policy.snapshot.projection(&policy.grant.client, query.route)?;
        let chooses_rows = projection.is_some_and(|projection| projection.chooses_rows());
        may_see(&policy.grant, query.route, entry, projection.is_some(), chooses_rows)?;
        let Some(projection) = projection.cloned() else {
            return self.response(policy, &query.key, (entry, source)).await;
        };
        let id = *projection.id();
        let most = policy.snapshot.config.redaction_work;
        // What is said about a window is said about the rows that are shown.
        let own = chooses_rows.then(|| (query.requested.clone(), policy.grant.client.clone()));
        let rule = *policy.snapshot.config.cache.rule(query.route);
        let project = move |answer: &Answer, is_unwanted| {
            let mut work = Work::within(most, is_unwanted);
            let body = projection.apply_within(&mut work, &answer.body, answer.status.is_success())?;
            let phase = own.map(|(asked, client)| {
                let rows = phase_of_own_rows(&asked, &answer.body, |bot| client.bots.include(bot));
                match asked {
                    Requested::Window { end, .. } => rows.and(rule.window(end, answer.asked_at.wall)),
                    _ => rows,
                }
            });
            Ok(Part { body, phase })
        };
        let cache = &self.call.app.cache;
        let turn = policy.turn();
        let projected = cache.projected(&query.key, (entry, source), &id, &turn, project);
        let (key, entry) = with_place(projected, Duration::ZERO, || self.begin_to_wait()).await?;
        let source = if chooses_rows { source.of_a_part(entry.phase) } else { source };
        self.response(policy, &key, (&entry, source)).await
    }

    async fn response(
        &self,
        policy: &Policy,
        key: &Key,
        (entry, source): (&Arc<Entry>, Source),
    ) -> Result<Response, Error> {
        let app = &self.call.app;
        let shown = reply::shown(entry, self.conditions);
        let body = match shown {
            Shown::NotModified(_) => None,
            Shown::Whole(coding) => {
                let turn = policy.turn();
                let body = async { Ok(app.cache.body(key, entry, coding, &turn).await) };
                let as_it_is = |_| (Coding::Identity, entry.answer.body.clone());
                Some(with_place(body, Duration::ZERO, || self.begin_to_wait()).await.unwrap_or_else(as_it_is))
            }
        };
        let body = held(self.call, &policy.grant.client, body)?;
        let (now, headers) = (app.clock.moment(), HeaderMap::new());
        Ok(reply::response(entry, source, shown, body, self.conditions, now, headers))
    }

    /// A place to wait in, unless it has one.
    fn begin_to_wait(&self) -> Result<Option<Place>, Error> {
        if self.place.is_some() { Ok(None) } else { self.admitted.begin_to_wait().map(Some) }
    }

    /// Writes down who is handed an answer, if it has a body.
    async fn audit(&self, policy: &Policy, status: StatusCode, has_body: bool) -> Result<(), Error> {
        let audit = &policy.snapshot.audit;
        if !audit.is_on() || !has_body {
            return Ok(());
        }
        let Grant { client, account } = &policy.grant;
        let window = match self.query.requested {
            Requested::Window { start, end, .. } => Some([start.to_string(), end.to_string()]),
            _ => None,
        };
        let record = AuditRecord {
            time: self.call.app.clock.now().to_string(),
            request_id: self.call.request_id.as_str(),
            client: &client.name,
            who: &self.identity.who(),
            address: self.call.address,
            route: self.query.route.name.as_str(),
            account: &account.id,
            bot: self.query.bot.as_deref(),
            id: self.query.requested.id(),
            window,
            status: status.as_u16(),
            outcome: self.outcome.as_str(),
            redaction: client.redact.iter().map(|redaction| &*redaction.name).collect(),
            own_rows_only: client.filter_rows,
        };
        audit.record(&record).await
    }
}
