//! The pools of all accounts. They outlive every configuration, because the upstream knows nothing of a reload. A call
//! of an older configuration uses the same pools, in the shape of the newest one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bots::BotPools;
use super::pool::Pool;
use super::shape::Shape;
use crate::clock::Clock;

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
