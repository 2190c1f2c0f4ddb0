//! Decides which queued call gets the next slot of a pool's quota, and when. Pure: time is passed in, and nothing here
//! waits.
//!
//! **Words.** A *call* arrives and joins the backlog of its client's *queue* ([`ClientQueue`]). It is *served* when
//! it is *granted*: from then on it counts in every rolling window of the quota ([`Calls`]). Each client has a
//! *share* of every window ([`QuotaShares`]). What a client takes beyond its share is *surplus*. The *demand* of a
//! client ([`Demand`]) is what it has used of its share and what it is likely to use soon. A call that cannot be
//! served by its deadline is *shed*.
//!
//! **Rules**, in this order:
//!
//! 1. No window ever holds more calls than its amount.
//! 2. A call within its client's share is served as soon as the windows have room. Of several such calls the one that
//!    has been due for longest goes first. All clients of the background lane have one share together, and calls
//!    within it go before the calls of interactive clients.
//! 3. Any client may get surplus, but the surplus calls are spread evenly over the time until the oldest call leaves
//!    the window. A part of the window stays reserved: what recently active clients are likely to use of their shares,
//!    and the burst that one client may bring after a silence. Of several surplus calls those of interactive clients
//!    go first, and among these the one of the client with the least use per weight. A client that is alone may take
//!    half of the window at once.
//!
//! So one client can use most of an idle pool, and is out of the way when others come.
//!
//! **Example.** A pool allows ten calls in 60 s. Clients `a` and `b` are interactive and have the same weight,
//! `export` is in the background lane. The background minimum is 20 %, which is 2 calls. So `a` and `b` have a share
//! of 4 calls each. The reserve for a sudden burst is 20 % and the headroom 10 %. Each call ends as soon as it is
//! made. The columns: the second, what arrives (clients and calls), which calls are granted, which are shed, and then
//! how many calls the window holds and how many wait.
//!
//! | s   | arrives    | granted  | shed | window | waiting | why |
//! |-----|------------|----------|------|--------|---------|-----|
//! | 0   | a 7        | a 5      |      | 5      | 2       | 4 are its share. It is alone, so it has half of the window at once |
//! | 15  |            | a 1      |      | 6      | 1       | surplus: 2 are reserved, 3 were free. They are spread: 60 s / (3 + 1) = 15 s |
//! | 20  | b 2        | b 2      |      | 8      | 1       | within the share of `b`. From now on 2 more are reserved for `b`, so `a` waits |
//! | 25  | export 3   | export 2 |      | 10     | 2       | 2 are the background minimum. The window is full |
//! | 30  | b 3        |          |      | 10     | 5       | 2 of them are within the share and due now, but the window is full |
//! | 35  | a 1 by 50  |          | a 1  | 10     | 5       | no call leaves the window before 60 s, so it cannot meet its deadline |
//! | 60  |            | a 1, b 2 |      | 8      | 2       | 5 calls leave. `b` was due at 30 s and `a` at 60 s. The rest is reserved for `a` |
//! | 80  |            | b 1      |      | 6      | 1       | the first calls of `b` leave, so that its share has room again |
//! | 85  |            | export 1 |      | 5      | 0       | the same for the background minimum |
//! | 100 | 429 for 30 |          |      | 5      | 0       | the upstream refuses all calls until 130 s, whatever the window says |
//! | 110 | b 1        |          |      | 5      | 1       | within the share, but refused until 130 s |
//! | 130 |            | b 1      |      | 3      | 0       | the refusal has ended |
//!
//! A test runs this table (`example`). A call that several clients wait for is in the queue of each of them, and is
//! granted with the first.

mod demand;
mod forecast;
mod schedule;
mod shares;

#[cfg(test)]
mod bursts;
#[cfg(test)]
mod example;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::quota::Calls;
use crate::config::{Lane, Rate};
use crate::fetch::payer::Payer;
use demand::Demand;
pub use forecast::{Availability, INSTANT, STEP};
pub use shares::QuotaShares;

/// The number of one call in the queues.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(u64);

#[derive(Clone, Copy, Debug)]
struct QueuedCall {
    ticket: Ticket,
    /// When it arrived in this queue.
    arrival: Duration,
    /// The latest time at which a grant is of use.
    deadline: Duration,
}

/// The calls of one client: those it has made, and those that wait.
#[derive(Clone, Debug)]
struct ClientQueue {
    payer: Payer,
    demand: Demand,
    backlog: VecDeque<QueuedCall>,
}

/// One pool: its windows and the queues of its clients.
#[derive(Clone, Debug)]
pub struct Broker {
    rates: Vec<Rate>,
    longest: Duration,
    shares: QuotaShares,
    all: Calls,
    background: Demand,
    queues: HashMap<Arc<str>, ClientQueue>,
    /// Calls that are in several queues.
    shared: HashSet<Ticket>,
    /// The upstream grants no call before this time.
    refused_until: Duration,
    /// When the last surplus call was granted.
    last_surplus: Duration,
    tickets: u64,
}

