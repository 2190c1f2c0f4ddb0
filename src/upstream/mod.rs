//! Calls to the upstream, spent with care: quota, then token, then the exchange, then what its
//! outcome means, and whether it is worth another try.

mod bots;
mod breaker;
mod broker;
mod exchange;
mod outcome;
mod pool;
mod quota;
mod request;
mod retry;
mod secrets;
mod token;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::answer::Fetched;
use crate::clock::Clock;
use crate::config::{Account, Config, Lane, Rate};
use crate::error::{Error, Kind};
use crate::metrics::{AttemptResult, Metrics};
use crate::routes::{Base, Query, Route};
use crate::standing::Standing;

use bots::BotPools;
use breaker::{Attempt, Breaker};
use broker::Shares;
pub use broker::Spender;
use exchange::{Broken, Connections};
use outcome::{Outcome, QUOTA_REFUSED_FOR};
use pool::{Exhausted, Pool, Reservation};
use retry::Budget;
use secrets::Use;
pub use token::random_id;
use token::{Minter, Token};

/// How often tokens are looked after, and the files of their secrets.
const KEEP_EVERY: Duration = Duration::from_secs(5);

/// Retries of one request: what fails three times would fail a fourth time, and others need the budget.
const MOST_RETRIES: u32 = 2;

/// After a connection that the upstream closed while it lay idle, each call has one of its own for so
/// long. A repeat for each would cost more calls than the budget has.
const USED_ONCE_FOR: Duration = Duration::from_secs(60);

/// Of a call's time, the part that waiting for quota must leave for the exchange: a call that is
/// made too late to be answered is a call thrown away.
const FOR_THE_EXCHANGE: u32 = 10;

/// The way to the upstream. Knows the tokens and the quota of every account, and how every base URL
/// is doing.
pub struct Upstream {
    http: reqwest::Client,
    /// For upstreams that close connections while they lie idle.
    http_once: reqwest::Client,
    accounts: HashMap<Arc<str>, State>,
    hosts: HashMap<String, Host>,
    config: crate::config::Upstream,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// What lives with one account.
struct State {
    account: Arc<Account>,
    /// In the order of `Account::credentials`.
    minters: Vec<Minter>,
    shares: Shares,
    pool: Arc<Pool>,
    /// Shared with the state of before a reload.
    bot_pools: Arc<BotPools>,
}

/// What lives with one base URL.
struct Host {
    breaker: Breaker,
    budget: Budget,
    /// Until when no connection is used again, in milliseconds since the clock's start.
    used_once_until: AtomicU64,
}

impl Host {
    fn connections(&self, now: Duration) -> Connections {
        match millis(now) < self.used_once_until.load(Ordering::Relaxed) {
            true => Connections::UsedOnce,
            false => Connections::Kept,
        }
    }

