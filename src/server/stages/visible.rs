//! Whether an answer may be handed out, now that it has come and says whose it is.

use http::StatusCode;

use crate::access::permit::Grant;
use crate::cache::Entry;
use crate::error::{Error, Kind};
use crate::routes::{Route, RouteName};

/// Whether `entry` may go to whoever is granted this. `is_projected` says that the client is shown a part of it
/// only, `chooses_rows` that those parts are rows.
///
/// A client that may not see everything gets what was read, and nothing else: not another shape, which policy
/// cannot be held against, nor what is not proven to be what was asked for, nor an error's body.
pub fn may_see(
    grant: &Grant,
    route: &Route,
    entry: &Entry,
    is_projected: bool,
    chooses_rows: bool,
) -> Result<(), Error> {
    let status = entry.answer.status;
    if grant.is_limited() || is_projected {
        match (status.is_success(), entry.is_read()) {
            (true, true) => {}
            (true, false) => return Err(unread()),
            (false, _) => return Err(grant.refused_upstream(route, status)),
        }
    }
    match route.name {
        RouteName::ConversationDetails => grant.may_see_transcript(&entry.bots),
        // Of a window that is shown without them, it does not matter whose the other rows are.
        _ if chooses_rows => Ok(()),
        _ => grant.may_see(&entry.bots),
    }
}

/// The same for an answer that nobody has looked into, for its size.
pub fn may_see_unread(
    grant: &Grant,
    route: &Route,
    status: StatusCode,
    is_projected: bool,
) -> Result<(), Error> {
    match grant.is_limited() || is_projected {
        false => Ok(()),
        true if status.is_success() => Err(unread()),
        true => Err(grant.refused_upstream(route, status)),
    }
}

fn unread() -> Error {
    Error::new(
        Kind::UpstreamInvalid,
        "the upstream's answer cannot be looked into, or does not prove to be what was asked for, and this client \
         may not see everything",
    )
}
