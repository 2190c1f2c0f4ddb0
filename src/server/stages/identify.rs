//! Who is asking?

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;

use super::check::{Check, Checking};
use super::rate_limit::{over_limit, with_limit_statuses};
use super::{ClientRequest, Identified};
use crate::access::identify::{bearer_of, presented};
use crate::access::rate_limit::Caller;
use crate::app::{App, Snapshot};
use crate::error::{Error, Kind};
use crate::overload::waiting::with_place;

#[derive(Clone, Copy)]
pub struct Identify;

impl Check<Box<ClientRequest>> for Identify {
    type Checked = Identified;

    fn check(&self, call: Box<ClientRequest>) -> Checking<Identified> {
        let query = call.head.uri.query().unwrap_or_default();
        let presented = match presented(&call.head.headers, query) {
            Ok(presented) => presented,
            Err(error) => return Checking::Done(Err(count_stranger(&call, error))),
        };
        match (presented.as_key(&call.snapshot.config.clients, call.now.wall), presented.token()) {
            (Ok((identity, client)), _) => Checking::Done(Ok(Identified { call, identity, client })),
            (Err(error), None) => Checking::Done(Err(count_stranger(&call, error))),
            // Its issuer's keys may have to be fetched first.
            (Err(_), Some(token)) => {
                let (app, most) = (call.app.clone(), call.snapshot.config.server.most_waiting);
                let place = move || app.waiting.begin(&None, most);
                Checking::of(with_place(by_token(token.to_vec(), call), Duration::ZERO, place))
            }
        }
    }
}

async fn by_token(token: Vec<u8>, mut call: Box<ClientRequest>) -> Result<Identified, Error> {
    let snapshot = &call.snapshot;
    match bearer_of(&token, &snapshot.config.clients, &snapshot.issuers, &call.app.clock).await {
        Ok((identity, client)) => {
            call.now = call.app.clock.moment();
            Ok(Identified { call, identity, client })
        }
        Err(error) => Err(count_stranger(&call, error)),
    }
}

/// Only who fails is counted: callers behind one address with somebody who guesses are not held up.
fn count_stranger(call: &ClientRequest, error: Error) -> Error {
    if error.kind == Kind::IdentityUnavailable {
        return error;
    }
    count(&call.app, &call.snapshot, call.address, error)
}

/// Counts a request that is refused before it is asked whose it is, unless it brings a valid key: a line of the
/// log is written for it like for any other. Whether a token is valid is not looked at for it.
pub fn count_unless_known(
    app: &App,
    snapshot: &Snapshot,
    headers: &HeaderMap,
    address: IpAddr,
    error: Error,
) -> Error {
    let clients = &snapshot.config.clients;
    match presented(headers, "").and_then(|presented| presented.as_key(clients, app.clock.now())) {
        Ok(_) => error,
        // The error of its stream is all that it gets, however often.
        Err(_) if error.is_malformed() => {
            let _ = count(app, snapshot, address, error.clone());
            error
        }
        Err(_) => count(app, snapshot, address, error),
    }
}

fn count(app: &App, snapshot: &Snapshot, address: IpAddr, error: Error) -> Error {
    let rate = snapshot.config.callers.unauthenticated;
    match app.unauthenticated.check(Caller::at(address), rate, app.clock.uptime()) {
        Ok(limit_status) => with_limit_statuses(error, limit_status.into()),
        Err(limit_status) => {
            let detail = "too many requests without a valid credential from this address";
            over_limit(detail, &limit_status, limit_status.into())
        }
    }
}
