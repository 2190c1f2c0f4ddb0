//! May they?

use tower::BoxError;
use tower::filter::Predicate;

use super::{Identified, Permitted};
use crate::access::permit::permit;
use crate::error::Error;

#[derive(Clone, Copy)]
pub struct Permit;

impl Predicate<Identified> for Permit {
    type Request = Permitted;

    fn check(&mut self, Identified { call, identity, client }: Identified) -> Result<Permitted, BoxError> {
        let config = &call.snapshot.config;
        if !call.ids.are_well_formed() {
            // No policy can be held against an id that is none. What is wrong with the query string
            // is told along; the body stays unread.
            let faults = (call.route.parse)(&call.contract(None)).err().unwrap_or_default();
            return Err(Error::invalid_request(faults).for_client(&client.name).into());
        }
        let grant =
            permit(&client, call.route, &call.ids, config).map_err(|error| error.for_client(&client.name))?;
        Ok(Permitted { call, identity, grant })
    }
}
