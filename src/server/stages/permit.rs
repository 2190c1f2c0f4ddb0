//! May they?

use std::sync::Arc;

use super::check::Check;
use super::{Identified, Outcome, Permitted, at_once};
use crate::access::permit::{Grant, permit};
use crate::config::{Client, Config};
use crate::error::Error;
use crate::routes::{self, Route};

#[derive(Clone, Copy)]
pub struct Permit;

impl Check<Identified> for Permit {
    type Checked = Permitted;

    fn check(&self, Identified { call, identity, client }: Identified) -> Outcome<Permitted> {
        let grant = allowed(&client, call.route, &call.contract(None), &call.snapshot.config);
        at_once(match grant {
            Ok(grant) => Ok(Permitted { call, identity, grant }),
            Err(error) => Err(error.for_client(&client.name)),
        })
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