    /// A connection was closed while it lay idle: others that lie there may be just so.
    fn closes_idle_ones(&self, now: Duration) {
        self.used_once_until.fetch_max(millis(now + USED_ONCE_FOR), Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// When a call is to be over.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    /// The same on the clock that quotas are counted on, less what the exchange needs.
    quota: Duration,
}

/// What a call would come to, if it were made now.
pub struct Outlook {
    /// The credential's name.
    pub credential: String,
    /// What it would be refused with, for the upstream has failed too often.
    pub left_alone: Option<Error>,
    /// What it would be refused with, if it could not wait for the quota.
    pub used_up: Option<Error>,
    /// Of the pool that would count it.
    pub standing: Option<Standing>,
}

/// What one call needs to be made, more than once if need be.
struct Call<'a> {
    query: &'a Query,
    account: &'a Account,
    spender: &'a Spender,
    minter: &'a Minter,
    pool: Arc<Pool>,
    host: &'a Host,
    deadline: Deadline,
}

impl Call<'_> {
    fn usage(&self) -> Use {
        (self.query.route.name, self.query.bot.clone())
    }
}

impl Upstream {
    /// Fails where the machine has no certificates to trust and an upstream is https. Looks after
    /// its tokens in a task that ends with it. Goes on counting where `previous` is: the upstream
    /// knows nothing of a reload.
    pub fn start(
        config: &Config,
        clock: &Clock,
        metrics: &Arc<Metrics>,
        previous: Option<&Self>,
    ) -> Result<Arc<Self>, reqwest::Error> {
        let accounts = config.accounts.iter().map(|account| {
            let minters = account.credentials.iter();
            let minters =
                minters.map(|credential| Minter::new(credential.clone(), clock.clone(), metrics)).collect();
            let shares = shares(config, account);
            let most = config.upstream.max_waiting;
            if let Some(state) = previous.and_then(|previous| previous.accounts.get(&account.id)) {
                // What was spent stays spent, and those who wait keep their places.
                state.pool.reshape(&account.quota.account, shares, most);
                for pool in state.bot_pools.all() {
                    pool.reshape(&account.quota.bot, shares, most);
                }
                let (pool, bot_pools) = (state.pool.clone(), state.bot_pools.clone());
                return (
                    account.id.clone(),
                    State { account: account.clone(), minters, shares, pool, bot_pools },
                );
            }
            let pool = Pool::new(&account.quota.account, shares, most, clock.clone());
            let bot_pools = Arc::default();
            (account.id.clone(), State { account: account.clone(), minters, shares, pool, bot_pools })
        });
        let bases = config
            .accounts
            .iter()
            .flat_map(|account| [account.contact_center_url.clone(), account.automation_url.clone()]);
        let hosts: HashMap<String, Host> = bases
            .map(|base| {
                let state = metrics.breaker(&base);
                let breaker = Breaker::new(config.upstream.breaker, clock.clone(), state);
                (
                    base,
                    Host {
                        breaker,
                        budget: Budget::new(config.upstream.retry.budget),
                        used_once_until: AtomicU64::new(0),
                    },
                )
            })
            .collect();
        let any_https = hosts.keys().any(|base| !base.starts_with("http:"));
        let upstream = Arc::new(Self {
            http: exchange::client(&config.upstream, Connections::Kept, any_https)?,
            http_once: exchange::client(&config.upstream, Connections::UsedOnce, any_https)?,
            accounts: accounts.collect(),
            hosts,
            config: config.upstream.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        tokio::spawn(keep(Arc::downgrade(&upstream), clock.clone()));
        Ok(upstream)
    }

    /// The answer to `query`, within the configured time, waiting for quota and repeats included.
    /// `spender` says whose share of the quota it comes out of.
    pub async fn call(&self, query: &Query, spender: &Spender) -> Result<Fetched, Error> {
        let call = self.prepare(query, spender)?;
        let mut outcome = self.attempt(&call, Attempt::First, call.deadline.quota).await?;
        let (mut may_remint, mut may_be_stale, mut retries) = (true, true, 0);
        loop {
            let (token, told) = outcome;
            let again = match &told {
                Outcome::TokenRefused { date, .. } => {
                    let is_worth_it = call.minter.refused(&token, &call.usage(), *date).await;
                    if !(is_worth_it && std::mem::take(&mut may_remint)) {
                        return self.conclude(&call, told);
                    }
                    // Without another call nobody can say that the credential is at fault.
                    Ok(self.attempt(&call, Attempt::Repeat, call.deadline.quota).await?)
                }
                Outcome::Broken(Broken::Stale(_)) if may_be_stale && call.host.budget.overdraw() => {
                    may_be_stale = false;
                    self.attempt(&call, Attempt::Repeat, call.deadline.quota).await
                }
                failed if retries < MOST_RETRIES && failed.is_worth_a_retry() => {
                    match self.retry(&call, retries).await {
                        Some(again) => {
                            retries += 1;
                            self.metrics.upstream_retry(query.route);
                            Ok(again)
                        }
                        None => return self.conclude(&call, told),
                    }
                }
                _ => return self.conclude(&call, told),
            };
            outcome = match again {
                Ok(again) => again,
                // What went wrong says more than why it could not be tried again.
                Err(_) => return self.conclude(&call, told),
            };
        }
    }

    fn prepare<'a>(&'a self, query: &'a Query, spender: &'a Spender) -> Result<Call<'a>, Error> {
        let (state, minter, host) = self.way(query)?;
        let timeout = self.config.timeout;
        let deadline = Deadline {
            at: Instant::now() + timeout,
            quota: self.clock.uptime() + timeout - timeout / FOR_THE_EXCHANGE,
        };
        let pool = self.pool(state, query.route, query.bot.as_deref())?;
        Ok(Call { query, account: &state.account, spender, minter, pool, host, deadline })
    }

    /// The account, the credential and the host that serve a query.
    fn way(&self, query: &Query) -> Result<(&State, &Minter, &Host), Error> {
        let state = self.accounts.get(&query.account);
        let found = state.and_then(|state| {
            let index = state.account.credential(query.route.scope, query.bot.as_deref())?;
            let host = self.hosts.get(request::base(query.route, &state.account))?;
            Some((state, state.minters.get(index)?, host))
        });
        found.ok_or_else(|| Error::new(Kind::Internal, "no credential serves this route"))
    }

