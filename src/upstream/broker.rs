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
//!    been calling are on their way to use of their shares. So one client can use nearly all of
//!    an idle pool, and yet is out of the way when others come.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::quota::Calls;
use crate::config::{Client, Fairness, Lane, Rate};

/// A look ahead goes by steps of at most this: what is kept for others melts with time.
pub const STEP: Duration = Duration::from_secs(1);

/// The least by which time moves on.
pub const INSTANT: Duration = Duration::from_millis(1);

/// On whose account a call is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spender {
    pub client: Arc<str>,
    pub lane: Lane,
    /// At least 1; twice the weight, twice the share.
    pub weight: u32,
}

impl From<&Client> for Spender {
    fn from(client: &Client) -> Self {
        Self { client: client.name.clone(), lane: client.lane, weight: client.weight }
    }
}

/// The clients among whom a pool is shared, and by what rule.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Sums of weights.
    pub interactive: u32,
    pub background: u32,
    pub fairness: Fairness,
}

impl Shares {
    /// What the background lane gets of a window's `amount` in any case.
    fn background_minimum(&self, amount: usize) -> usize {
        match (self.interactive, self.background) {
            (_, 0) => 0,
            (0, _) => amount,
            _ => percent(amount, self.fairness.background_minimum).max(1),
        }
    }

    /// An interactive client's share of a window's `amount`.
    fn interactive_share(&self, amount: usize, weight: u32) -> usize {
        let amount = amount - self.background_minimum(amount);
        let sum = self.interactive.max(weight).max(1) as usize;
        (amount * weight as usize / sum).max(1)
    }
}

fn percent(amount: usize, percent: u32) -> usize {
    amount * percent as usize / 100
}

/// A place in a queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(u64);

#[derive(Clone, Copy, Debug)]
struct Waiting {
    ticket: Ticket,
    /// When the call would come too late.
    deadline: Duration,
}

/// One client's calls and its queue.
#[derive(Clone, Debug)]
struct Line {
    spender: Spender,
    calls: Calls,
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
    background: Calls,
    lines: HashMap<Arc<str>, Line>,
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
            background: Calls::default(),
            lines: HashMap::new(),
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

