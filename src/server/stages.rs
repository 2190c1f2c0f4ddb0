//! The way of a request, read from top to bottom. Each stage is tower middleware that takes what
//! the one above has established and hands on more: a request cannot reach the cache unidentified,
//! because there is no value of the type the cache's stage takes.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tower::filter::{AsyncFilterLayer, AsyncPredicate, FilterLayer, Predicate};
use tower::{BoxError, Layer, Service, ServiceBuilder};

use crate::access::identify::{Identity, identify};
use crate::access::permit::{Grant, permit};
use crate::access::rate_limit::{self, Caller};
use crate::access::redact::Unreadable;
use crate::access::refresh;
use crate::answer::Answer as Whole;
use crate::app::{App, Snapshot};
use crate::audit::Record;
use crate::cache::{Entry, Served, Source};
use crate::clock::UnixMillis;
use crate::config::{Account, Client};
use crate::error::{Error, Fault, Kind};
use crate::metrics::Outcome;
use crate::reply::{self, Conditions, Reply};
use crate::routes::{self, Asked, Ids, Key, Query, Route};
use crate::standing::Standing;
use crate::upstream::Spender;

/// The typed stack, in the order in which a request goes through it.
pub fn stack(
    app: Arc<App>,
) -> impl Service<Call, Response = Reply, Error = BoxError, Future: Send> + Clone + Send {
    ServiceBuilder::new()
        .layer(AsyncFilterLayer::new(Identify(app.clone()))) // Call       -> Identified: whose credential it is
        .layer(FilterLayer::new(Permit)) //                     Identified -> Permitted:  route, account and bot are allowed
        .layer(RateLimit(app.clone())) //                       Permitted  -> Permitted:  not too often
        .layer(AsyncFilterLayer::new(Validate)) //              Permitted  -> Valid:      the body is read, checked, made canonical
        .service(Answer(app)) //                                Valid      -> Reply:      out of the cache, or filled
}

/// A request for a route, under the configuration of the moment it came.
pub struct Call {
    pub snapshot: Arc<Snapshot>,
    pub route: &'static Route,
    pub ids: Ids,
    pub request_id: Arc<str>,
    /// Of who asks, as far as trusted proxies tell.
    pub address: IpAddr,
    pub head: Parts,
    pub body: Body,
}

/// A request whose caller is known.
pub struct Identified {
    call: Call,
    identity: Identity,
    client: Arc<Client>,
}

/// A request whose caller may make it.
pub struct Permitted {
    call: Call,
    identity: Identity,
    grant: Grant,
}

/// A request that can be answered.
pub struct Valid {
    snapshot: Arc<Snapshot>,
    identity: Identity,
    grant: Grant,
    ids: Ids,
    request_id: Arc<str>,
    address: IpAddr,
    query: Query,
    /// What is stored will not do.
    anew: bool,
    conditions: Conditions,
}

/// Who is asking?
#[derive(Clone)]
pub struct Identify(Arc<App>);

impl AsyncPredicate<Call> for Identify {
    type Future = BoxFuture<'static, Result<Identified, BoxError>>;
    type Request = Identified;

    fn check(&mut self, call: Call) -> Self::Future {
        let app = self.0.clone();
        async move {
            let query = call.head.uri.query().unwrap_or_default();
            let Snapshot { config, issuers, .. } = &*call.snapshot;
            let identified =
                identify(&call.head.headers, query, &config.clients, issuers, app.clock.now()).await;
            match identified {
                Ok((identity, client)) => Ok(Identified { call, identity, client }),
                Err(error) => Err(count_stranger(&app, &call, error)),
            }
        }
        .map_err(|error: Error| error.into())
        .boxed()
    }
}

/// Only who fails is counted: callers behind one address with somebody who guesses are not held up.
fn count_stranger(app: &App, call: &Call, error: Error) -> Error {
    if error.kind == Kind::IdentityUnavailable {
        return error;
    }
    let rate = call.snapshot.config.callers.unauthenticated;
    match app.strangers.check(Caller::at(call.address), rate) {
        Ok(standing) => with_standings(error, &[standing]),
        Err(standing) => {
            let detail = "too many requests without a valid credential from this address";
            over_limit(detail, &standing, &[standing])
        }
    }
}

fn over_limit(detail: &'static str, over: &Standing, standings: &[Standing]) -> Error {
    let error = Error::new(Kind::QuotaExceeded, detail).violates(over.policy).retry_after(over.reset);
    with_standings(error, standings)
}

/// May they?
#[derive(Clone, Copy)]
pub struct Permit;

impl Predicate<Identified> for Permit {
    type Request = Permitted;