    /// The pool that counts a call: the account's, or its bot's (contract §1).
    fn pool(&self, state: &State, route: &Route, bot: Option<&str>) -> Result<Arc<Pool>, Error> {
        match (route.base, bot) {
            (Base::Automation, Some(bot)) => {
                let most = self.config.max_waiting;
                let new = || Pool::new(&state.account.quota.bot, state.shares, most, self.clock.clone());
                state.bot_pools.get(bot, new).ok_or_else(too_many_bots)
            }
            _ => Ok(state.pool.clone()),
        }
    }

    /// One attempt. `Err` is one that was not made: no room in the quota by `patience`, or the
    /// upstream is left alone.
    async fn attempt(
        &self,
        call: &Call<'_>,
        attempt: Attempt,
        patience: Duration,
    ) -> Result<(Token, Outcome), Error> {
        // Before the quota is asked: nothing is waited for that cannot be used.
        call.host.breaker.check().map_err(left_alone)?;
        let mut reservation = self.reserve(call, patience).await?;
        let token = call.minter.token()?;
        let permit = call.host.breaker.permit(attempt).map_err(left_alone)?;
        if attempt == Attempt::First {
            call.host.budget.deposit();
        }

        let started = Instant::now();
        let asked_at = self.clock.moment();
        let http = match call.host.connections(self.clock.uptime()) {
            Connections::Kept => &self.http,
            Connections::UsedOnce => &self.http_once,
        };
        let exchange =
            exchange::exchange(http, call.query, call.account, &token, &self.config, &mut reservation);
        let outcome = match tokio::time::timeout_at(call.deadline.at, exchange).await {
            Ok(Ok(received)) => Outcome::of(received, asked_at, self.clock.now()),
            Ok(Err(broken)) => Outcome::Broken(broken),
            Err(_) => Outcome::Broken(Broken::TimedOut(
                Error::new(Kind::UpstreamTimeout, "the upstream did not answer in time")
                    .proxy_status("http_response_timeout"),
            )),
        };
        if let Outcome::Broken(Broken::Stale(_)) = &outcome {
            call.host.closes_idle_ones(self.clock.uptime());
        }
        if let Outcome::QuotaRefused(wait) = &outcome {
            // Before the reservation ends, which may let the next one in.
            call.pool.close_for(*wait);
        }
        drop(reservation);
        permit.report(!outcome.is_failure());
        let (status, result) = match &outcome {
            Outcome::Answered(answer) => (answer.status().as_u16(), AttemptResult::Answered),
            Outcome::TokenRefused { status, .. } => (status.as_u16(), AttemptResult::TokenRefused),
            Outcome::QuotaRefused(_) => (429, AttemptResult::QuotaRefused),
            Outcome::Broken(_) => (0, AttemptResult::Failed),
        };
        self.metrics.upstream_attempt(call.query.route, status, result, started.elapsed());
        // Who is unwell may not have looked at the token.
        if let Outcome::Answered(answer) = &outcome
            && !answer.status().is_server_error()
        {
            call.minter.accepted(&token, &call.usage());
        }
        Ok((token, outcome))
    }

    async fn reserve(&self, call: &Call<'_>, patience: Duration) -> Result<Reservation, Error> {
        let started = Instant::now();
        let reserved = call.pool.reserve(call.spender, patience);
        let outcome = tokio::time::timeout_at(call.deadline.at, reserved).await;
        self.metrics.quota_wait.observe(started.elapsed().as_secs_f64());
        match outcome {
            Ok(Ok(reservation)) => Ok(reservation),
            Ok(Err(Exhausted(wait))) => Err(quota_used_up(wait)),
            Err(_) => Err(quota_used_up(QUOTA_REFUSED_FOR)),
        }
    }

    /// Another attempt, `nth` of its kind: if the budget has one, the wait for it fits the deadline,
    /// and the quota has room at once. `None` if it was not made.
    async fn retry(&self, call: &Call<'_>, nth: u32) -> Option<(Token, Outcome)> {
        let wait = retry::full_jitter(&self.config.retry, nth, random()?);
        let is_in_time = Instant::now() + wait < call.deadline.at;
        if !is_in_time || call.pool.standing().0 == 0 || !call.host.budget.withdraw() {
            return None;
        }
        // On the machine's time, like the exchange it stands between.
        tokio::time::sleep(wait).await;
        let again = self.attempt(call, Attempt::Repeat, self.clock.uptime()).await.ok();
        if again.is_none() {
            call.host.budget.refund();
        }
        again
    }

