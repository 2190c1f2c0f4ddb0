//! The pools of an account's bots.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::pool::Pool;

/// Bots whose quota is counted at a time. Callers can make up bots only where an account has
/// `bots = ["*"]`.
const MOST_BOT_POOLS: usize = 10_000;

/// Tables that the pools are spread over.
const TABLES: usize = 64;

/// A pool is kept for as long as it knows anything: were one dropped with calls in its windows, the
/// bot's next calls would be too many. So it is new bots that there may be no room for.
///
/// Every hit looks up where its bot stands, so looking takes no lock. A bot's first call makes its
/// table anew, and there are several, so that this is cheap too.
pub struct BotPools {
    tables: [ArcSwap<Table>; TABLES],
    hasher: RandomState,
    /// How many there are. Held by whoever takes a pool to call by, or changes a table.
    count: Mutex<usize>,
}

type Table = HashMap<Arc<str>, Arc<Pool>>;

impl Default for BotPools {
    fn default() -> Self {
        let tables = std::array::from_fn(|_| ArcSwap::default());
        Self { tables, hasher: RandomState::new(), count: Mutex::new(0) }
    }
}

impl BotPools {
    #[expect(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "the remainder is below it"
    )]
    fn table(&self, bot: &str) -> &ArcSwap<Table> {
        &self.tables[self.hasher.hash_one(bot) as usize % TABLES]
    }

    /// A bot's pool, if it has one.
    pub fn peek(&self, bot: &str) -> Option<Arc<Pool>> {
        self.table(bot).load().get(bot).cloned()
    }

    /// A bot's pool, made if need be; `None` if there are too many.
    pub fn get(&self, bot: &str, new: impl FnOnce() -> Arc<Pool>) -> Option<Arc<Pool>> {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = self.peek(bot) {
            return Some(pool);
        }
        if *count >= MOST_BOT_POOLS {
            return None;
        }
        *count += 1;
        let pool = new();
        let mut table = Table::clone(&self.table(bot).load());
        table.insert(bot.into(), pool.clone());
        self.table(bot).store(Arc::new(table));
        Some(pool)
    }

    /// Forgets the pools that know nothing and that nobody is about to call by.
    pub fn sweep(&self) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        for swap in &self.tables {
            let table = swap.load_full();
            // One reference is the table's. Whoever peeks may hold one too, for a moment, or an older
            // table that somebody peeks into: next time, then.
            let is_kept = |pool: &Arc<Pool>| Arc::strong_count(pool) > 1 || !pool.is_idle();
            if table.values().all(is_kept) {
                continue;
            }
            let mut kept = Table::new();
            for (bot, pool) in table.iter().filter(|(_, pool)| is_kept(pool)) {
                kept.insert(bot.clone(), pool.clone());
            }
            *count -= table.len() - kept.len();
            swap.store(Arc::new(kept));
        }
    }

    /// The bots that have a pool, with it.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<Pool>)> {
        let tables = self.tables.iter().map(|table| Table::clone(&table.load()));
        tables.flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::broker::Shares;
    use super::*;
    use crate::clock::{Clock, UnixMillis};
    use crate::config::{Fairness, Lane, Rate};
    use crate::spender::{Spender, Spenders};

    const RATE: Rate = Rate { amount: 2, window: Duration::from_secs(60) };

    #[tokio::test]
    async fn a_pool_is_kept_while_it_holds_a_call_and_when_all_do_a_new_bot_is_refused() {
        let clock = Clock::manual(UnixMillis(0));
        let fairness = Fairness { headroom: 0, reserve: 0, background_minimum: 0 };
        let shares = Shares { interactive: 1, background: 0, heaviest: 1, fairness };
        let new = || Pool::new(&[RATE], shares, 10, clock.clone());
        let spender = Spender { client: "one".into(), lane: Lane::Interactive, weight: 1 };
        let spenders = Spenders::of(spender);
        let pools = BotPools::default();

        let pool = pools.get("used", new).expect("room");
        let mut call = pool.reserve(&spenders, Duration::ZERO).await.expect("room");
        call.make();
        call.over();
        drop((call, pool));
        for n in 1..MOST_BOT_POOLS {
            assert!(pools.get(&format!("st-{n}"), new).is_some());
        }
        assert!(pools.get("st-late", new).is_none());
        pools.sweep();
        assert_eq!(pools.all().len(), 1, "the others know nothing");
        assert_eq!(pools.peek("used").map(|pool| pool.standing().0), Some(1));
        clock.advance(RATE.window);
        pools.sweep();
        assert!(pools.peek("used").is_none());
    }
}