    fn check(&mut self, Identified { call, identity, client }: Identified) -> Result<Permitted, BoxError> {
        let config = &call.snapshot.config;
        if !call.ids.faults().is_empty() {
            // No policy can be held against an id that is none. What is wrong with the query string
            // is told along; the body stays unread.
            let faults = (call.route.parse)(&contract(&call, None)).err().unwrap_or_default();
            return Err(Error::invalid_request(faults).for_client(&client.name).into());
        }
        let grant =
            permit(&client, call.route, &call.ids, config).map_err(|error| error.for_client(&client.name))?;
        Ok(Permitted { call, identity, grant })
    }
}

fn contract<'a>(call: &'a Call, body: Option<&'a [u8]>) -> routes::Request<'a> {
    let query = call.head.uri.query().unwrap_or_default();
    routes::Request { ids: &call.ids, query, body, limits: call.snapshot.config.limits }
}

/// Not too often? Also tells the caller where it stands, on every answer from here on down.
#[derive(Clone)]
pub struct RateLimit(Arc<App>);

#[derive(Clone)]
pub struct RateLimited<S> {
    app: Arc<App>,
    inner: S,
}

impl<S> Layer<S> for RateLimit {
    type Service = RateLimited<S>;

    fn layer(&self, inner: S) -> RateLimited<S> {
        RateLimited { app: self.0.clone(), inner }
    }
}

impl<S> Service<Permitted> for RateLimited<S>
where
    S: Service<Permitted, Response = Reply, Error = BoxError, Future: Send + 'static>,
{
    type Response = Reply;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Reply, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Permitted) -> Self::Future {
        let name = request.grant.client.name.clone();
        match may_now(&self.app, &request) {
            Err(error) => async move { Err(error.for_client(&name).into()) }.boxed(),
            Ok(mut standings) => {
                let pool = UpstreamPool::of(&request);
                let answered = self.inner.call(request);
                async move {
                    let answered = answered.await.map_err(Error::from_stack);
                    let refused = answered.as_ref().err();
                    let upstream = pool.standing(refused);
                    standings.extend(upstream);
                    match answered {
                        Ok(mut reply) => {
                            reply.response.headers_mut().extend(rate_limit::headers(&standings));
                            Ok(reply)
                        }
                        Err(error) => Err(with_standings(error.for_client(&name), &standings).into()),
                    }
                }
                .boxed()
            }
        }
    }
}

/// Where the caller stands, counting this request: first the one bearer, so that one who asks too
/// often costs the others of its client nothing, then the client.
fn may_now(app: &App, request: &Permitted) -> Result<Vec<Standing>, Error> {
    let client = &request.grant.client;
    let mut standings = Vec::with_capacity(2);
    if let Some(rate) = client.subject_rate_limit
        && let Some(bearer) = request.identity.bearer(client)
    {
        let standing = app
            .subjects
            .check(bearer, rate)
            .map_err(|over| over_limit("the rate limit of this user is used up", &over, &[over]))?;
        standings.push(standing);
    }
    let Some(limiter) = request.call.snapshot.limiter(client) else {
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

fn with_standings(error: Error, standings: &[Standing]) -> Error {
    let headers = rate_limit::headers(standings);
    headers.into_iter().fold(error, |error, (name, value)| error.with_header(name, value))
}

/// The pool of the upstream's quota that a request is counted by, if it comes to a call.
struct UpstreamPool {
    snapshot: Arc<Snapshot>,
    route: &'static Route,
    account: Arc<Account>,
    bot: Option<Arc<str>>,
}

impl UpstreamPool {
    fn of(request: &Permitted) -> Self {
        Self {
            snapshot: request.call.snapshot.clone(),
            route: request.call.route,
            account: request.grant.account.clone(),
            bot: request.call.ids.bot().map(Arc::from),
        }
    }

    /// Where it stands after the request. For a caller who was sent away there is nothing left until
    /// it is told to come back: the draft wants no `Retry-After` that is earlier than `t`.
    fn standing(&self, refused: Option<&Error>) -> Option<Standing> {
        let standing = self.snapshot.upstream.standing(&self.account.id, self.route, self.bot.as_deref())?;
        let wait = refused.filter(|error| error.kind == Kind::TemporaryReducedCapacity).and_then(Error::wait);
        let (left, reset) = wait.map_or((standing.left, standing.reset), |wait| (0, wait));
        Some(Standing { left, reset, ..standing })
    }
}

/// What is it, in canonical form? Here the body is read: at last, and at most so much of it.
#[derive(Clone, Copy)]
pub struct Validate;

impl AsyncPredicate<Permitted> for Validate {
    type Future = BoxFuture<'static, Result<Valid, BoxError>>;
    type Request = Valid;

    fn check(&mut self, Permitted { mut call, identity, grant }: Permitted) -> Self::Future {
        async move {
            check_accept(&call.head.headers)?;
            let has_body = call.route.method == Method::POST;
            if has_body {
                check_media_type(&call.head.method, &call.head.headers)?;
            }
            let server = &call.snapshot.config.server;
            let body = std::mem::replace(&mut call.body, Body::empty());
            let body = read(body, server.max_request_body, server.body_timeout).await?;
            let canonical = (call.route.parse)(&contract(&call, has_body.then_some(&body)))
                .map_err(Error::invalid_request)?;
            let query = Query {
                route: call.route,
                account: grant.account.id.clone(),
                bot: call.ids.bot().map(Arc::from),
                key: Key::new(&grant.account.id, call.route, &call.ids, &canonical),
                plain: Key::plain(&grant.account.id, call.route, &call.ids, &canonical),
                asked: canonical.asked,
            };
            let anew = grant.client.may_refresh && refresh::is_asked_for(&call.head.headers);
            let conditions = Conditions::of(&call.head.method, &call.head.headers);
            Ok(Valid {
                snapshot: call.snapshot,
                identity,
                grant,
                ids: call.ids,
                request_id: call.request_id,
                address: call.address,
                query,
                anew,
                conditions,
            })
        }
        .map_err(|error: Error| error.into())
        .boxed()
    }
}

/// JSON, in no coding. What says nothing of its type is taken for JSON, but not in a QUERY, where the
/// type says what kind of query it is (RFC 10008 §2).
fn check_media_type(method: &Method, headers: &HeaderMap) -> Result<(), Error> {
    let unsupported = |name: &'static str, detail: &'static str| {
        Err(Error::new(Kind::UnsupportedMediaType, detail).with_fault(Fault::in_header(name, detail)))
    };
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return unsupported("content-type", "the body's type is another than `application/json`");
        }
    }
    if method == Method::QUERY && !headers.contains_key(header::CONTENT_TYPE) {
        return unsupported("content-type", "a QUERY says its type; it is `application/json`");
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            unsupported("content-encoding", "the body is encoded; send it as it is")
        }
        _ => Ok(()),
    }
}

