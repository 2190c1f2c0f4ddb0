//! Who is asking?

use super::check::{Check, Checking};
use super::rate_limit::{over_limit, with_standings};
use super::{Call, Identified};
use crate::access::identify::{bearer_of, presented};
use crate::access::rate_limit::Caller;
use crate::error::{Error, Kind};

#[derive(Clone, Copy)]
pub struct Identify;

impl Check<Box<Call>> for Identify {
    type Checked = Identified;

    fn check(&self, call: Box<Call>) -> Checking<Identified> {
        let query = call.head.uri.query().unwrap_or_default();
        let presented = match presented(&call.head.headers, query) {
            Ok(presented) => presented,
            Err(error) => return Checking::Done(Err(count_stranger(&call, error))),
        };
        match (presented.as_key(&call.snapshot.config.clients, call.now.wall), presented.token()) {
            (Ok((identity, client)), _) => Checking::Done(Ok(Identified { call, identity, client })),
            (Err(error), None) => Checking::Done(Err(count_stranger(&call, error))),
            // Its issuer's keys may have to be fetched first.
            (Err(_), Some(token)) => Checking::of(by_token(token.to_vec(), call)),
        }
    }
}

async fn by_token(token: Vec<u8>, mut call: Box<Call>) -> Result<Identified, Error> {
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
fn count_stranger(call: &Call, error: Error) -> Error {
    if error.kind == Kind::IdentityUnavailable {
        return error;
    }
    let rate = call.snapshot.config.callers.unauthenticated;
    match call.app.strangers.check(Caller::at(call.address), rate, call.app.clock.uptime()) {
        Ok(standing) => with_standings(error, standing.into()),
        Err(standing) => {
            let detail = "too many requests without a valid credential from this address";
            over_limit(detail, &standing, standing.into())
        }
    }
}
