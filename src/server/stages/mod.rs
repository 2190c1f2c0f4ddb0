//! The way of a request, read from top to bottom. Each stage is tower middleware that takes what
//! the one above has established and hands on more: a request cannot reach the cache unidentified,
//! because there is no value of the type the cache's stage takes.

mod check;
mod identify;
pub mod owner;
pub mod permit;
mod rate_limit;
mod respond;
mod served;
pub mod validate;
pub mod visible;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, FutureExt, Ready, ready};
use http::request::Parts;
use sync_wrapper::SyncWrapper;
use tower::{Service, ServiceBuilder};

use self::check::CheckLayer;
use self::identify::Identify;
pub use self::identify::count_unless_known;
use self::permit::Permit;
use self::rate_limit::RateLimit;
use self::respond::Respond;
use self::validate::Validate;
use crate::access::identify::{CallerIdentity, presented};
use crate::access::leaked;
use crate::access::permit::Grant;
use crate::app::{App, Snapshot};
use crate::clock::Moment;
use crate::config::Client;
use crate::error::Error;
use crate::error::calls::CallsMade;
use crate::fetch::limit_status::LimitStatuses;
use crate::http::request_id::RequestId;
use crate::observe::trace::Trace;
use crate::observe::upstream_calls::UpstreamCalls;
use crate::overload::shares::Who;
use crate::overload::waiting::Place;
use crate::reply::{Conditions, Reply};
use crate::routes::{self, Ids, Query, Route};
use crate::server::guard;

/// The typed stack, in the order in which a request goes through it. It holds nothing: all that a
/// stage needs comes with the call.
pub fn stack() -> impl Service<Box<ClientRequest>, Response = Reply, Error = Error, Future = Outcome<Reply>> {
    ServiceBuilder::new()
        .layer(CheckLayer(Identify)) // ClientRequest -> Identified: whose credential it is
        .layer(CheckLayer(RateLimit)) // Identified    -> Limited:    not too often; what is refused below counts too
        .layer(CheckLayer(Permit)) //    Limited       -> Admitted:   route, account and bot are allowed
        .layer(CheckLayer(Validate)) //  Admitted      -> Valid:      the body is read, checked, made canonical
        .service(Respond) //             Valid         -> Reply:      out of the cache, or filled
}

/// A request for a route, under the configuration of the moment it came.
pub struct ClientRequest {
    pub app: Arc<App>,
    pub snapshot: Arc<Snapshot>,
    pub route: &'static Route,
    pub ids: Ids,
    pub request_id: RequestId,
    pub trace: Option<Arc<Trace>>,
    /// Made by the first thing that may come to a call.
    pub upstream_calls: OnceLock<Arc<UpstreamCalls>>,
    /// Of who asks, as far as trusted proxies tell.
    pub address: IpAddr,
    /// When it came.
    pub now: Moment,
    pub head: Parts,
    /// Is read by one stage alone.
    pub body: SyncWrapper<Body>,
}

impl ClientRequest {
    /// Whether its end is still to come, of a request that must have no content.
    fn is_open(&mut self) -> bool {
        guard::is_open(&self.head.method, self.head.version, self.body.get_mut())
    }

    /// The calls to the upstream that it has set off so far.
    fn calls_made(&self) -> Option<CallsMade> {
        self.upstream_calls.get().and_then(|calls| calls.made())
    }

    /// The request as its route sees it.
    fn contract<'a>(&'a self, body: Option<&'a [u8]>) -> routes::Request<'a> {
        let query = self.head.uri.query().unwrap_or_default();
        routes::Request { ids: &self.ids, query, body, limits: self.snapshot.config.limits }
    }

    /// Refuses a request that would take a credential upstream, or that would be told it in its faults.
    fn without_credentials(&self, body: Option<&[u8]>) -> Result<(), Error> {
        let presented = presented(&self.head.headers, "").ok();
        let query = self.head.uri.query().unwrap_or_default();
        let presented = presented.map(|presented| presented.bytes());
        let sent = leaked::Sent { ids: &self.ids, query, body, presented };
        match leaked::credentials(&self.snapshot.config.clients, sent) {
            found if found.is_empty() => Ok(()),
            found => Err(Error::invalid_request(found)),
        }
    }
}

/// A request whose caller is known. The call is boxed: it goes from hand to hand, and is large.
pub struct Identified {
    call: Box<ClientRequest>,
    identity: CallerIdentity,
    client: Arc<Client>,
}

/// A request whose caller is within its rate limits. Whatever becomes of it, the caller is told where it stands.
pub struct Limited {
    call: Box<ClientRequest>,
    identity: CallerIdentity,
    client: Arc<Client>,
    limit_statuses: LimitStatuses,
}

/// A request that its caller may make now.
pub struct Admitted {
    call: Box<ClientRequest>,
    identity: CallerIdentity,
    grant: Grant,
    limit_statuses: LimitStatuses,
}

impl Admitted {
    /// Whose shares of what is bounded it takes.
    fn who(&self) -> Who {
        Some(self.grant.client.name.clone())
    }

    /// A place to wait in, out of the client's share.
    fn begin_to_wait(&self) -> Result<Place, Error> {
        let most = self.call.snapshot.config.server.most_waiting;
        self.call.app.waiting.begin(&self.who(), most)
    }
}

/// A request that can be answered.
pub struct Valid {
    admitted: Admitted,
    query: Query,
    /// The body as it was sent.
    body: Option<Bytes>,
    /// What is stored will not do.
    revalidate: bool,
    conditions: Conditions,
}

/// What a stage comes to: at once on the way of a hit, which then needs no box, or later.
pub type Outcome<T> = Either<Ready<Result<T, Error>>, BoxFuture<'static, Result<T, Error>>>;

fn at_once<T>(outcome: Result<T, Error>) -> Outcome<T> {
    Either::Left(ready(outcome))
}

fn later<T>(work: impl Future<Output = Result<T, Error>> + Send + 'static) -> Outcome<T> {
    Either::Right(work.boxed())
}