/// Answers are JSON, whatever else a caller would rather have (RFC 9110 §12.5.1). Who says nothing, or
/// nothing that can be read, takes it.
fn check_accept(headers: &HeaderMap) -> Result<(), Error> {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut refused = false;
    for range in ranges.flat_map(|list| list.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refuses = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        match (media.as_str(), refuses) {
            ("*/*" | "application/*" | "application/json", false) => return Ok(()),
            _ => {
                let (kind, subtype) = media.split_once('/').unwrap_or_default();
                refused |= !kind.is_empty() && !subtype.is_empty();
            }
        }
    }
    let detail = "answers are `application/json`, which `Accept` leaves out";
    let error = || Error::new(Kind::NotAcceptable, detail).with_fault(Fault::in_header("accept", detail));
    if refused { Err(error()) } else { Ok(()) }
}

async fn read(body: Body, most: usize, within: Duration) -> Result<Bytes, Error> {
    let collected = match tokio::time::timeout(within, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => collected,
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the request body is larger than {most} bytes");
            return Err(Error::new(Kind::ContentTooLarge, detail));
        }
        Ok(Err(_)) => {
            let detail = "the request body broke off";
            return Err(Error::invalid_request(vec![Fault::at_pointer("", detail)]));
        }
        Err(_) => return Err(Error::new(Kind::RequestTimeout, "the request body took too long to arrive")),
    };
    Ok(collected.to_bytes())
}

/// The answer.
#[derive(Clone)]
pub struct Answer(Arc<App>);

impl Service<Valid> for Answer {
    type Response = Reply;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Reply, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, valid: Valid) -> Self::Future {
        let app = self.0.clone();
        answer(app, valid).map_err(BoxError::from).boxed()
    }
}

async fn answer(app: Arc<App>, valid: Valid) -> Result<Reply, Error> {
    let Valid { snapshot, identity, grant, ids, request_id, address, query, anew, conditions } = valid;
    let config = &snapshot.config;
    let fill = {
        let (upstream, query) = (snapshot.upstream.clone(), query.clone());
        // The fill is the same for everyone; who sets it off only pays for it.
        let spender = Spender::from(&*grant.client);
        move || {
            let (upstream, query, spender) = (upstream.clone(), query.clone(), spender.clone());
            async move { upstream.call(&query, &spender).await }
        }
    };
    let served = app
        .cache
        .get_or_fill(&query, config.cache.rule(query.route), config.upstream.timeout, anew, fill)
        .await;
    let outcome = served.as_ref().map_or(Outcome::Bypass, reply::outcome);
    app.metrics.cache_request(query.route, outcome);
    let served = served?;

    let asker = Asker { identity, ids, request_id, address, query, conditions, outcome };
    let mut policy = Policy { snapshot, grant };
    let response = match served {
        Served::Entry(entry, source) => loop {
            policy = policy.of_now(&app, &asker)?;
            let response = asker.shown(&app, &policy, (&entry, source)).await?;
            asker.audit(&app, &policy, response.status(), has_body(&response)).await?;
            // Making it and writing down who gets it take their time too.
            if policy.is_of_now(&app) {
                break response;
            }
        },
        Served::Large(large) => {
            policy = policy.of_now(&app, &asker)?;
            policy.may_see_unread(&asker)?;
            let response = reply::large(large, &asker.conditions);
            asker.audit(&app, &policy, response.status(), has_body(&response)).await?;
            policy = policy.of_now(&app, &asker)?;
            policy.may_see_unread(&asker)?;
            response
        }
    };
    Ok(Reply { response, client: policy.grant.client.name.clone(), outcome })
}

