//! The pools of an account's bots.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::pool::Pool;
use super::pools::Shape;
use crate::clock::Clock;

/// Tables that the pools are spread over.
const TABLES: usize = 64;

/// A pool is kept for as long as it knows anything: were one dropped with calls in its windows, the
/// bot's next calls would be too many. So it is new bots that there may be no room for. Callers can make
/// up bots where an account and a client have `bots = ["*"]`: each client has a share of the room, and a bot
/// that the upstream has never known gives way to another of the same client.
///
/// Every hit looks up where its bot stands, so looking takes no lock. A bot's first call makes its
/// table anew, and there are several, so that this is cheap too.
pub struct BotPools {
    tables: [ArcSwap<Table>; TABLES],
    hasher: RandomState,
    /// Held by whoever takes a pool to call by, changes a table, or changes the shape.
    book: Mutex<Book>,
    clock: Clock,
}

type Table = HashMap<Arc<str>, Slot>;

#[derive(Clone)]
struct Slot {
    pool: Arc<Pool>,
    /// The client whose call made it; none of a bot that the configuration names.
    client: Option<Arc<str>>,
}

struct Book {
    shape: Shape,
    /// Pools that clients have brought.
    clients: HashMap<Arc<str>, Brought>,
}

#[derive(Default)]
struct Brought {
    count: usize,
    /// Bots that may be unknown to the upstream, oldest first.
    doubtful: VecDeque<Arc<str>>,
}

impl BotPools {
    pub fn new(shape: Shape, clock: Clock) -> Self {
        let tables = std::array::from_fn(|_| ArcSwap::default());
        let book = Mutex::new(Book { shape, clients: HashMap::new() });
        Self { tables, hasher: RandomState::new(), book, clock }
    }

    #[expect(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "the remainder is below it"
    )]
    fn table(&self, bot: &str) -> &ArcSwap<Table> {
        &self.tables[self.hasher.hash_one(bot) as usize % TABLES]
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bot's pool, if it has one.
    pub fn peek(&self, bot: &str) -> Option<Arc<Pool>> {
        self.table(bot).load().get(bot).map(|slot| slot.pool.clone())
    }

    /// A bot's pool for a call of `client`, made if need be; `None` if the client has brought too many.
    pub fn get(&self, bot: &str, client: &Arc<str>) -> Option<Arc<Pool>> {
        let mut book = self.book();
        if let Some(pool) = self.peek(bot) {
            return Some(pool);
        }
        let name: Arc<str> = bot.into();
        let is_named = book.shape.names(bot);
        if !is_named {
            self.make_room(&mut book, client)?;
            let brought = book.clients.entry(client.clone()).or_default();
            brought.count += 1;
            brought.doubtful.push_back(name.clone());
        }
        let pool = book.shape.new_pool(Some(bot), &self.clock);
        let slot = Slot { pool: pool.clone(), client: (!is_named).then(|| client.clone()) };
        self.change(bot, |table| drop(table.insert(name, slot)));
        Some(pool)
    }

    /// Room for one more bot of `client`; `None` where there is none.
    fn make_room(&self, book: &mut Book, client: &Arc<str>) -> Option<()> {
        let (share, most) = (book.shape.bots_of_a_client(), book.shape.max_bots);
        let Book { clients, .. } = book;
        if clients.get(client).is_none_or(|brought| brought.count < share) {
            // After a reload others may have more than their share of now.
            if clients.values().map(|brought| brought.count).sum::<usize>() < most {
                return Some(());
            }
            return clients.values_mut().any(|brought| self.forget_a_stranger(brought)).then_some(());
        }
        clients.get_mut(client).is_some_and(|brought| self.forget_a_stranger(brought)).then_some(())
    }

    /// Forgets the oldest of the bots that a client has brought and the upstream has never known.
    fn forget_a_stranger(&self, brought: &mut Brought) -> bool {
        for _ in 0..brought.doubtful.len() {
            let Some(bot) = brought.doubtful.pop_front() else { return false };
            match self.peek(&bot) {
                None => {}
                Some(pool) if pool.is_proven() => {}
                // One reference is the table's and one is ours: somebody else is about to call by it.
                Some(pool) if Arc::strong_count(&pool) > 2 => brought.doubtful.push_back(bot),
                Some(_) => {
                    self.change(&bot, |table| drop(table.remove(&bot)));
                    brought.count -= 1;
                    return true;
                }
            }
        }
        false
    }

    /// Changes a bot's table. The book is held.
    fn change(&self, bot: &str, change: impl FnOnce(&mut Table)) {
        let swap = self.table(bot);
        let mut table = Table::clone(&swap.load());
        change(&mut table);
        swap.store(Arc::new(table));
    }

    /// Another shape, for the pools that are there and for those that are made from here on, whoever has
    /// them made.
    pub fn reshape(&self, shape: Shape) {
        let mut book = self.book();
        for (bot, pool) in self.all() {
            shape.reshape(&pool, Some(&bot));
        }
        book.shape = shape;
    }

    /// Forgets the pools that know nothing and that nobody is about to call by.
    pub fn sweep(&self) {
        let (mut book, mut is_changed) = (self.book(), false);
        for swap in &self.tables {
            let table = swap.load_full();
            // One reference is the table's. Whoever peeks may hold one too, for a moment, or an older
            // table that somebody peeks into: next time, then.
            let is_kept = |slot: &Slot| Arc::strong_count(&slot.pool) > 1 || !slot.pool.is_idle();
            if table.values().all(is_kept) {
                continue;
            }
            let mut kept = Table::new();
            for (bot, slot) in table.iter() {
                if is_kept(slot) {
                    kept.insert(bot.clone(), slot.clone());
                } else if let Some(client) = &slot.client
                    && let Some(brought) = book.clients.get_mut(client)
                {
                    brought.count -= 1;
                    is_changed = true;
                }
            }
            swap.store(Arc::new(kept));
        }
        if is_changed {
            book.clients.retain(|_, brought| brought.count > 0);
            for brought in book.clients.values_mut() {
                brought.doubtful.retain(|bot| self.peek(bot).is_some());
            }
        }
    }

    /// The bots that have a pool, with it.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<Pool>)> {
        let tables = self.tables.iter().map(|table| Table::clone(&table.load()));
        tables.flatten().map(|(bot, slot)| (bot, slot.pool)).collect()
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