    /// Takes a place in the spender's queue.
    pub fn ask(&mut self, spender: &Spender, deadline: Duration) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let line = self.lines.entry(spender.client.clone()).or_insert_with(|| Line {
            spender: spender.clone(),
            calls: Calls::default(),
            queue: VecDeque::new(),
        });
        line.spender.clone_from(spender); // A reload may have given it another lane or weight.
        line.queue.push_back(Waiting { ticket, deadline });
        ticket
    }

    /// Gives up a place.
    pub fn leave(&mut self, ticket: Ticket) {
        for line in self.lines.values_mut() {
            line.queue.retain(|waiting| waiting.ticket != ticket);
        }
    }

    pub fn waiting(&self) -> usize {
        self.lines.values().map(|line| line.queue.len()).sum()
    }

    /// All who can call now, in their order. Their calls count as under way from here on.
    pub fn grant(&mut self, now: Duration) -> Vec<(Ticket, Spender)> {
        self.all.forget(now, self.longest);
        self.background.forget(now, self.longest);
        for line in self.lines.values_mut() {
            line.calls.forget(now, self.longest);
        }
        std::iter::from_fn(|| self.grant_one(now)).collect()
    }

    fn grant_one(&mut self, now: Duration) -> Option<(Ticket, Spender)> {
        let (_, class, client) = self
            .lines
            .iter()
            .filter_map(|(client, line)| {
                let first = line.queue.front()?;
                let is_due = self.ready(line, now).is_some_and(|at| at <= now);
                let class = self.class(line, now);
                is_due.then(|| ((class, self.used(line, now), first.ticket), class, client.clone()))
            })
            .min_by_key(|(order, ..)| *order)?;
        let line = self.lines.get_mut(&client)?;
        let waiting = line.queue.pop_front()?;
        line.calls.begin();
        self.all.begin();
        if line.spender.lane == Lane::Background {
            self.background.begin();
        }
        if !class.is_within() {
            self.last_beyond = now;
        }
        Some((waiting.ticket, line.spender.clone()))
    }

    /// A call that was granted has ended.
    pub fn end(&mut self, spender: &Spender, now: Duration) {
        self.on(spender, |calls| calls.end(now));
    }

    /// A call that was granted was never made.
    pub fn give_back(&mut self, spender: &Spender) {
        self.on(spender, Calls::give_back);
    }

    fn on(&mut self, spender: &Spender, act: impl Fn(&mut Calls)) {
        act(&mut self.all);
        if spender.lane == Lane::Background {
            act(&mut self.background);
        }
        if let Some(line) = self.lines.get_mut(&spender.client) {
            act(&mut line.calls);
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
        ahead.end_all(now);
        let mut at = now;
        while plan.len() < deadlines.len() {
            for (ticket, spender) in ahead.grant(at) {
                ahead.end(&spender, at);
                plan.extend(deadlines.get(&ticket).map(|waiting| (*waiting, at)));
            }
            // Without a window that ever opens there is nothing to see ahead.
            let Some(next) = ahead.next(at) else { break };
            // The further off, the longer the steps.
            at += next.saturating_sub(at).min(STEP.max(next.saturating_sub(at) / 4)).max(INSTANT);
        }
        plan
    }

    fn end_all(&mut self, now: Duration) {
        self.all.end_all(now);
        self.background.end_all(now);
        for line in self.lines.values_mut() {
            line.calls.end_all(now);
        }
    }

    /// Whether nothing of what is known here matters any more.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.closed_until <= now && self.waiting() == 0 && self.all.within(self.longest, now) == 0
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
        let within_again = self.rates.iter().try_fold(room?, |at, rate| {
            Some(at.max(self.spent(line).room_at(self.share(line, rate), rate.window)?))
        });
        [within_again, self.beyond(line, now)].into_iter().flatten().min()
    }

    /// What counts towards a client's share: its own calls, or those of the background lane.
    fn spent<'a>(&'a self, line: &'a Line) -> &'a Calls {
        match line.spender.lane {
            Lane::Interactive => &line.calls,
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
    fn used(&self, line: &Line, now: Duration) -> usize {
        let window = self.rates.first().map_or(Duration::ZERO, |rate| rate.window);
        line.calls.within(window, now) * 1000 / line.spender.weight.max(1) as usize
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
            let is_idle = other.queue.is_empty() && other.calls.within(window, now) == 0;
            is_idle || other.spender.client == line.spender.client
        })
    }

    /// What of a window's amount is not for a client beyond its share.
    fn kept_from(&self, line: &Line, rate: &Rate, now: Duration) -> usize {
        let background = line.spender.lane == Lane::Background;
        let others = self.lines.values().filter(|other| {
            other.spender.lane == Lane::Interactive && other.spender.client != line.spender.client
        });
        let interactive: usize =
            others.map(|other| self.expected(&other.calls, self.share(other, rate), rate, now)).sum();
        let minimum = self.shares.background_minimum(amount(rate));
        let lane = if background { 0 } else { self.expected(&self.background, minimum, rate, now) };
        (interactive + lane).max(percent(amount(rate), self.shares.fairness.headroom))
    }

    /// What is yet to come within a share from one that has lately been calling, going by the pace
    /// it keeps. Just come: its whole share. Seen through a whole window: nothing more than it has,
    /// for each call that leaves the window makes room for the next.
    fn expected(&self, calls: &Calls, share: usize, rate: &Rate, now: Duration) -> usize {
        let used = calls.within(rate.window, now);
        let Some(first) = calls.oldest(rate.window, now) else { return 0 };
        let age = now.saturating_sub(first).max(STEP).as_millis();
        let pace = used as u128 * rate.window.as_millis() / age.max(1);
        usize::try_from(pace).unwrap_or(usize::MAX).min(share).saturating_sub(used)
    }
}

