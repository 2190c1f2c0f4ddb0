//! Who gets the next call of a pool, and when. Pure: time is handed in, nothing here waits.
//!
//! Three rules, in this order:
//!
//! 1. No window ever holds more than its amount ([`Calls`]).
//! 2. **Shares.** Each client has a share of every window, by its weight among the clients of the
//!    account; the background lane has a minimum of its own. Within its share a client waits for
//!    nothing but the windows. Whoever has used least of its share goes first.
//! 3. **What is left over** goes to whoever asks, spread evenly over the time in which it comes
//!    back, and less what is kept for the others: some headroom, and what those who have lately
//!    been calling are about to use of their shares ([`Demand`]). So one client can use nearly all
//!    of an idle pool, and yet is out of the way when others come.
//!
//! A call for which several wait stands in the queue of each of them, and goes with the first.

mod demand;
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
use crate::spender::Spender;
use demand::Demand;
pub use shares::Shares;

/// A look ahead goes by steps of at most this: what is kept for others melts with time.
pub const STEP: Duration = Duration::from_secs(1);

/// The least by which time moves on.
pub const INSTANT: Duration = Duration::from_millis(1);

/// A place in a queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(u64);

#[derive(Clone, Copy, Debug)]
struct Waiting {
    ticket: Ticket,
    /// When it came into this queue.
    since: Duration,
    /// When the call would come too late.
    deadline: Duration,
}

/// One client's calls and its queue.
#[derive(Clone, Debug)]
struct Line {
    spender: Spender,
    demand: Demand,
    queue: VecDeque<Waiting>,
}

/// In the order in which those who could go at once do go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    BackgroundWithinMinimum,
    WithinShare,
    BeyondShare,
    BackgroundBeyondMinimum,
}

impl Class {
    const fn is_within(self) -> bool {
        matches!(self, Self::BackgroundWithinMinimum | Self::WithinShare)
    }
}

/// Where a pool stands, for as long as nobody calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outlook {
    /// Calls there is room for at once.
    pub left: u32,
    /// When all have come back; with none left, when one has.
    pub resets_at: Duration,
    /// When the next call leaves a window: from then on there is more room than is said here.
    pub holds_until: Duration,
}

/// One pool: its windows, its clients and their queues.
#[derive(Clone, Debug)]
pub struct Broker {
    rates: Vec<Rate>,
    longest: Duration,
    shares: Shares,
    all: Calls,
    background: Demand,
    lines: HashMap<Arc<str>, Line>,
    /// Those who stand in several queues.
    shared: HashSet<Ticket>,
    closed_until: Duration,
    /// When the last call beyond a share was granted.
    last_beyond: Duration,
    tickets: u64,
}

impl Broker {
    pub fn new(rates: &[Rate], shares: Shares) -> Self {
        Self {
            rates: rates.to_vec(),
            longest: rates.iter().map(|rate| rate.window).max().unwrap_or_default(),
            shares,
            all: Calls::default(),
            background: Demand::default(),
            lines: HashMap::new(),
            shared: HashSet::new(),
            closed_until: Duration::ZERO,
            last_beyond: Duration::ZERO,
            tickets: 0,
        }
    }

    /// Other windows and shares for the same calls.
    pub fn reshape(&mut self, rates: &[Rate], shares: Shares) {
        self.rates = rates.to_vec();
        self.longest = rates.iter().map(|rate| rate.window).max().unwrap_or_default();
        self.shares = shares;
    }

