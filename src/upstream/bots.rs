//! The pools of an account's bots.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;

use super::pool::Pool;
use super::shape::Shape;
use crate::clock::Clock;

/// The pools of bots, one for each bot with a call in its windows.
///
/// A pool is kept for as long as it counts a call: without it, the next calls of its bot would exceed the quota. So
/// it is a new bot that may find no room. Callers can invent bots where an account and a client have `bots = ["*"]`.
/// Therefore each client has a share of the room, and an unproven bot, which the upstream has never confirmed, gives
/// way to another bot of the same client. Bots that the configuration names always have room.
///
/// Every hit looks its bot up for the `RateLimit` fields. That takes the read lock of one shard of the map.
pub struct BotPools {
    pools: DashMap<Arc<str>, Slot, foldhash::fast::RandomState>,
    /// Locked by everyone who adds a pool, removes one, or changes the shape.
    registry: Mutex<Registry>,
    clock: Clock,
}

struct Slot {
    pool: Arc<Pool>,
    /// The client whose call made it. None for a bot that the configuration names.
    client: Option<Arc<str>>,
}

struct Registry {
    shape: Shape,
    /// The bots that each client has brought.
    clients: HashMap<Arc<str>, Brought>,
}

#[derive(Default)]
struct Brought {
    count: usize,
    /// Bots that may be unproven, oldest first.
    unproven: VecDeque<Arc<str>>,
}

impl BotPools {
    pub fn new(shape: Shape, clock: Clock) -> Self {
        let registry = Mutex::new(Registry { shape, clients: HashMap::new() });
        Self { pools: DashMap::default(), registry, clock }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool of a bot, if it has one.
    pub fn peek(&self, bot: &str) -> Option<Arc<Pool>> {
        self.pools.get(bot).map(|slot| slot.pool.clone())
    }

    /// The pool of a bot for a call of `client`, made if need be. `None` if the client has brought too many bots.
    pub fn get(&self, bot: &str, client: &Arc<str>) -> Option<Arc<Pool>> {
        let mut registry = self.registry();
        if let Some(pool) = self.peek(bot) {
            return Some(pool);
        }
        let name: Arc<str> = bot.into();
        let is_named = registry.shape.names(bot);
        if !is_named {
            self.make_room(&mut registry, client)?;
            let brought = registry.clients.entry(client.clone()).or_default();
            brought.count += 1;
            brought.unproven.push_back(name.clone());
        }
        let pool = registry.shape.new_pool(Some(bot), &self.clock);
        let slot = Slot { pool: pool.clone(), client: (!is_named).then(|| client.clone()) };
        self.pools.insert(name, slot);
        Some(pool)
    }

    /// Makes room for one more bot of `client`. `None` if there is none.
    fn make_room(&self, registry: &mut Registry, client: &Arc<str>) -> Option<()> {
        let (share, max_bots) = (registry.shape.bots_of_a_client(), registry.shape.max_bots);
        let clients = &mut registry.clients;
        if clients.get(client).is_none_or(|brought| brought.count < share) {
            // After a reload, other clients may exceed the share of now.
            if clients.values().map(|brought| brought.count).sum::<usize>() < max_bots {
                return Some(());
            }
            return clients.values_mut().any(|brought| self.remove_unproven(brought)).then_some(());
        }
        clients.get_mut(client).is_some_and(|brought| self.remove_unproven(brought)).then_some(())
    }

    /// Removes the oldest unproven bot of a client. Whether there was one.
    fn remove_unproven(&self, brought: &mut Brought) -> bool {
        for _ in 0..brought.unproven.len() {
            let Some(bot) = brought.unproven.pop_front() else { return false };
            // The map has one reference. A second one is that of a call that is about to use the pool.
            if self.pools.remove_if(&bot, |_, slot| !slot.pool.is_proven() && !slot.is_in_use()).is_some() {
                brought.count -= 1;
                return true;
            }
            if self.peek(&bot).is_some_and(|pool| !pool.is_proven()) {
                brought.unproven.push_back(bot);
            }
        }
        false
    }

    /// Gives all pools another shape, and those that are made from here on.
    pub fn reshape(&self, shape: Shape) {
        let mut registry = self.registry();
        for (bot, pool) in self.all() {
            shape.reshape(&pool, Some(&bot));
        }
        registry.shape = shape;
    }

    /// Removes the pools that count no call and are not in use.
    pub fn sweep(&self) {
        let mut registry = self.registry();
        let clients = &mut registry.clients;
        self.pools.retain(|_, slot| {
            let is_kept = slot.is_in_use() || !slot.pool.is_idle();
            if !is_kept
                && let Some(client) = &slot.client
                && let Some(brought) = clients.get_mut(client)
            {
                brought.count -= 1;
            }
            is_kept
        });
        clients.retain(|_, brought| brought.count > 0);
        for brought in clients.values_mut() {
            brought.unproven.retain(|bot| self.pools.contains_key(bot));
        }
    }

    /// The bots that have a pool, with their pools.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<Pool>)> {
        self.pools.iter().map(|slot| (slot.key().clone(), slot.pool.clone())).collect()
    }

    /// Whether no bot has a pool.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }
}

impl Slot {
    /// Whether a call holds the pool. A hit that looks at it may hold it too, for a moment.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.pool) > 1
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::UnixMillis;
    use crate::config::{Config, Lane, Layer, Sources, load};
    use crate::fetch::payer::{Payer, Payers};

    const MOST: usize = 10_000;
    const SHARE: usize = MOST / 2;
    const NAMED: &str = "st-24ccdea9-de4e-5139-923f-883c53ffaaaa";
    const HOUR: Duration = Duration::from_secs(3600);

