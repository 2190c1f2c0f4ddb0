//! May they?

use std::sync::Arc;

use tower::BoxError;
use tower::filter::Predicate;

use super::{Identified, Permitted};
use crate::access::permit::{Grant, permit};
use crate::config::{Client, Config};
use crate::error::Error;
use crate::routes::{self, Route};

#[derive(Clone, Copy)]
pub struct Permit;

impl Predicate<Identified> for Permit {
    type Request = Permitted;

    fn check(&mut self, Identified { call, identity, client }: Identified) -> Result<Permitted, BoxError> {
        let grant = allowed(&client, call.route, &call.contract(None), &call.snapshot.config)
            .map_err(|error| error.for_client(&client.name))?;
        Ok(Permitted { call, identity, grant })
    }
}

/// Whether a client may make a request, by its path. `request` is without its body: that stays unread.
pub fn allowed(
    client: &Arc<Client>,
    route: &Route,
    request: &routes::Request<'_>,
    config: &Config,
) -> Result<Grant, Error> {
    if !request.ids.are_well_formed() {
        // No policy can be held against an id that is none. What is wrong with the query string is
        // told along.
        return Err(Error::invalid_request((route.parse)(request).err().unwrap_or_default()));
    }
    permit(client, route, request.ids, config)
}
