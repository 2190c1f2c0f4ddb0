//! What a configuration makes of the pools of an account.

use std::sync::Arc;

use super::broker::QuotaShares;
use super::pool::Pool;
use crate::clock::Clock;
use crate::config::{self, Account, Bots, Client, Clients, Fairness, Lane};
use crate::routes::{Base, ROUTES};

/// What a configuration says about the pools of an account.
pub struct Shape {
    account: Arc<Account>,
    /// The clients that may use the account.
    clients: Vec<Arc<Client>>,
    fairness: Fairness,
    max_waiting: usize,
    /// The most bots that have a pool without being named in the configuration.
    pub max_bots: usize,
}

impl Shape {
    pub fn new(account: &Arc<Account>, clients: &Clients, config: &config::Upstream) -> Self {
        let of_account = clients.iter().filter(|client| client.accounts.contains(&account.id));
        Self {
            account: account.clone(),
            clients: of_account.cloned().collect(),
            fairness: config.fairness,
            max_waiting: config.max_waiting,
            max_bots: config.max_bots,
        }
    }

    /// Makes the pool of the whole account, or of a bot.
    pub fn new_pool(&self, bot: Option<&str>, clock: &Clock) -> Arc<Pool> {
        let quota = &self.account.quota;
        let rates = if bot.is_some() { &quota.bot } else { &quota.account };
        Pool::new(rates, self.shares(bot), self.max_waiting, clock.clone())
    }

    /// Gives this shape to a pool.
    pub fn reshape(&self, pool: &Arc<Pool>, bot: Option<&str>) {
        let quota = &self.account.quota;
        let rates = if bot.is_some() { &quota.bot } else { &quota.account };
        pool.reshape(rates, self.shares(bot), self.max_waiting);
    }

    /// How the pool of a bot, or of the whole account, is shared: among the clients that may make calls that it counts.
    fn shares(&self, bot: Option<&str>) -> QuotaShares {
        let base = if bot.is_some() { Base::Automation } else { Base::ContactCenter };
        let may_call = |client: &Client| uses(client, base) && bot.is_none_or(|bot| client.bots.include(bot));
        let weights = |lane: Lane| {
            let of_lane = self.clients.iter().filter(move |client| client.lane == lane && may_call(client));
            of_lane.map(|client| client.weight)
        };
        QuotaShares {
            interactive: weights(Lane::Interactive).sum(),
            background: weights(Lane::Background).sum(),
            heaviest: weights(Lane::Interactive).max().unwrap_or(0),
            fairness: self.fairness,
        }
    }

    /// Whether the configuration names a bot. Such a bot is not invented, and always has a pool.
    pub fn names(&self, bot: &str) -> bool {
        let is_named = |bots: &Bots| *bots != Bots::Any && bots.include(bot);
        is_named(&self.account.bots)
            || self.clients.iter().any(|client| is_named(&client.bots))
            || self.account.credentials.iter().any(|credential| is_named(&credential.bots))
    }

    /// How many bots that are not named one client may bring. All clients that may ask for any bot have the same share.
    pub fn bots_of_a_client(&self) -> usize {
        let any = |client: &&Arc<Client>| client.bots == Bots::Any && uses(client, Base::Automation);
        (self.max_bots / self.clients.iter().filter(any).count().max(1)).max(1)
    }
}

fn uses(client: &Client, base: Base) -> bool {
    ROUTES.iter().any(|route| route.base == base && client.may_use(route))
}