    /// Two clients may ask for any bot, a third for the one that is named.
    fn config() -> Config {
        let secrets = tempfile::tempdir().expect("a directory");
        let secret = secrets.path().join("secret");
        std::fs::write(&secret, "a-secret-that-is-long-enough-for-anything").expect("a file");
        let mut text = format!(
            "[[accounts]]\nid = \"65269fe0dd9c622245c1aaaa\"\nbots = [\"*\"]\n\
             contact_center_url = \"https://kore.test\"\nautomation_url = \"https://kore.test\"\n\
             [[accounts.credentials]]\nclient_id = \"cs-1\"\nclient_secret = {{ file = \"{}\" }}\n\
             scopes = [\"analytics\", \"chat_history\"]\n",
            secret.display()
        );
        for (n, (name, bots)) in [("a", "*"), ("b", "*"), ("c", NAMED)].iter().enumerate() {
            text.push_str(&format!(
                "[[clients]]\nname = \"{name}\"\napi_key_sha256 = \"7{n:063}\"\nbots = [\"{bots}\"]\n\
                 accounts = [\"65269fe0dd9c622245c1aaaa\"]\nroutes = [\"conversation_details\"]\n"
            ));
        }
        let sources = Sources { layers: vec![Layer::Text(text)], environment: Vec::new() };
        load(&sources).map(|(_, config)| config).unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    fn pools() -> (BotPools, Clock, Config) {
        let (clock, config) = (Clock::manual(UnixMillis(0)), config());
        let account = config.accounts.first().expect("an account");
        let pools = BotPools::new(Shape::new(account, &config.clients, &config.upstream), clock.clone());
        (pools, clock, config)
    }

    fn client(name: &str) -> Arc<str> {
        name.into()
    }

    /// A call to a bot, over, and whether there was a pool for it.
    async fn call(pools: &BotPools, client: &Arc<str>, bot: &str, is_known: bool) -> bool {
        let Some(pool) = pools.get(bot, client) else { return false };
        let payer = Payer { client: client.clone(), lane: Lane::Interactive, weight: 1 };
        let mut call = pool.reserve(&Payers::of(payer), Duration::ZERO).await.expect("room");
        call.mark_sent();
        call.mark_done();
        if is_known {
            pool.prove();
        }
        true
    }

    #[tokio::test]
    async fn bots_that_are_made_up_are_in_nobodys_way_and_only_in_each_others() {
        let (pools, _, _) = pools();
        let (a, b) = (client("a"), client("b"));
        assert!(call(&pools, &a, "real", true).await);
        for n in 0..MOST + 400 {
            assert!(call(&pools, &a, &format!("made-up-{n}"), false).await, "{n}");
        }
        assert_eq!(pools.all().len(), SHARE);
        assert_eq!(pools.peek("real").map(|pool| pool.available().0), Some(59), "it is not forgotten");
        assert!(pools.peek("made-up-0").is_none(), "the oldest one is");
        for n in 0..SHARE {
            assert!(call(&pools, &b, &format!("of-b-{n}"), true).await);
        }
        assert!(call(&pools, &a, "another-real-one", true).await);
    }

    #[tokio::test]
    async fn a_client_that_has_used_up_its_share_is_refused_alone_and_not_for_named_bots() {
        let (pools, clock, _) = pools();
        let (a, b) = (client("a"), client("b"));
        for n in 0..SHARE {
            assert!(call(&pools, &a, &format!("real-{n}"), true).await);
        }
        assert!(!call(&pools, &a, "late", false).await);
        assert!(call(&pools, &b, "late", true).await);
        assert!(call(&pools, &a, NAMED, false).await);
        assert!(call(&pools, &a, "late", false).await, "it has a pool by now");
        pools.sweep();
        assert_eq!(pools.all().len(), SHARE + 2, "all hold calls");
        clock.advance(HOUR);
        pools.sweep();
        assert!(pools.all().is_empty());
        assert!(call(&pools, &a, "later", false).await);
    }

    #[tokio::test]
    async fn a_bot_that_is_being_called_is_not_forgotten() {
        let (pools, _, _) = pools();
        let (a, mut held) = (client("a"), Vec::new());
        for n in 0..SHARE {
            held.push(pools.get(&format!("bot-{n}"), &a).expect("room"));
        }
        assert!(pools.get("late", &a).is_none());
        held.remove(7);
        assert!(pools.get("late", &a).is_some());
        assert!(pools.peek("bot-7").is_none() && pools.peek("bot-0").is_some());
    }

    #[tokio::test]
    async fn a_pool_that_is_made_after_a_reload_is_of_the_new_shape_whoever_makes_it() {
        let (pools, _, config) = pools();
        let account = config.accounts.first().expect("an account");
        let upstream = crate::config::Upstream { max_bots: 2, ..config.upstream.clone() };
        let mut quota = account.quota.clone();
        quota.bot.iter_mut().for_each(|rate| rate.amount = 7);
        assert!(call(&pools, &client("a"), "before", false).await);
        let account = Arc::new(crate::config::Account {
            id: account.id.clone(),
            contact_center_url: account.contact_center_url.clone(),
            automation_url: account.automation_url.clone(),
            bots: account.bots.clone(),
            credentials: account.credentials.clone(),
            quota,
            unproven_sessions: crate::config::UnprovenSessions::Refuse,
        });
        pools.reshape(Shape::new(&account, &config.clients, &upstream));
        // By a call that began before.
        assert!(call(&pools, &client("b"), "after", false).await);
        for bot in ["before", "after"] {
            assert_eq!(pools.peek(bot).map(|pool| pool.available().0), Some(6), "{bot}");
        }
    }
}