fn amount(rate: &Rate) -> usize {
    rate.amount as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const FAIRNESS: Fairness = Fairness { headroom: 10, background_minimum: 10 };
    const MINUTE: Rate = Rate { amount: 60, window: Duration::from_secs(60) };

    fn shares(interactive: u32, background: u32) -> Shares {
        Shares { interactive, background, fairness: FAIRNESS }
    }

    fn spender(client: &str, lane: Lane, weight: u32) -> Spender {
        Spender { client: client.into(), lane, weight }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// How many of each client's calls are granted at `now`; they end at once.
    fn granted(broker: &mut Broker, now: Duration) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for (_, spender) in broker.grant(now) {
            broker.end(&spender, now);
            *counts.entry(spender.client.to_string()).or_default() += 1;
        }
        counts
    }

    fn ask(broker: &mut Broker, spender: &Spender, calls: usize) {
        for _ in 0..calls {
            broker.ask(spender, Duration::MAX);
        }
    }

    #[test]
    fn an_only_client_has_all_of_it_at_once() {
        let mut broker = Broker::new(&[MINUTE], shares(1, 0));
        ask(&mut broker, &spender("a", Lane::Interactive, 1), 100);
        assert_eq!(granted(&mut broker, seconds(0))["a"], 60);
        assert!(granted(&mut broker, seconds(59)).is_empty());
        assert_eq!(granted(&mut broker, seconds(60))["a"], 40);
    }

    #[test]
    fn calls_within_the_share_go_at_once_and_those_beyond_are_spread() {
        let mut broker = Broker::new(&[MINUTE], shares(4, 0));
        let now = seconds(3600);
        ask(&mut broker, &spender("b", Lane::Interactive, 1), 1);
        granted(&mut broker, now - seconds(1));
        ask(&mut broker, &spender("a", Lane::Interactive, 1), 1000);
        let first = granted(&mut broker, now)["a"];
        assert!((15..=16).contains(&first), "a quarter of the quota, not {first}");
        let mut at = [0; 3];
        for tenth in 1..600_u32 {
            let later = now + Duration::from_millis(100) * tenth;
            at[tenth as usize / 200] += granted(&mut broker, later).get("a").unwrap_or(&0);
        }
        let sum = first + at.iter().sum::<usize>();
        assert_eq!(sum, 54, "all but the headroom");
        assert!(at.iter().all(|third| (12..=14).contains(third)), "evenly: {at:?}");
    }

    #[test]
    fn a_client_that_is_alone_may_have_half_at_once() {
        let mut broker = Broker::new(&[MINUTE], shares(4, 0));
        ask(&mut broker, &spender("a", Lane::Interactive, 1), 1000);
        let first = granted(&mut broker, seconds(3600))["a"];
        assert!((30..=31).contains(&first), "{first}");
    }

    #[test]
    fn whoever_comes_later_finds_room_and_then_its_share() {
        let mut broker = Broker::new(&[MINUTE], shares(4, 0));
        let (a, b) = (spender("a", Lane::Interactive, 1), spender("b", Lane::Interactive, 1));
        ask(&mut broker, &a, 100_000);
        for second in 0..600 {
            granted(&mut broker, seconds(second));
        }
        // b asks once every four seconds, which is its share, and never waits.
        for second in 600..900 {
            if second % 4 == 0 {
                ask(&mut broker, &b, 1);
                assert_eq!(granted(&mut broker, seconds(second)).get("b"), Some(&1), "at {second}");
            } else {
                granted(&mut broker, seconds(second));
            }
        }
    }

    #[test]
    fn twice_the_weight_is_twice_the_calls() {
        let mut broker = Broker::new(&[MINUTE], shares(3, 0));
        ask(&mut broker, &spender("light", Lane::Interactive, 1), 10_000);
        ask(&mut broker, &spender("heavy", Lane::Interactive, 2), 10_000);
        let mut sums: HashMap<String, usize> = HashMap::new();
        for second in 0..600 {
            for (client, calls) in granted(&mut broker, seconds(second)) {
                *sums.entry(client).or_default() += calls;
            }
        }
        assert_eq!((sums["light"], sums["heavy"]), (200, 400));
    }

    #[test]
    fn the_background_lane_gets_its_minimum_and_what_nobody_else_wants() {
        let mut broker = Broker::new(&[MINUTE], shares(1, 1));
        let background = spender("export", Lane::Background, 1);
        ask(&mut broker, &background, 10_000);
        ask(&mut broker, &spender("desk", Lane::Interactive, 1), 10_000);
        let mut sums: HashMap<String, usize> = HashMap::new();
        for second in 0..600 {
            for (client, calls) in granted(&mut broker, seconds(second)) {
                *sums.entry(client).or_default() += calls;
            }
        }
        assert_eq!((sums["export"], sums["desk"]), (60, 540));

        let mut broker = Broker::new(&[MINUTE], shares(1, 1));
        ask(&mut broker, &background, 10_000);
        let alone: usize =
            (0..600).map(|second| granted(&mut broker, seconds(second)).values().sum::<usize>()).sum();
        assert!(alone >= 530, "{alone} of 600");
    }

    #[test]
    fn those_who_would_come_too_late_are_told_when_they_would_not() {
        let mut broker = Broker::new(&[MINUTE], shares(1, 0));
        let client = spender("a", Lane::Interactive, 1);
        ask(&mut broker, &client, 60);
        granted(&mut broker, seconds(0));
        let late = broker.ask(&client, seconds(30));
        let in_time = broker.ask(&client, seconds(90));
        assert_eq!(broker.dismiss(seconds(10), 100), [(late, seconds(50))]);
        assert_eq!(broker.waiting(), 1);
        assert_eq!(broker.dismiss(seconds(10), 0), [(in_time, seconds(50))]);
    }

    #[test]
    fn a_closed_pool_opens_when_the_upstream_said() {
        let mut broker = Broker::new(&[MINUTE], shares(1, 0));
        broker.close_until(seconds(60));
        ask(&mut broker, &spender("a", Lane::Interactive, 1), 1);
        let outlook = broker.outlook(seconds(20));
        assert_eq!((outlook.left, outlook.resets_at, outlook.holds_until), (0, seconds(60), seconds(60)));
        assert!(granted(&mut broker, seconds(59)).is_empty());
        assert_eq!(granted(&mut broker, seconds(60))["a"], 1);
    }

    /// What becomes of a call: how long it takes, when in that time the upstream counts it, or that
    /// it is never made.
    #[derive(Clone, Debug)]
    struct Fate {
        after: u64,
        client: usize,
        takes: u64,
        counted: u64,
        is_made: bool,
    }

    fn fates() -> impl Strategy<Value = Vec<Fate>> {
        let fate = (
            prop_oneof![3 => Just(0_u64), 1 => 0..4_000_u64],
            0..4_usize,
            prop_oneof![Just(0_u64), 0..20_000_u64],
            0..=100_u64,
            prop::bool::weighted(0.9),
        );
        let fate = fate.prop_map(|(after, client, takes, share, is_made)| Fate {
            after,
            client,
            takes,
            counted: takes * share / 100,
            is_made,
        });
        vec(fate, 1..400)
    }

    const RATES: [Rate; 2] = [
        Rate { amount: 12, window: Duration::from_secs(10) },
        Rate { amount: 40, window: Duration::from_secs(60) },
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The reference is the upstream: it counts each call at a moment of its own choosing
        /// between start and end, and looks at every window that ends with a call.
        #[test]
        fn whatever_the_bursts_the_upstream_never_sees_one_call_too_many(fates in fates()) {
            let clients = [
                spender("a", Lane::Interactive, 1),
                spender("b", Lane::Interactive, 1),
                spender("c", Lane::Interactive, 3),
                spender("d", Lane::Background, 1),
            ];
            let mut broker = Broker::new(&RATES, shares(5, 1));
            let mut tickets: HashMap<Ticket, Fate> = HashMap::new();
            let mut ends: Vec<(u64, Spender, bool)> = Vec::new();
            let mut counted: Vec<u64> = Vec::new();
            let mut asked = fates.clone().into_iter().scan(0, |at, fate| {
                *at += fate.after;
                Some((*at, fate))
            }).peekable();
            let mut served = 0;
            let mut now = 0_u64;
            while served < fates.len() {
                while let Some((_, fate)) = asked.next_if(|(at, _)| *at <= now) {
                    let ticket = broker.ask(&clients[fate.client], Duration::MAX);
                    tickets.insert(ticket, fate);
                }
                let at = Duration::from_millis(now);
                let (over, under_way): (Vec<_>, Vec<_>) = ends.drain(..).partition(|(end, ..)| *end <= now);
                ends = under_way;
                for (_, spender, is_made) in over {
                    if is_made { broker.end(&spender, at) } else { broker.give_back(&spender) }
                }
                for (ticket, spender) in broker.grant(at) {
                    let fate = &tickets[&ticket];
                    served += 1;
                    ends.push((now + fate.takes, spender, fate.is_made));
                    if fate.is_made {
                        counted.push(now + fate.counted);
                    }
                }
                prop_assert!(now < 36_000_000, "somebody waits for ever");
                now += 100;
            }
            counted.sort_unstable();
            for rate in RATES {
                let window = u64::try_from(rate.window.as_millis()).expect("short");
                for (index, end) in counted.iter().enumerate() {
                    let first = counted.partition_point(|at| at + window <= *end);
                    prop_assert!(index + 1 - first <= amount(&rate), "{} in {window} ms", index + 1 - first);
                }
            }
        }

        /// The reference grants each call at the first moment at which every window has room.
        #[test]
        fn an_only_client_never_waits_longer_than_the_windows_say(gaps in vec(0_u64..3_000, 1..200)) {
            let mut broker = Broker::new(&RATES, shares(1, 0));
            let client = spender("a", Lane::Interactive, 1);
            let mut reference: Vec<u64> = Vec::new();
            let mut now = 0;
            for gap in gaps {
                now += gap;
                broker.ask(&client, Duration::MAX);
                let has_room = RATES.iter().all(|rate| {
                    let window = u64::try_from(rate.window.as_millis()).expect("short");
                    reference.iter().filter(|at| **at + window > now).count() < amount(rate)
                });
                let at = Duration::from_millis(now);
                let granted = broker.grant(at);
                prop_assert_eq!(!granted.is_empty(), has_room, "at {}", now);
                for (_, spender) in granted {
                    broker.end(&spender, at);
                    reference.push(now);
                }
                for line in broker.lines.values_mut() {
                    line.queue.clear();
                }
            }
        }
    }
}
