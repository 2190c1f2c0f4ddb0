//! What a client may see. Denied unless allowed: by route, by account, by bot.

use std::sync::Arc;

use crate::config::{Account, Bots, Client, Config};
use crate::error::{Error, Kind};
use crate::routes::{Ids, Route};

/// Leave for a client to ask about an account.
#[derive(Clone, Debug)]
pub struct Grant {
    pub client: Arc<Client>,
    pub account: Arc<Account>,
}

impl Grant {
    /// Whether a body that names `bots` as its own may go to this client. A client of some bots
    /// asks under one of them, but only the answer tells whose conversation it was.
    pub fn may_see(&self, bots: &[Box<str>]) -> Result<(), Error> {
        // Without a look at the names where any will do: most hits are of such clients.
        let may = self.client.bots == Bots::Any || bots.iter().all(|bot| self.client.bots.include(bot));
        if may { Ok(()) } else { Err(forbidden()) }
    }

    /// Whether a body may go to this client that nobody could look into: for its size, or for what it
    /// is.
    pub fn may_see_unread(&self) -> Result<(), Error> {
        if self.client.bots == Bots::Any {
            return Ok(());
        }
        Err(Error::new(
            Kind::UpstreamInvalid,
            "the upstream's answer cannot be looked into, and this client may see some bots only",
        ))
    }
}

/// One answer for what is not allowed and for what does not exist: nobody learns what is configured.
pub fn forbidden() -> Error {
    Error::new(Kind::Forbidden, "this client may not use this route, account or bot")
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
        return Err(forbidden());
    }
    // A whole account's window holds the rows of all its bots.
    let bot = ids.bot();
    let bot_allowed = match bot {
        Some(bot) => client.bots.include(bot),
        // Those of others are taken out before the client sees it, if it is so configured.
        None => client.bots == Bots::Any || client.filter_rows,
    };
    if !bot_allowed {
        return Err(forbidden());
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
    account.filter(|account| account.credential(route.scope, bot).is_some()).ok_or_else(forbidden)
}
