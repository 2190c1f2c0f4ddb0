//! Whose transcript it is. A transcript names no bot, and whether the upstream holds a session to the bot in the
//! path, the vendor has not said. So other answers have to have told whose session it is.

use http::Method;

use super::served::served;
use super::validate::canonical;
use super::{Admitted, ClientRequest, Valid};
use crate::access::permit::Grant;
use crate::app::{App, Snapshot};
use crate::cache::{Served, Source};
use crate::error::{Error, Kind};
use crate::lifecycle::sightings;
use crate::routes::{self, Query, Requested, Transcript};

/// Refuses a transcript to a client limited to some bots unless its session is known to be of one of them. Where
/// nobody has said, the record of the conversation that the request names is asked for first: at most one call.
pub async fn check(valid: &Valid) -> Result<(), Error> {
    let Valid { admitted: Admitted { call, grant, .. }, query, .. } = valid;
    let ClientRequest { app, snapshot, .. } = &**call;
    let Some(transcript) = has_to_be_known(app, snapshot, grant, query)? else { return Ok(()) };
    let mut bots = app.cache.bots(query);
    if bots.is_empty()
        && let Some(record) = record(valid, transcript)
    {
        ask(valid, &record).await?;
        bots = app.cache.bots(query);
    }
    grant.may_see_transcript(&bots)
}

/// What [`check`] would say, without a call: `true` if it would ask for the record of the conversation first.
pub fn foresee(app: &App, snapshot: &Snapshot, grant: &Grant, query: &Query) -> Result<bool, Error> {
    let Some(transcript) = has_to_be_known(app, snapshot, grant, query)? else { return Ok(false) };
    let bots = app.cache.bots(query);
    if bots.is_empty() && transcript.conversation.is_some() {
        return Ok(true);
    }
    grant.may_see_transcript(&bots).map(|()| false)
}

/// The transcript that a query asks for, if it has to be known whose it is.
fn has_to_be_known<'a>(
    app: &App,
    snapshot: &Snapshot,
    grant: &Grant,
    query: &'a Query,
) -> Result<Option<&'a Transcript>, Error> {
    let Requested::Transcript(transcript) = &query.requested else { return Ok(None) };
    let is_projected = snapshot.projection(&grant.client, query.route)?.is_some();
    // A session proves itself. Which session is a conversation's or a call's, other answers have to say.
    let is_needed = grant.is_limited() || is_projected && transcript.kind != sightings::IdKind::Session;
    // What is stored is stored under its own bot.
    Ok((is_needed && !app.cache.has(query)).then_some(transcript))
}

/// The query for the record of the conversation that a request for a transcript names.
fn record(valid: &Valid, transcript: &Transcript) -> Option<Query> {
    let Admitted { call, grant, .. } = &valid.admitted;
    let target = routes::conversation_path(call.ids.bot()?, transcript.conversation.as_deref()?)?;
    let routes::Found::Route(route, ids) = routes::find(&Method::GET, &target) else { return None };
    // Without an app for it there is nobody to ask.
    grant.account.credential(route.scope, ids.bot())?;
    let limits = call.snapshot.config.limits;
    canonical(&grant.account, route, &routes::Request { ids: &ids, query: "", body: None, limits }).ok()
}

/// Has the record's answer leave what it says of the conversation's session and bot. An error is one that may be
/// gone when the caller asks again.
async fn ask(valid: &Valid, record: &Query) -> Result<(), Error> {
    let Admitted { call, grant, .. } = &valid.admitted;
    match served(call, grant, record, false).await {
        // What it said may have been forgotten since.
        Ok(Served::Entry(entry, Source::Hit { .. } | Source::Stale { .. })) => {
            call.app.cache.note(record, &entry);
            Ok(())
        }
        Ok(Served::Entry(entry, _)) if entry.answer.status.is_server_error() => {
            Err(grant.refused_upstream(record.route, entry.answer.status))
        }
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.kind,
                Kind::TemporaryReducedCapacity
                    | Kind::UpstreamTimeout
                    | Kind::UpstreamUnreachable
                    | Kind::NotCached
            ) =>
        {
            Err(error)
        }
        Err(_) => Ok(()),
    }
}
