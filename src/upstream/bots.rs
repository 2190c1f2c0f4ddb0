//! The pools of an account's bots.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pool::Pool;

/// Bots whose quota is counted at a time. Callers can make up bots only where an account has
/// `bots = ["*"]`.
const MOST_BOT_POOLS: usize = 10_000;

/// A pool is kept for as long as it knows anything: were one dropped with calls in its windows, the
/// bot's next calls would be too many. So it is new bots that there may be no room for.
#[derive(Default)]
pub struct BotPools(Mutex<HashMap<String, Arc<Pool>>>);

impl BotPools {
    fn pools(&self) -> MutexGuard<'_, HashMap<String, Arc<Pool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bot's pool, if it has one.
    pub fn peek(&self, bot: &str) -> Option<Arc<Pool>> {
        self.pools().get(bot).cloned()
    }

    /// A bot's pool, made if need be; `None` if there are too many.
    pub fn get(&self, bot: &str, new: impl FnOnce() -> Arc<Pool>) -> Option<Arc<Pool>> {
        let mut pools = self.pools();
        if let Some(pool) = pools.get(bot) {
            return Some(pool.clone());
        }
        if pools.len() >= MOST_BOT_POOLS {
            return None;
        }
        let pool = new();
        pools.insert(bot.to_owned(), pool.clone());
        Some(pool)
    }

    /// Forgets the pools that know nothing and that nobody is about to use.
    pub fn sweep(&self) {
        self.pools().retain(|_, pool| Arc::strong_count(pool) > 1 || !pool.is_idle());
    }

    pub fn all(&self) -> Vec<Arc<Pool>> {
        self.pools().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::broker::{Shares, Spender};
    use super::*;
    use crate::clock::{Clock, UnixMillis};
    use crate::config::{Fairness, Lane, Rate};

    const RATE: Rate = Rate { amount: 2, window: Duration::from_secs(60) };

    #[tokio::test]
    async fn a_pool_is_kept_while_it_holds_a_call_and_when_all_do_a_new_bot_is_refused() {
        let clock = Clock::manual(UnixMillis(0));
        let fairness = Fairness { headroom: 0, background_minimum: 0 };
        let shares = Shares { interactive: 1, background: 0, fairness };
        let new = || Pool::new(&[RATE], shares, 10, clock.clone());
        let spender = Spender { client: "one".into(), lane: Lane::Interactive, weight: 1 };
        let pools = BotPools::default();

        let pool = pools.get("used", new).expect("room");
        pool.reserve(&spender, Duration::ZERO).await.expect("room").make();
        drop(pool);
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
