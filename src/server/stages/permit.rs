//! May they?

use std::sync::Arc;

use super::check::{Check, Checking};
use super::rate_limit::with_limit_statuses;
use super::{Admitted, Limited};
use crate::access::permit::{Grant, permit};
use crate::config::{Account, Client, Config};
use crate::error::{Error, Kind};
use crate::routes::{self, Route};

#[derive(Clone, Copy)]
pub struct Permit;

impl Check<Limited> for Permit {
    type Checked = Admitted;

    fn check(&self, Limited { call, identity, client, limit_statuses }: Limited) -> Checking<Admitted> {
        let account = allowed(&client, call.route, &call.contract(None), &call.snapshot.config).cloned();
        Checking::Done(match account {
            Ok(account) => Ok(Admitted { call, identity, grant: Grant { client, account }, limit_statuses }),
            Err(mut error) => {
                if error.kind == Kind::InvalidRequest {
                    error = call.without_credentials(None).err().unwrap_or(error);
                }
                Err(with_limit_statuses(error.for_client(&client.name), limit_statuses))
            }
        })
    }
}

/// The account that a client may make a request about, by its path. `request` is without its body: that
/// stays unread.
pub fn allowed<'a>(
    client: &Client,
    route: &Route,
    request: &routes::Request<'_>,
    config: &'a Config,
) -> Result<&'a Arc<Account>, Error> {
    if !request.ids.are_well_formed() {
        // No policy can be held against an id that is none. What is wrong with the query string is
        // told along.
        return Err(Error::invalid_request((route.parse)(request).err().unwrap_or_default()));
    }
    permit(client, route, request.ids, config)
}
