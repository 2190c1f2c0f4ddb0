//! What a client may see. Denied unless allowed: by route, by account, by bot.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::config::{Account, Bots, Client, Config, UnprovenSessions};
use crate::error::cause::Cause;
use crate::error::{Error, Kind};
use crate::routes::{Ids, Route, RouteName};

/// After the upstream's own 503, whose `Retry-After` is not passed on either.
const WAIT_AFTER_503: Duration = Duration::from_secs(5);

/// Leave for a client to ask about an account.
#[derive(Clone, Debug)]
pub struct Grant {
    pub client: Arc<Client>,
    pub account: Arc<Account>,
}

impl Grant {
    /// Whether the client is limited to some bots.
    pub fn is_limited(&self) -> bool {
        self.client.bots != Bots::Any
    }

    /// Whether a body that names `bots` as its own may go to this client. A client of some bots
    /// asks under one of them, but only the answer says whose conversation it was.
    pub fn may_see(&self, bots: &[Box<str>]) -> Result<(), Error> {
        // Without a look at the names where any will do: most hits are of such clients.
        let may = !self.is_limited() || bots.iter().all(|bot| self.client.bots.include(bot));
        if may { Ok(()) } else { Err(forbidden().because(Cause::BotDenied)) }
    }

    /// Whether a transcript may go to this client whose session is known to be of `bots`; of none, if no answer has
    /// said. A session is its contact-centre instance's and its automation bots', and shown to a client of any of
    /// them.
    pub fn may_see_transcript(&self, bots: &[Box<str>]) -> Result<(), Error> {
        let may = match bots {
            _ if !self.is_limited() => true,
            [] => self.account.unproven_sessions == UnprovenSessions::Pass,
            bots => bots.iter().any(|bot| self.client.bots.include(bot)),
        };
        let cause = if bots.is_empty() { Cause::SessionUnproven } else { Cause::BotDenied };
        if may { Ok(()) } else { Err(forbidden().because(cause)) }
    }

    /// What the client gets in place of an error of the upstream's, where it may not see all that is in its body. A
    /// client limited to some bots does not learn which conversations and sessions of other bots there are.
    pub fn refused_upstream(&self, route: &Route, status: StatusCode) -> Error {
        match route.name {
            RouteName::Conversation | RouteName::ConversationDetails
                if self.is_limited() && status.is_client_error() =>
            {
                forbidden().because(Cause::UpstreamError)
            }
            _ if status == StatusCode::SERVICE_UNAVAILABLE => {
                Error::upstream(status).retry_after(WAIT_AFTER_503)
            }
            _ => Error::upstream(status),
        }
    }
}

/// One answer for what is not allowed and for what does not exist: nobody learns what is configured.
pub fn forbidden() -> Error {
    Error::new(
        Kind::Forbidden,
        "this client may not use this route, account or bot, or what it asks for is not one of its bots'",
    )
}

/// Decides from the path alone, before a byte of the body is read, which account a client may ask about.
/// `ids` must be well-formed.
pub fn permit<'a>(
    client: &Client,
    route: &Route,
    ids: &Ids,
    config: &'a Config,
) -> Result<&'a Arc<Account>, Error> {
    if !client.may_use(route) {
        return Err(forbidden().because(Cause::RouteDenied));
    }
    // A whole account's window holds the rows of all its bots.
    let bot = ids.bot();
    let bot_allowed = match bot {
        Some(bot) => client.bots.include(bot),
        // Those of others are taken out before the client sees it, if it is so configured.
        None => client.bots == Bots::Any || client.filter_rows,
    };
    if !bot_allowed {
        return Err(forbidden().because(Cause::BotDenied));
    }
    let theirs = |account: &&Arc<Account>| client.accounts.contains(&account.id);
    let accounts = || config.accounts.iter().filter(theirs);
    let account = match (ids.account(), bot) {
        (Some(id), _) => accounts().find(|account| *account.id == *id),
        // A bot that an account names is that account's, whoever else takes any.
        (None, Some(bot)) => {
            let names = |account: &&Arc<Account>| account.bots != Bots::Any && account.bots.include(bot);
            match config.accounts.iter().find(names) {
                Some(account) => Some(account).filter(theirs),
                None => accounts().find(|account| account.bots == Bots::Any),
            }
        }
        (None, None) => None,
    };
    account
        .filter(|account| account.credential(route.scope, bot).is_some())
        .ok_or_else(|| forbidden().because(Cause::AccountDenied))
}
