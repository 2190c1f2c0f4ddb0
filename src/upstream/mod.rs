//! Calls to the upstream, which are scarce. A call waits for quota, gets a token and makes the exchange. The outcome
//! says whether another attempt is worthwhile.

mod bots;
mod breaker;
mod broker;
mod call;
mod client;
mod collected;
mod echo;
mod exchange;
mod host;
mod outcome;
mod pace;
mod passed_on;
mod pool;
mod pools;
mod quota;
mod request;
mod retry;
mod secrets;
mod shape;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_rustls::rustls;

use crate::clock::Clock;
use crate::config::{Account, Config, Rate};
use crate::error::{Error, Kind};
use crate::fetch::limit_status::LimitStatus;
use crate::observe::metrics::Metrics;
use crate::overload::shares::Shares;
use crate::routes::{Base, Query, Route};

use call::{breaker_open, quota_used_up};
use client::Connections;
pub use client::Resolver;
use host::Host;
use pools::{AccountPools, Pools};
use shape::Shape;
use token::Minter;
pub use token::random_id;

/// How often tokens and the files of their secrets are checked.
const KEEP_EVERY: Duration = Duration::from_secs(5);

/// The client of the upstream, with the tokens and the quota of every account and the state of every base URL.
pub struct Upstream {
    http: client::Client,
    /// For upstreams that have just closed an idle connection.
    http_once: client::Client,
    /// Every hit reads it for the `RateLimit` fields.
    accounts: HashMap<Arc<str>, State, foldhash::fast::RandomState>,
    /// The pools of all accounts. Kept across reloads.
    pools: Arc<Pools>,
    hosts: HashMap<String, Arc<Host>>,
    /// The shares of the memory for answers that are being read.
    reading: Arc<Shares>,
    config: crate::config::Upstream,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// The state of one account.
struct State {
    account: Arc<Account>,
    /// In the order of `Account::credentials`.
    minters: Vec<Minter>,
    pools: Arc<AccountPools>,
}

/// What would happen to a call now.
pub struct Outlook {
    /// The credential's name.
    pub credential: String,
    /// The error of an open breaker.
    pub breaker_open: Option<Error>,
    /// The error of a used-up quota, for a call that cannot wait.
    pub used_up: Option<Error>,
    /// The limit status of the pool that would count it.
    pub limit_status: Option<LimitStatus>,
}

impl Upstream {
    /// Fails if an upstream is https and the machine has no certificates to trust. Starts a task that maintains the
    /// tokens and ends with `self`. Continues with the counts of `previous`, because the upstream knows nothing of a
    /// reload. Without a `resolver` the machine resolves names.
    pub fn start(
        config: &Config,
        clock: &Clock,
        metrics: &Arc<Metrics>,
        resolver: Option<&Resolver>,
        previous: Option<&Self>,
    ) -> Result<Arc<Self>, rustls::Error> {
        let bases = config
            .accounts
            .iter()
            .flat_map(|account| [account.contact_center_url.clone(), account.automation_url.clone()]);
        // What can fail comes first: a refused configuration must change nothing.
        let any_https = bases.clone().any(|base| !base.starts_with("http:"));
        let client =
            |connections| client::Client::new(&config.upstream, connections, any_https, resolver, clock);
        let (http, http_once) = (client(Connections::Kept)?, client(Connections::UsedOnce)?);
        let pools = previous.map_or_else(|| Arc::new(Pools::new(clock.clone())), |known| known.pools.clone());
        let accounts = config.accounts.iter().map(|account| {
            let minters = account.credentials.iter();
            let known = previous.and_then(|previous| previous.accounts.get(&account.id));
            let minters = minters.map(|credential| {
                let minter = Minter::new(credential.clone(), clock.clone(), metrics);
                let of_before = |known: &State| known.minter(minter.name()).map(|known| minter.follow(known));
                known.map(of_before);
                minter
            });
            let minters = minters.collect();
            let shape = Shape::new(account, &config.clients, &config.upstream);
            let pools = pools.of(&account.id, shape);
            (account.id.clone(), State { account: account.clone(), minters, pools })
        });
        let accounts = accounts.collect();
        let hosts: HashMap<String, Arc<Host>> = bases
            .map(|base| {
                let known = previous.and_then(|previous| previous.hosts.get(&base)).cloned();
                // The state of a host does not depend on the configuration.
                let host = known.inspect(|host| host.reshape(&config.upstream)).unwrap_or_else(|| {
                    Arc::new(Host::new(&config.upstream, clock.clone(), metrics.upstream.breaker(&base)))
                });
                (base, host)
            })
            .collect();
        let upstream = Arc::new(Self {
            http,
            http_once,
            accounts,
            pools,
            hosts,
            reading: previous.map(|previous| previous.reading.clone()).unwrap_or_default(),
            config: config.upstream.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        tokio::spawn(keep(Arc::downgrade(&upstream), clock.clone()));
        Ok(upstream)
    }

    /// The account, the credential and the host that serve a query.
    fn way(&self, query: &Query) -> Result<(&State, &Minter, &Host), Error> {
        let state = self.accounts.get(&query.account);
        let found = state.and_then(|state| {
            let index = state.account.credential(query.route.scope, query.bot.as_deref())?;
            let host: &Host = self.hosts.get(request::base(query.route, &state.account))?;
            Some((state, state.minters.get(index)?, host))
        });
        found.ok_or_else(|| Error::new(Kind::Internal, "no credential serves this route"))
    }

    /// The limit status, at `now` of the clock's uptime, of the pool that counts calls to `route`. Waits for no pool's
    /// lock.
    pub fn limit_status(
        &self,
        account: &str,
        route: &Route,
        bot: Option<&str>,
        now: Duration,
    ) -> Option<LimitStatus> {
        let state = self.accounts.get(account)?;
        let rates = match route.base {
            Base::ContactCenter => &state.account.quota.account,
            Base::Automation => &state.account.quota.bot,
        };
        let rate = *rates.first()?;
        let (left, reset) = match (route.base, bot) {
            // The first call to a bot makes its pool. A look at its status does not.
            (Base::Automation, Some(bot)) => match state.pools.bots.peek(bot) {
                Some(pool) => pool.available_at(now),
                None => (least(rates)?, Duration::ZERO),
            },
            _ => state.pools.whole.available_at(now),
        };
        Some(LimitStatus { policy: "upstream", rate, left, reset })
    }

    /// What would happen to a call: the credential that would sign it, and why it would not be made at once. Changes
    /// nothing.
    pub fn outlook(&self, query: &Query) -> Result<Outlook, Error> {
        let (state, minter, host) = self.way(query)?;
        let base = request::base(query.route, &state.account);
        let now = self.clock.uptime();
        let limit_status = self.limit_status(&query.account, query.route, query.bot.as_deref(), now);
        let breaker_open = host.breaker.check().err().map(|wait| breaker_open(wait, base));
        let used_up = limit_status
            .filter(|limit_status| limit_status.left == 0)
            .map(|limit_status| quota_used_up(limit_status.reset, query));
        Ok(Outlook { credential: minter.name().to_owned(), breaker_open, used_up, limit_status })
    }

    /// Sets the gauges that are read rather than counted.
    pub fn observe(&self) {
        self.metrics.process.bytes_in_flight("fills", self.reading.now());
        for (account, state) in &self.accounts {
            self.metrics.upstream.quota_available(account, "account", state.pools.whole.available().0);
            // There may be many bots. The gauge shows the pool with the least left.
            if let Some(least) = state.pools.bots.all().iter().map(|(_, pool)| pool.available().0).min() {
                self.metrics.upstream.quota_available(account, "bot", least);
            }
            self.metrics.upstream.quota_waiting(account, state.pools.waiting());
        }
    }

    /// Whether the quota of any bot is being counted.
    pub fn counts_bots(&self) -> bool {
        self.accounts.values().any(|state| !state.pools.bots.is_empty())
    }

    /// Calls that wait for quota.
    pub fn waiting(&self) -> usize {
        self.accounts.values().map(|state| state.pools.waiting()).sum()
    }
}

impl State {
    fn minter(&self, name: &str) -> Option<&Minter> {
        self.minters.iter().find(|minter| minter.name() == name)
    }
}

/// The calls that empty windows allow.
fn least(rates: &[Rate]) -> Option<u32> {
    rates.iter().map(|rate| rate.amount).min()
}

/// Maintains tokens and pools as long as the upstream is in use.
async fn keep(upstream: Weak<Upstream>, clock: Clock) {
    loop {
        clock.sleep(KEEP_EVERY).await;
        let Some(upstream) = upstream.upgrade() else { return };
        upstream.pools.sweep();
        for state in upstream.accounts.values() {
            for minter in &state.minters {
                minter.keep().await;
            }
        }
    }
}
