//! From when on a client may make its next call, and whose turn it is.

use std::time::Duration;

use super::demand::Demand;
use super::{Broker, ClientQueue, QueuedCall, amount};
use crate::config::{Lane, Rate};

/// In the order in which those who could go at once do go.
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
    /// From when on there is room for anybody at all.
    fn room(&self, now: Duration) -> Option<Duration> {
        let open = self.refused_until.max(now);
        self.rates
            .iter()
            .try_fold(open, |at, rate| Some(at.max(self.all.room_at(amount(rate), rate.window)?)))
    }

    /// From when on a client can make its next call, as things stand.
    pub(super) fn ready_at(&self, queue: &ClientQueue, now: Duration) -> Option<Duration> {
        let room = self.room(now);
        if self.class(queue, now).is_in_share() {
            return room;
        }
        let within_again = self.share_room(queue).and_then(|at| Some(at.max(room?)));
        [within_again, self.surplus(queue, now)].into_iter().flatten().min()
    }

    /// When a client's next call was due: when it was asked for, or when the share had room again.
    pub(super) fn due(&self, queue: &ClientQueue, next: &QueuedCall, now: Duration) -> Duration {
        // Of a share of nothing all is beyond, and due when it comes.
        let due = self.share_room(queue).map_or(now, |at| at.max(next.arrival));
        // What was due longer ago than that is not owed any more.
        due.clamp(now.saturating_sub(self.longest), now)
    }

    /// From when on a client's next call is within its share.
    fn share_room(&self, queue: &ClientQueue) -> Option<Duration> {
        let due = |rate: &Rate| self.spent(queue).room_at(self.share(queue, rate), rate.window);
        self.rates.iter().try_fold(Duration::ZERO, |at, rate| Some(at.max(due(rate)?)))
    }

    /// What counts towards a client's share: its own calls, or those of the background lane.
    fn spent<'a>(&'a self, queue: &'a ClientQueue) -> &'a Demand {
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
        self.spent(queue).within(rate.window, now) >= self.share(queue, rate)
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

    /// Calls in the first window by weight, in thousandths: the least goes first.
    pub(super) fn used(&self, queue: &ClientQueue, now: Duration) -> u64 {
        let window = self.rates.first().map_or(Duration::ZERO, |rate| rate.window);
        queue.demand.within(window, now) as u64 * 1000 / u64::from(queue.payer.weight.max(1))
    }

    /// When a client that has used up its share can have one more.
    fn surplus(&self, queue: &ClientQueue, now: Duration) -> Option<Duration> {
        let exceeded = self.rates.iter().filter(|rate| self.exceeds_share(queue, rate, now));
        exceeded
            .map(|rate| self.surplus_in(queue, rate, now))
            .try_fold(self.room(now)?, |at, next| Some(at.max(next?)))
    }

    fn surplus_in(&self, queue: &ClientQueue, rate: &Rate, now: Duration) -> Option<Duration> {
        let kept = self.kept_from(queue, rate, now);
        let open = amount(rate).saturating_sub(kept);
        let free = open.saturating_sub(self.all.within(rate.window, now));
        if free == 0 {
            return self.all.room_at(open, rate.window);
        }
        if self.is_alone(queue, now) && open - free < amount(rate) / 2 {
            return Some(now);
        }
        // Spread over the time until the oldest call leaves the window: with `free` more to give, the
        // next is due one part in `free + 1` of the way from the last one to then.
        let leaves = self.all.oldest(rate.window, now).unwrap_or(now) + rate.window;
        let free = u32::try_from(free).unwrap_or(u32::MAX - 1);
        Some((leaves + self.last_surplus * free) / (free + 1))
    }

    /// Whether nobody else has lately been calling, or waits. Half of an idle quota is then for the
    /// taking at once; a page of many misses need not come in drop by drop for nobody's good.
    fn is_alone(&self, queue: &ClientQueue, now: Duration) -> bool {
        let window = self.rates.first().map_or(Duration::ZERO, |rate| rate.window);
        self.queues.values().all(|other| {
            let is_idle = other.backlog.is_empty() && other.demand.within(window, now) == 0;
            is_idle || other.payer.client == queue.payer.client
        })
    }

    /// What of a window's amount is not for a client beyond its share: what the others are about to
    /// use, and what one of them may come with unawares. A burst after a silence finds room only if it
    /// was kept; of the pool's windows only the first is narrow enough for one to fill.
    fn kept_from(&self, queue: &ClientQueue, rate: &Rate, now: Duration) -> usize {
        let is_first = self.rates.first() == Some(rate);
        let (mut expected, mut unexpected) = (0, 0);
        let mut keep = |demand: &Demand, share: usize| {
            let soon = demand.expected(share, rate, is_first, now);
            expected += soon;
            unexpected = unexpected.max(share.saturating_sub(demand.within(rate.window, now) + soon));
        };
        for other in self.queues.values() {
            if other.payer.lane == Lane::Interactive && other.payer.client != queue.payer.client {
                keep(&other.demand, self.share(other, rate));
            }
        }
        if queue.payer.lane == Lane::Interactive {
            keep(&self.background, self.shares.background_minimum(amount(rate)));
        }
        let kept = if is_first {
            let unseen = self.shares.of_an_unseen_client(amount(rate), self.weight_seen());
            expected + unexpected.max(unseen).min(self.shares.reserve(amount(rate)))
        } else {
            expected
        };
        kept.max(self.shares.headroom(amount(rate)))
    }

    /// Of all interactive clients who have ever called.
    fn weight_seen(&self) -> u32 {
        let payers = self.queues.values().map(|queue| &queue.payer);
        payers.filter(|payer| payer.lane == Lane::Interactive).map(|payer| payer.weight).sum()
    }
}
