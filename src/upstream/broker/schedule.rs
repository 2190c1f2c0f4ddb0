//! When the first call of a queue can be served, and which queue is served first.

use std::time::Duration;

use super::demand::Demand;
use super::{Broker, ClientQueue, QueuedCall, amount};
use crate::config::{Lane, Rate};

/// The classes of service. Of calls that can be served at once, the lower class goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Class {
    BackgroundShare,
    Share,
    Surplus,
    BackgroundSurplus,
}

impl Class {
    pub(super) const fn is_in_share(self) -> bool {
        matches!(self, Self::BackgroundShare | Self::Share)
    }
}

impl Broker {
    /// When the windows have room for one more call. `None`: not before a call in flight ends.
    fn room(&self, now: Duration) -> Option<Duration> {
        let earliest = self.refused_until.max(now);
        self.rates
            .iter()
            .try_fold(earliest, |at, rate| Some(at.max(self.all.room_at(amount(rate), rate.window)?)))
    }

    /// When the next call of a client can be served, if no other call arrives.
    pub(super) fn ready_at(&self, queue: &ClientQueue, now: Duration) -> Option<Duration> {
        let room = self.room(now);
        if self.class(queue, now).is_in_share() {
            return room;
        }
        let share_again = self.share_room(queue).and_then(|at| Some(at.max(room?)));
        [share_again, self.surplus(queue, now)].into_iter().flatten().min()
    }

    /// When the next call of a client was due: when it arrived, or when the share had room again.
    pub(super) fn due(&self, queue: &ClientQueue, next: &QueuedCall, now: Duration) -> Duration {
        // Where the share is nothing, every call is surplus, and is due at once.
        let due = self.share_room(queue).map_or(now, |at| at.max(next.arrival));
        // A wait of more than the longest window gives no further precedence.
        due.clamp(now.saturating_sub(self.longest), now)
    }

    /// When the next call of a client is within its share.
    fn share_room(&self, queue: &ClientQueue) -> Option<Duration> {
        let due = |rate: &Rate| self.counted(queue).room_at(self.share(queue, rate), rate.window);
        self.rates.iter().try_fold(Duration::ZERO, |at, rate| Some(at.max(due(rate)?)))
    }

    /// What counts against the share of a client: its own calls, or those of the whole background lane.
    fn counted<'a>(&'a self, queue: &'a ClientQueue) -> &'a Demand {
        match queue.payer.lane {
            Lane::Interactive => &queue.demand,
            Lane::Background => &self.background,
        }
    }

    fn share(&self, queue: &ClientQueue, rate: &Rate) -> usize {
        match queue.payer.lane {
            Lane::Interactive => self.shares.interactive_share(amount(rate), queue.payer.weight),
            Lane::Background => self.shares.background_minimum(amount(rate)),
        }
    }

    fn exceeds_share(&self, queue: &ClientQueue, rate: &Rate, now: Duration) -> bool {
        self.counted(queue).within(rate.window, now) >= self.share(queue, rate)
    }

    pub(super) fn class(&self, queue: &ClientQueue, now: Duration) -> Class {
        let exceeds_share = self.rates.iter().any(|rate| self.exceeds_share(queue, rate, now));
        match (queue.payer.lane, exceeds_share) {
            (Lane::Background, false) => Class::BackgroundShare,
            (Lane::Interactive, false) => Class::Share,
            (Lane::Interactive, true) => Class::Surplus,
            (Lane::Background, true) => Class::BackgroundSurplus,
        }
    }

    /// Calls in the first window per weight, in thousandths. The client with the least goes first.
    pub(super) fn use_per_weight(&self, queue: &ClientQueue, now: Duration) -> u64 {
        let window = self.rates.first().map_or(Duration::ZERO, |rate| rate.window);
        queue.demand.within(window, now) as u64 * 1000 / u64::from(queue.payer.weight.max(1))
    }

    /// When a client that has used up its share gets a surplus call.
    fn surplus(&self, queue: &ClientQueue, now: Duration) -> Option<Duration> {
        let exceeded = self.rates.iter().filter(|rate| self.exceeds_share(queue, rate, now));
        exceeded
            .map(|rate| self.surplus_in(queue, rate, now))
            .try_fold(self.room(now)?, |at, next| Some(at.max(next?)))
    }

    fn surplus_in(&self, queue: &ClientQueue, rate: &Rate, now: Duration) -> Option<Duration> {
        let reserved = self.reserved_for_others(queue, rate, now);
        let open = amount(rate).saturating_sub(reserved);
        let free = open.saturating_sub(self.all.within(rate.window, now));
        if free == 0 {
            return self.all.room_at(open, rate.window);
        }
        if self.is_alone(queue, now) && open - free < amount(rate) / 2 {
            return Some(now);
        }
        // Spread over the time until the oldest call leaves the window. With `free` calls to grant, the next one is
        // due after one part in `free + 1` of the time between the last surplus call and then.
        let leaves = self.all.oldest(rate.window, now).unwrap_or(now) + rate.window;
        let free = u32::try_from(free).unwrap_or(u32::MAX - 1);
        Some((leaves + self.last_surplus * free) / (free + 1))
    }

    /// Whether no other client has calls in the window or waits. Then half of the quota is granted at once: to spread
    /// the misses of one page would help nobody.
    fn is_alone(&self, queue: &ClientQueue, now: Duration) -> bool {
        let window = self.rates.first().map_or(Duration::ZERO, |rate| rate.window);
        self.queues.values().all(|other| {
            let is_idle = other.backlog.is_empty() && other.demand.within(window, now) == 0;
            is_idle || other.payer.client == queue.payer.client
        })
    }

    /// How many calls of a window surplus must not use: what the other clients are likely to use of their shares, and
    /// the burst that one of them may bring after a silence. A burst finds room only if it was reserved. Only the
    /// first window of a pool is narrow enough for one burst to fill.
    fn reserved_for_others(&self, queue: &ClientQueue, rate: &Rate, now: Duration) -> usize {
        let is_first = self.rates.first() == Some(rate);
        let (mut expected, mut sudden) = (0, 0);
        let mut reserve = |demand: &Demand, share: usize| {
            let soon = demand.expected(share, rate, is_first, now);
            expected += soon;
            sudden = sudden.max(share.saturating_sub(demand.within(rate.window, now) + soon));
        };
        for other in self.queues.values() {
            if other.payer.lane == Lane::Interactive && other.payer.client != queue.payer.client {
                reserve(&other.demand, self.share(other, rate));
            }
        }
        if queue.payer.lane == Lane::Interactive {
            reserve(&self.background, self.shares.background_minimum(amount(rate)));
        }
        let reserved = if is_first {
            let unseen = self.shares.of_an_unseen_client(amount(rate), self.weight_seen());
            expected + sudden.max(unseen).min(self.shares.reserve(amount(rate)))
        } else {
            expected
        };
        reserved.max(self.shares.headroom(amount(rate)))
    }

    /// The weight of all interactive clients that have ever called.
    fn weight_seen(&self) -> u32 {
        let payers = self.queues.values().map(|queue| &queue.payer);
        payers.filter(|payer| payer.lane == Lane::Interactive).map(|payer| payer.weight).sum()
    }
}
