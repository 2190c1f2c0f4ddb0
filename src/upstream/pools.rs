//! The pools of all accounts. They outlive every configuration, because the upstream knows nothing of a reload. A call
//! of an older configuration uses the same pools, in the shape of the newest one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bots::BotPools;
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

/// The pools of one account.
pub struct AccountPools {
    pub whole: Arc<Pool>,
    pub bots: BotPools,
}

impl AccountPools {
    pub fn waiting(&self) -> usize {
        self.whole.waiting() + self.bots.all().iter().map(|(_, pool)| pool.waiting()).sum::<usize>()
    }
}

/// The pools of all accounts, by account.
pub struct Pools {
    accounts: Mutex<HashMap<Arc<str>, Arc<AccountPools>>>,
    clock: Clock,
}

impl Pools {
    pub fn new(clock: Clock) -> Self {
        Self { accounts: Mutex::default(), clock }
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<AccountPools>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pools of an account, from now on in this shape. Calls that were made still count, and calls that wait keep
    /// their places, even if the account was absent for a while.
    pub fn of(&self, account: &Arc<str>, shape: Shape) -> Arc<AccountPools> {
        let mut accounts = self.accounts();
        if let Some(pools) = accounts.get(account) {
            shape.reshape(&pools.whole, None);
            pools.bots.reshape(shape);
            return pools.clone();
        }
        let whole = shape.new_pool(None, &self.clock);
        let pools = Arc::new(AccountPools { whole, bots: BotPools::new(shape, self.clock.clone()) });
        accounts.insert(account.clone(), pools.clone());
        pools
    }

    /// Removes pools that count no call and belong to no account of the configuration.
    pub fn sweep(&self) {
        let mut accounts = self.accounts();
        accounts.values().for_each(|pools| pools.bots.sweep());
        accounts.retain(|_, pools| {
            Arc::strong_count(pools) > 1 || !pools.whole.is_idle() || !pools.bots.is_empty()
        });
    }
}