    /// A call takes a place in the queue of everyone who waits for it.
    pub fn ask(&mut self, spenders: &[Spender], now: Duration, deadline: Duration) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        for spender in spenders {
            self.line(spender).queue.push_back(Waiting { ticket, since: now, deadline });
        }
        if spenders.len() > 1 {
            self.shared.insert(ticket);
        }
        ticket
    }

    /// And in the queues of those who have joined them, if it waits still.
    pub fn join(&mut self, ticket: Ticket, spenders: &[Spender], now: Duration) {
        let mut waiting = self.lines.values().flat_map(|line| &line.queue);
        let Some(waiting) = waiting.find(|waiting| waiting.ticket == ticket).copied() else { return };
        for spender in spenders {
            let line = self.line(spender);
            if line.queue.iter().all(|there| there.ticket != ticket) {
                line.queue.push_back(Waiting { since: now, ..waiting });
                self.shared.insert(ticket);
            }
        }
    }

    fn line(&mut self, spender: &Spender) -> &mut Line {
        let line = self.lines.entry(spender.client.clone()).or_insert_with(|| Line {
            spender: spender.clone(),
            demand: Demand::default(),
            queue: VecDeque::new(),
        });
        line.spender.clone_from(spender); // A reload may have given it another lane or weight.
        line
    }

    /// Gives up a call's places.
    pub fn leave(&mut self, ticket: Ticket) {
        self.shared.remove(&ticket);
        for line in self.lines.values_mut() {
            line.queue.retain(|waiting| waiting.ticket != ticket);
        }
    }

    fn has_waiting(&self) -> bool {
        self.lines.values().any(|line| !line.queue.is_empty())
    }

    /// All who can call now, in their order. Their calls count as under way from here on.
    pub fn grant(&mut self, now: Duration) -> Vec<(Ticket, Spender)> {
        self.all.forget(now, self.longest);
        self.background.forget(now, self.longest);
        for line in self.lines.values_mut() {
            line.demand.forget(now, self.longest);
        }
        std::iter::from_fn(|| self.grant_one(now)).collect()
    }

    fn grant_one(&mut self, now: Duration) -> Option<(Ticket, Spender)> {
        let (_, class, due, client) = self
            .lines
            .iter()
            .filter_map(|(client, line)| {
                let first = line.queue.front()?;
                if self.ready(line, now).is_none_or(|at| at > now) {
                    return None;
                }
                let class = self.class(line, now);
                let due = self.due(line, first, now);
                let rank = match class {
                    _ if class.is_within() => due,
                    _ => Duration::from_millis(self.used(line, now)),
                };
                Some(((class, rank, first.ticket), class, due, client.clone()))
            })
            .min_by_key(|(order, ..)| *order)?;
        let first = self.rates.first().copied()?;
        let line = self.lines.get_mut(&client)?;
        let Waiting { ticket, .. } = line.queue.pop_front()?;
        let due = if class.is_within() { due } else { now };
        line.demand.take(due, &first);
        self.all.begin();
        if line.spender.lane == Lane::Background {
            self.background.take(due, &first);
        }
        if !class.is_within() {
            self.last_beyond = now;
        }
        let spender = line.spender.clone();
        if self.shared.contains(&ticket) {
            self.leave(ticket);
        }
        Some((ticket, spender))
    }

    /// A call that was granted has ended, or will count as if it ended at this time to come.
    pub fn end(&mut self, at: Duration) {
        self.all.end(at);
    }

    /// A call that was granted was never made.
    pub fn give_back(&mut self, spender: &Spender) {
        self.all.give_back();
        if spender.lane == Lane::Background {
            self.background.give_back();
        }
        if let Some(line) = self.lines.get_mut(&spender.client) {
            line.demand.give_back();
        }
    }

    /// The upstream said that there is no room before then.
    pub fn close_until(&mut self, until: Duration) {
        self.closed_until = self.closed_until.max(until);
    }

    /// When somebody may be able to call next; `None` if nobody waits or nobody knows.
    pub fn next(&self, now: Duration) -> Option<Duration> {
        let waiting = self.lines.values().filter(|line| !line.queue.is_empty());
        waiting.filter_map(|line| self.ready(line, now)).min()
    }

    /// Takes out of the queues whoever cannot be served in time, and if more than `most` wait, those
    /// who would be served last. With each, how long until there would be room for it.
    pub fn dismiss(&mut self, now: Duration, most: usize) -> Vec<(Ticket, Duration)> {
        let plan = self.plan(now);
        let late = plan
            .iter()
            .enumerate()
            .filter(|(place, (waiting, at))| *place >= most || *at > waiting.deadline)
            .map(|(_, (waiting, at))| (waiting.ticket, at.saturating_sub(now)))
            .collect::<Vec<_>>();
        for (ticket, _) in &late {
            self.leave(*ticket);
        }
        late
    }

    /// Everybody who waits and when they will be served, if nobody else comes.
    fn plan(&self, now: Duration) -> Vec<(Waiting, Duration)> {
        let deadlines: HashMap<Ticket, Waiting> = self
            .lines
            .values()
            .flat_map(|line| line.queue.iter().map(|waiting| (waiting.ticket, *waiting)))
            .collect();
        let mut plan = Vec::with_capacity(deadlines.len());
        if deadlines.is_empty() {
            return plan;
        }
        let mut ahead = self.clone();
        ahead.all.end_all(now);
        let mut at = now;
        while plan.len() < deadlines.len() {
            for (ticket, _) in ahead.grant(at) {
                ahead.end(at);
                plan.extend(deadlines.get(&ticket).map(|waiting| (*waiting, at)));
            }
            // Without a window that ever opens there is nothing to see ahead.
            let Some(next) = ahead.next(at) else { break };
            // The further off, the longer the steps.
            at += next.saturating_sub(at).min(STEP.max(next.saturating_sub(at) / 4)).max(INSTANT);
        }
        plan
    }

    /// Whether nothing of what is known here matters any more.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.closed_until <= now && !self.has_waiting() && self.all.within(self.longest, now) == 0
    }

    /// How many calls there is room for, if nothing happens but that time passes.
    pub fn outlook(&self, now: Duration) -> Outlook {
        let is_closed = self.closed_until > now;
        let left = |rate: &Rate| amount(rate).saturating_sub(self.all.within(rate.window, now));
        let left = if is_closed { 0 } else { self.rates.iter().map(left).min().unwrap_or(0) };
        let resets_at = if left == 0 {
            // What is under way counts until a window after its end, which is now at the earliest.
            let room = |rate: &Rate| self.all.room_at(amount(rate), rate.window).unwrap_or(now + rate.window);
            self.rates.iter().map(room).max().unwrap_or(now).max(self.closed_until)
        } else {
            let empty = |rate: &Rate| self.all.empty_at(rate.window, now);
            self.rates.iter().map(empty).min().unwrap_or(now)
        };
        let leaves = |rate: &Rate| Some(self.all.oldest(rate.window, now)? + rate.window);
        let changes = self.rates.iter().filter_map(leaves).chain(is_closed.then_some(self.closed_until));
        Outlook {
            left: u32::try_from(left).unwrap_or(u32::MAX),
            resets_at,
            holds_until: changes.min().unwrap_or(Duration::MAX),
        }
    }

    /// From when on there is room for anybody at all.
    fn room(&self, now: Duration) -> Option<Duration> {
        let open = self.closed_until.max(now);
        self.rates
            .iter()
            .try_fold(open, |at, rate| Some(at.max(self.all.room_at(amount(rate), rate.window)?)))
    }

    /// From when on a client can make its next call, as things stand.
    fn ready(&self, line: &Line, now: Duration) -> Option<Duration> {
        let room = self.room(now);
        if self.class(line, now).is_within() {
            return room;
        }
        let within_again = self.share_room(line).and_then(|at| Some(at.max(room?)));
        [within_again, self.beyond(line, now)].into_iter().flatten().min()
    }

    /// When a client's next call was due: when it was asked for, or when the share had room again.
    fn due(&self, line: &Line, next: &Waiting, now: Duration) -> Duration {
        // Of a share of nothing all is beyond, and due when it comes.
        let due = self.share_room(line).map_or(now, |at| at.max(next.since));
        // What was due longer ago than that is not owed any more.
        due.clamp(now.saturating_sub(self.longest), now)
    }

    /// From when on a client's next call is within its share.
    fn share_room(&self, line: &Line) -> Option<Duration> {
        let due = |rate: &Rate| self.spent(line).room_at(self.share(line, rate), rate.window);
        self.rates.iter().try_fold(Duration::ZERO, |at, rate| Some(at.max(due(rate)?)))
    }

    /// What counts towards a client's share: its own calls, or those of the background lane.
    fn spent<'a>(&'a self, line: &'a Line) -> &'a Demand {
        match line.spender.lane {
            Lane::Interactive => &line.demand,
            Lane::Background => &self.background,
        }
    }

    fn share(&self, line: &Line, rate: &Rate) -> usize {
        match line.spender.lane {
            Lane::Interactive => self.shares.interactive_share(amount(rate), line.spender.weight),
            Lane::Background => self.shares.background_minimum(amount(rate)),
        }
    }

    fn is_beyond(&self, line: &Line, rate: &Rate, now: Duration) -> bool {
        self.spent(line).within(rate.window, now) >= self.share(line, rate)
    }

    fn class(&self, line: &Line, now: Duration) -> Class {
        let is_beyond = self.rates.iter().any(|rate| self.is_beyond(line, rate, now));
        match (line.spender.lane, is_beyond) {
            (Lane::Background, false) => Class::BackgroundWithinMinimum,
            (Lane::Interactive, false) => Class::WithinShare,
            (Lane::Interactive, true) => Class::BeyondShare,
            (Lane::Background, true) => Class::BackgroundBeyondMinimum,
        }
    }

    /// Calls in the first window by weight, in thousandths: the least goes first.
    fn used(&self, line: &Line, now: Duration) -> u64 {
        let window = self.rates.first().map_or(Duration::ZERO, |rate| rate.window);
        line.demand.within(window, now) as u64 * 1000 / u64::from(line.spender.weight.max(1))
    }

    /// When a client that has used up its share can have one more.
    fn beyond(&self, line: &Line, now: Duration) -> Option<Duration> {
        let beyond = self.rates.iter().filter(|rate| self.is_beyond(line, rate, now));
        beyond
            .map(|rate| self.beyond_in(line, rate, now))
            .try_fold(self.room(now)?, |at, next| Some(at.max(next?)))
    }

    fn beyond_in(&self, line: &Line, rate: &Rate, now: Duration) -> Option<Duration> {
        let kept = self.kept_from(line, rate, now);
        let open = amount(rate).saturating_sub(kept);
        let free = open.saturating_sub(self.all.within(rate.window, now));
        if free == 0 {
            return self.all.room_at(open, rate.window);
        }
        if self.is_alone(line, now) && open - free < amount(rate) / 2 {
            return Some(now);
        }
        // Spread over the time until the oldest call leaves the window: with `free` more to give, the
        // next is due one part in `free + 1` of the way from the last one to then.
        let leaves = self.all.oldest(rate.window, now).unwrap_or(now) + rate.window;
        let free = u32::try_from(free).unwrap_or(u32::MAX - 1);
        Some((leaves + self.last_beyond * free) / (free + 1))
    }

    /// Whether nobody else has lately been calling, or waits. Half of an idle quota is then for the
    /// taking at once; a page of many misses need not come in drop by drop for nobody's good.
    fn is_alone(&self, line: &Line, now: Duration) -> bool {
        let window = self.rates.first().map_or(Duration::ZERO, |rate| rate.window);
        self.lines.values().all(|other| {
            let is_idle = other.queue.is_empty() && other.demand.within(window, now) == 0;
            is_idle || other.spender.client == line.spender.client
        })
    }

    /// What of a window's amount is not for a client beyond its share.
    fn kept_from(&self, line: &Line, rate: &Rate, now: Duration) -> usize {
        let is_first = self.rates.first() == Some(rate);
        let others = self.lines.values().filter(|other| {
            other.spender.lane == Lane::Interactive && other.spender.client != line.spender.client
        });
        let interactive: usize =
            others.map(|other| other.demand.expected(self.share(other, rate), rate, is_first, now)).sum();
        let lane = match line.spender.lane {
            Lane::Background => 0,
            Lane::Interactive => {
                let minimum = self.shares.background_minimum(amount(rate));
                self.background.expected(minimum, rate, is_first, now)
            }
        };
        (interactive + lane).max(self.shares.headroom(amount(rate)))
    }
}

fn amount(rate: &Rate) -> usize {
    rate.amount as usize
}