    /// What the caller gets of the last outcome.
    fn conclude(&self, call: &Call<'_>, outcome: Outcome) -> Result<Fetched, Error> {
        match outcome {
            Outcome::Answered(answer) => Ok(answer),
            Outcome::Broken(broken) => Err(broken.into_error()),
            Outcome::QuotaRefused(wait) => Err(quota_used_up(wait)),
            Outcome::TokenRefused { status, .. } => Err(Error::new(
                Kind::UpstreamRefused,
                format!(
                    "the upstream answered {} to a fresh token of credential {}: its secret, its scope or \
                     its bots are not right",
                    status.as_u16(),
                    call.minter.name()
                ),
            )
            .proxy_status("proxy_configuration_error")),
        }
    }

    /// Where the pool stands that a call to `route` would be counted by. Takes no lock.
    pub fn standing(&self, account: &str, route: &Route, bot: Option<&str>) -> Option<Standing> {
        let state = self.accounts.get(account)?;
        let rates = match route.base {
            Base::ContactCenter => &state.account.quota.account,
            Base::Automation => &state.account.quota.bot,
        };
        let rate = *rates.first()?;
        let (left, reset) = match (route.base, bot) {
            // A bot is given a pool by its first call, not by being asked about.
            (Base::Automation, Some(bot)) => match state.bot_pools.peek(bot) {
                Some(pool) => pool.standing(),
                None => (least(rates)?, Duration::ZERO),
            },
            _ => state.pool.standing(),
        };
        Some(Standing { policy: "upstream", rate, left, reset })
    }

    /// What a call would come to before it is made: the credential it would be signed with, and why it
    /// would not be made at once. Changes nothing.
    pub fn outlook(&self, query: &Query) -> Result<Outlook, Error> {
        let (_, minter, host) = self.way(query)?;
        let standing = self.standing(&query.account, query.route, query.bot.as_deref());
        let left_alone = host.breaker.check().err().map(left_alone);
        let used_up =
            standing.filter(|standing| standing.left == 0).map(|standing| quota_used_up(standing.reset));
        Ok(Outlook { credential: minter.name().to_owned(), left_alone, used_up, standing })
    }

    /// Sets the gauges that are read rather than counted.
    pub fn observe(&self) {
        for (account, state) in &self.accounts {
            self.metrics.quota_available(account, "account", state.pool.standing().0);
            // Bots are many: the pool that is nearest to its end speaks for all.
            if let Some(least) = state.bot_pools.all().iter().map(|pool| pool.standing().0).min() {
                self.metrics.quota_available(account, "bot", least);
            }
            self.metrics.quota_waiting(account, state.waiting());
        }
    }

    /// Whether the quota of any bot is being counted.
    pub fn counts_bots(&self) -> bool {
        self.accounts.values().any(|state| !state.bot_pools.all().is_empty())
    }

    /// Calls that wait for room.
    pub fn waiting(&self) -> usize {
        self.accounts.values().map(State::waiting).sum()
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.pool.waiting() + self.bot_pools.all().iter().map(|pool| pool.waiting()).sum::<usize>()
    }
}

/// Calls that windows allow which hold none.
fn least(rates: &[Rate]) -> Option<u32> {
    rates.iter().map(|rate| rate.amount).min()
}

/// The clients that share an account's pools.
fn shares(config: &Config, account: &Account) -> Shares {
    let weight = |lane: Lane| {
        let clients = config.clients.iter();
        let theirs = clients.filter(|client| client.lane == lane && client.accounts.contains(&account.id));
        theirs.map(|client| client.weight).sum()
    };
    Shares {
        interactive: weight(Lane::Interactive),
        background: weight(Lane::Background),
        fairness: config.upstream.fairness,
    }
}

/// Looks after the tokens for as long as there is somebody to use them.
async fn keep(upstream: Weak<Upstream>, clock: Clock) {
    loop {
        clock.sleep(KEEP_EVERY).await;
        let Some(upstream) = upstream.upgrade() else { return };
        for state in upstream.accounts.values() {
            state.bot_pools.sweep();
            for minter in &state.minters {
                minter.keep().await;
            }
        }
    }
}

fn random() -> Option<u32> {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(u32::from_ne_bytes(bytes))
}

fn quota_used_up(wait: Duration) -> Error {
    let wait = wait.max(Duration::from_secs(1));
    Error::new(Kind::TemporaryReducedCapacity, "the upstream's quota is used up")
        .retry_after(wait)
        .proxy_status("connection_limit_reached")
}

fn too_many_bots() -> Error {
    let detail = "there are more bots than quotas can be counted for";
    Error::new(Kind::TemporaryReducedCapacity, detail)
        .retry_after(QUOTA_REFUSED_FOR)
        .proxy_status("connection_limit_reached")
}

fn left_alone(wait: Duration) -> Error {
    Error::new(
        Kind::TemporaryReducedCapacity,
        "the upstream has failed several times in a row and is left alone for a moment",
    )
    .retry_after(wait)
    .proxy_status("destination_unavailable")
}
