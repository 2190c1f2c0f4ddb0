//! Who gets the next call of a pool, and when. Pure: time is handed in, nothing here waits.
//!
//! Three rules, in this order:
//!
//! 1. No window ever holds more than its amount ([`Calls`]).
//! 2. **Shares.** Each client has a share of every window, by its weight among the clients of the
//!    account; the background lane has a minimum of its own. Within its share a client waits for
//!    nothing but the windows. Whoever has used least of its share goes first.
//! 3. **What is left over** goes to whoever asks, spread evenly over the time in which it comes
//!    back, and less what is kept for the others: what those who have lately been calling are about
//!    to use of their shares ([`Demand`]), and what any one of them may come with all of a sudden. So
//!    one client can use most of an idle pool, and yet is out of the way when others come.
//!
//! A call for which several wait stands in the queue of each of them, and goes with the first.

mod demand;
mod forecast;
mod schedule;
mod shares;

#[cfg(test)]
mod bursts;
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

/// A place in a queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(u64);

#[derive(Clone, Copy, Debug)]
struct QueuedCall {
    ticket: Ticket,
    /// When it came into this queue.
    arrival: Duration,
    /// When the call would come too late.
    deadline: Duration,
}

/// One client's calls and its queue.
#[derive(Clone, Debug)]
struct ClientQueue {
    payer: Payer,
    demand: Demand,
    backlog: VecDeque<QueuedCall>,
}

/// One pool: its windows, its clients and their queues.
#[derive(Clone, Debug)]
pub struct Broker {
    rates: Vec<Rate>,
    longest: Duration,
    shares: QuotaShares,
    all: Calls,
    background: Demand,
    queues: HashMap<Arc<str>, ClientQueue>,
    /// Those who stand in several queues.
    shared: HashSet<Ticket>,
    refused_until: Duration,
    /// When the last call beyond a share was granted.
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

    /// Other windows and shares for the same calls.
    pub fn reshape(&mut self, rates: &[Rate], shares: QuotaShares) {
        self.rates = rates.to_vec();
        self.longest = rates.iter().map(|rate| rate.window).max().unwrap_or_default();
        self.shares = shares;
    }

    /// A call takes a place in the queue of everyone who waits for it.
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

    /// And in the queues of those who have joined them, if it waits still.
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

    /// Gives up a call's places.
    pub fn withdraw(&mut self, ticket: Ticket) {
        self.shared.remove(&ticket);
        for queue in self.queues.values_mut() {
            queue.backlog.retain(|waiting| waiting.ticket != ticket);
        }
    }

    fn has_waiting(&self) -> bool {
        self.queues.values().any(|queue| !queue.backlog.is_empty())
    }

    /// All who can call now, in their order. Their calls count as under way from here on.
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
                    _ => Duration::from_millis(self.used(queue, now)),
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

    /// A call that was granted has ended, or will count as if it ended at this time to come.
    pub fn end(&mut self, at: Duration) {
        self.all.end(at);
    }

    /// A call that was granted was never made.
    pub fn give_back(&mut self, payer: &Payer) {
        self.all.give_back();
        if payer.lane == Lane::Background {
            self.background.give_back();
        }
        if let Some(queue) = self.queues.get_mut(&payer.client) {
            queue.demand.give_back();
        }
    }

    /// The upstream said that there is no room before then.
    pub fn refuse_until(&mut self, until: Duration) {
        self.refused_until = self.refused_until.max(until);
    }

    /// When somebody may be able to call next; `None` if nobody waits or nobody knows.
    pub fn next_grant(&self, now: Duration) -> Option<Duration> {
        let waiting = self.queues.values().filter(|queue| !queue.backlog.is_empty());
        waiting.filter_map(|queue| self.ready_at(queue, now)).min()
    }

    /// Whether nothing of what is known here matters any more.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.refused_until <= now && !self.has_waiting() && self.all.within(self.longest, now) == 0
    }
}

fn amount(rate: &Rate) -> usize {
    rate.amount as usize
}