impl Broker {
    pub fn new(rates: &[Rate], shares: QuotaShares) -> Self {
        Self {
            rates: rates.to_vec(),
            longest: rates.iter().map(|rate| rate.window).max().unwrap_or_default(),
            shares,
            all: Calls::default(),
            background: Demand::default(),
            queues: HashMap::new(),
            shared: HashSet::new(),
            refused_until: Duration::ZERO,
            last_surplus: Duration::ZERO,
            tickets: 0,
        }
    }

    /// Replaces the windows and the shares. The calls stay.
    pub fn reshape(&mut self, rates: &[Rate], shares: QuotaShares) {
        self.rates = rates.to_vec();
        self.longest = rates.iter().map(|rate| rate.window).max().unwrap_or_default();
        self.shares = shares;
    }

    /// Adds a call to the queue of every client that waits for it.
    pub fn enqueue(&mut self, payers: &[Payer], now: Duration, deadline: Duration) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        for payer in payers {
            self.client_queue(payer).backlog.push_back(QueuedCall { ticket, arrival: now, deadline });
        }
        if payers.len() > 1 {
            self.shared.insert(ticket);
        }
        ticket
    }

    /// Adds a call that still waits to the queues of clients that have joined it.
    pub fn join(&mut self, ticket: Ticket, payers: &[Payer], now: Duration) {
        let mut waiting = self.queues.values().flat_map(|queue| &queue.backlog);
        let Some(waiting) = waiting.find(|waiting| waiting.ticket == ticket).copied() else { return };
        for payer in payers {
            let queue = self.client_queue(payer);
            if queue.backlog.iter().all(|there| there.ticket != ticket) {
                queue.backlog.push_back(QueuedCall { arrival: now, ..waiting });
                self.shared.insert(ticket);
            }
        }
    }

    fn client_queue(&mut self, payer: &Payer) -> &mut ClientQueue {
        let queue = self.queues.entry(payer.client.clone()).or_insert_with(|| ClientQueue {
            payer: payer.clone(),
            demand: Demand::default(),
            backlog: VecDeque::new(),
        });
        queue.payer.clone_from(payer); // A reload may have given it another lane or weight.
        queue
    }

    /// Removes a call from all queues.
    pub fn withdraw(&mut self, ticket: Ticket) {
        self.shared.remove(&ticket);
        for queue in self.queues.values_mut() {
            queue.backlog.retain(|waiting| waiting.ticket != ticket);
        }
    }

    fn has_waiting(&self) -> bool {
        self.queues.values().any(|queue| !queue.backlog.is_empty())
    }

    /// Grants every call that can be served now, in order. A granted call counts as in flight.
    pub fn grant(&mut self, now: Duration) -> Vec<(Ticket, Payer)> {
        self.all.forget(now, self.longest);
        self.background.forget(now, self.longest);
        for queue in self.queues.values_mut() {
            queue.demand.forget(now, self.longest);
        }
        std::iter::from_fn(|| self.grant_one(now)).collect()
    }

    fn grant_one(&mut self, now: Duration) -> Option<(Ticket, Payer)> {
        let (_, class, due, client) = self
            .queues
            .iter()
            .filter_map(|(client, queue)| {
                let first = queue.backlog.front()?;
                if self.ready_at(queue, now).is_none_or(|at| at > now) {
                    return None;
                }
                let class = self.class(queue, now);
                let due = self.due(queue, first, now);
                let rank = match class {
                    _ if class.is_in_share() => due,
                    _ => Duration::from_millis(self.use_per_weight(queue, now)),
                };
                Some(((class, rank, first.ticket), class, due, client.clone()))
            })
            .min_by_key(|(order, ..)| *order)?;
        let first = self.rates.first().copied()?;
        let queue = self.queues.get_mut(&client)?;
        let QueuedCall { ticket, .. } = queue.backlog.pop_front()?;
        let due = if class.is_in_share() { due } else { now };
        queue.demand.take(due, &first);
        self.all.begin();
        if queue.payer.lane == Lane::Background {
            self.background.take(due, &first);
        }
        if !class.is_in_share() {
            self.last_surplus = now;
        }
        let payer = queue.payer.clone();
        if self.shared.contains(&ticket) {
            self.withdraw(ticket);
        }
        Some((ticket, payer))
    }

    /// A granted call has ended. A later time than now makes it count for longer.
    pub fn end(&mut self, at: Duration) {
        self.all.end(at);
    }

    /// A granted call was never sent.
    pub fn give_back(&mut self, payer: &Payer) {
        self.all.give_back();
        if payer.lane == Lane::Background {
            self.background.give_back();
        }
        if let Some(queue) = self.queues.get_mut(&payer.client) {
            queue.demand.give_back();
        }
    }

    /// The upstream has refused calls until then.
    pub fn refuse_until(&mut self, until: Duration) {
        self.refused_until = self.refused_until.max(until);
    }

    /// When the next call may be granted. `None` if no call waits, or if that depends on a call in flight.
    pub fn next_grant(&self, now: Duration) -> Option<Duration> {
        let waiting = self.queues.values().filter(|queue| !queue.backlog.is_empty());
        waiting.filter_map(|queue| self.ready_at(queue, now)).min()
    }

    /// Whether nothing is lost with this broker: no call in a window, none that waits, no refusal.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.refused_until <= now && !self.has_waiting() && self.all.within(self.longest, now) == 0
    }
}

fn amount(rate: &Rate) -> usize {
    rate.amount as usize
}
