//! The pools of all accounts. They outlive every configuration, for the upstream knows nothing of a reload: a
//! call of an older configuration finds the same pools, in the shape of the newest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bots::BotPools;
use super::broker::QuotaShares;
use super::pool::Pool;
use crate::clock::Clock;
use crate::config::{self, Account, Bots, Client, Clients, Fairness, Lane};
use crate::routes::{Base, ROUTES};

/// What one configuration says of an account's pools.
pub struct Shape {
    account: Arc<Account>,
    /// Those who may ask for something of it.
    clients: Vec<Arc<Client>>,
    fairness: Fairness,
    max_waiting: usize,
    /// Bots that the configuration does not name and whose calls are counted at a time.
    pub max_bots: usize,
}

impl Shape {
    pub fn new(account: &Arc<Account>, clients: &Clients, config: &config::Upstream) -> Self {
        let theirs = clients.iter().filter(|client| client.accounts.contains(&account.id));
        Self {
            account: account.clone(),
            clients: theirs.cloned().collect(),
            fairness: config.fairness,
            max_waiting: config.max_waiting,
            max_bots: config.max_bots,
        }
    }

    /// A pool of the whole account, or of a bot.
    pub fn new_pool(&self, bot: Option<&str>, clock: &Clock) -> Arc<Pool> {
        let quota = &self.account.quota;
        let rates = if bot.is_some() { &quota.bot } else { &quota.account };
        Pool::new(rates, self.shares(bot), self.max_waiting, clock.clone())
    }

    /// Gives a pool this shape.
    pub fn reshape(&self, pool: &Arc<Pool>, bot: Option<&str>) {
        let quota = &self.account.quota;
        let rates = if bot.is_some() { &quota.bot } else { &quota.account };
        pool.reshape(rates, self.shares(bot), self.max_waiting);
    }

    /// How the pool of a bot is shared, or that of the whole account: among those who may make calls that
    /// it counts.
    fn shares(&self, bot: Option<&str>) -> QuotaShares {
        let base = if bot.is_some() { Base::Automation } else { Base::ContactCenter };
        let may_call = |client: &Client| uses(client, base) && bot.is_none_or(|bot| client.bots.include(bot));
        let weights = |lane: Lane| {
            let theirs = self.clients.iter().filter(move |client| client.lane == lane && may_call(client));
            theirs.map(|client| client.weight)
        };
        QuotaShares {
            interactive: weights(Lane::Interactive).sum(),
            background: weights(Lane::Background).sum(),
            heaviest: weights(Lane::Interactive).max().unwrap_or(0),
            fairness: self.fairness,
        }
    }

    /// Whether the configuration names a bot: such a one has not been made up, and always has its pool.
    pub fn names(&self, bot: &str) -> bool {
        let is_named = |bots: &Bots| *bots != Bots::Any && bots.include(bot);
        is_named(&self.account.bots)
            || self.clients.iter().any(|client| is_named(&client.bots))
            || self.account.credentials.iter().any(|credential| is_named(&credential.bots))
    }

    /// How many bots that are not named one client may bring: those who may ask for any share alike.
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

    /// An account's pools, from here on in this shape. What was spent stays spent, and those who wait keep
    /// their places; also where the account was gone for a while.
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

    /// Forgets what knows nothing and is nobody's.
    pub fn sweep(&self) {
        let mut accounts = self.accounts();
        accounts.values().for_each(|pools| pools.bots.sweep());
        accounts.retain(|_, pools| {
            Arc::strong_count(pools) > 1 || !pools.whole.is_idle() || !pools.bots.is_empty()
        });
    }
}