/// What a caller may see, by the configuration of one moment.
struct Policy {
    snapshot: Arc<Snapshot>,
    grant: Grant,
}

impl Policy {
    /// The same by the configuration of now: an answer that took its time is handed out by that.
    fn of_now(self, app: &App, asker: &Asker) -> Result<Self, Error> {
        if self.is_of_now(app) {
            return Ok(self);
        }
        let snapshot = app.snapshot();
        let client = asker.identity.client(&snapshot.config.clients, app.clock.now())?;
        let grant = permit(&client, asker.query.route, &asker.ids, &snapshot.config)?;
        Ok(Self { snapshot, grant })
    }

    fn is_of_now(&self, app: &App) -> bool {
        app.is_current(&self.snapshot)
    }

    /// Whether a body may be handed out that nobody has looked into.
    fn may_see_unread(&self, asker: &Asker) -> Result<(), Error> {
        match self.snapshot.projection(&self.grant.client, asker.query.route)? {
            Some(_) => Err(Unreadable::TooLarge.into()),
            None => self.grant.may_see_unread(),
        }
    }
}

/// Who asked what, and how.
struct Asker {
    identity: Identity,
    ids: Ids,
    request_id: Arc<str>,
    address: IpAddr,
    query: Query,
    conditions: Conditions,
    outcome: Outcome,
}

impl Asker {
    /// What the policy leaves of an entry.
    async fn shown(
        &self,
        app: &App,
        policy: &Policy,
        (entry, source): (&Arc<Entry>, Source),
    ) -> Result<Response, Error> {
        let query = &self.query;
        let projection = policy.snapshot.projection(&policy.grant.client, query.route)?.cloned();
        // Of a window that is shown without them, it does not matter whose the other rows are.
        if !projection.as_ref().is_some_and(|projection| projection.chooses_rows()) {
            policy.grant.may_see(&entry.bots)?;
        }
        let status = entry.answer.status;
        // Only a 200 is read; any other success may be about anybody.
        if entry.is_opaque || status.is_success() && status != StatusCode::OK {
            policy.grant.may_see_unread()?;
        }
        let now = app.clock.moment();
        let Some(projection) = projection else {
            return Ok(reply::response(&app.cache, &query.key, (entry, source), &self.conditions, now).await);
        };
        let id = *projection.id();
        let project = move |answer: &Whole| Ok(projection.apply(&answer.body, answer.status.is_success())?);
        let (key, entry) = app.cache.projected(&query.key, (entry, source), &id, project).await?;
        Ok(reply::response(&app.cache, &key, (&entry, source), &self.conditions, now).await)
    }

    /// Writes down who is handed an answer, if it has a body.
    async fn audit(
        &self,
        app: &App,
        policy: &Policy,
        status: StatusCode,
        has_body: bool,
    ) -> Result<(), Error> {
        let audit = &policy.snapshot.audit;
        if !audit.is_on() || !has_body {
            return Ok(());
        }
        let Grant { client, account } = &policy.grant;
        let window = match self.query.asked {
            Asked::Window { start, end, .. } => Some([rfc3339(start), rfc3339(end)]),
            _ => None,
        };
        let record = Record {
            time: rfc3339(app.clock.now()),
            request_id: &self.request_id,
            client: &client.name,
            who: &self.identity.who(),
            address: self.address,
            route: self.query.route.name.as_str(),
            account: &account.id,
            bot: self.query.bot.as_deref(),
            id: self.query.asked.id(),
            window,
            status: status.as_u16(),
            outcome: self.outcome.as_str(),
            redaction: client.redact.iter().map(|redaction| &*redaction.name).collect(),
            own_rows_only: client.filter_rows,
        };
        audit.record(&record).await
    }
}

fn has_body(response: &Response) -> bool {
    response.body().size_hint().exact() != Some(0)
}

fn rfc3339(time: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(time.0).unwrap_or_default().to_string()
}
