//! One pool of the upstream's quota, with those who wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot};

use super::broker::{Broker, INSTANT, Outlook, STEP, Shares, Spender, Ticket};
use crate::clock::Clock;
use crate::config::Rate;

/// A pool. All decisions are the [`Broker`]'s; here they are waited for.
pub struct Pool {
    state: Mutex<State>,
    /// What the broker last foresaw, for those who only want to know where the pool stands: every hit
    /// tells its caller, and hits must not queue up for a lock. Set under the lock.
    outlook: ArcSwap<Outlook>,
    /// Something ended, came back or closed: who sleeps looks again.
    changed: Notify,
    clock: Clock,
}

struct State {
    broker: Broker,
    max_waiting: usize,
    waiting: HashMap<Ticket, oneshot::Sender<Told>>,
}

type Told = Result<Reservation, Exhausted>;

/// There is no room in time; there would be after this long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted(pub Duration);

/// Room for one call. Given back when it is dropped.
pub struct Reservation {
    pool: Arc<Pool>,
    spender: Spender,
    /// What dropping it means.
    made: bool,
}

impl Pool {
    /// A pool with these windows, for which at most `max_waiting` calls wait.
    pub fn new(rates: &[Rate], shares: Shares, max_waiting: usize, clock: Clock) -> Arc<Self> {
        let broker = Broker::new(rates, shares);
        let outlook = ArcSwap::from_pointee(broker.outlook(clock.uptime()));
        let state = Mutex::new(State { broker, max_waiting, waiting: HashMap::new() });
        Arc::new(Self { state, outlook, changed: Notify::new(), clock })
    }

    /// Other windows and shares from here on, for the same calls.
    pub fn reshape(self: &Arc<Self>, rates: &[Rate], shares: Shares, max_waiting: usize) {
        self.turn(|state, _| {
            state.broker.reshape(rates, shares);
            state.max_waiting = max_waiting;
        });
        self.dismiss();
        self.changed.notify_waiters();
    }

    /// The state, and the time. Read under the lock: one who waited for it would put a call that has
    /// ended before one that ended earlier.
    fn lock(&self) -> (MutexGuard<'_, State>, Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state, self.clock.uptime())
    }

    /// Changes something, and tells whom it concerns.
    fn turn<T>(self: &Arc<Self>, act: impl FnOnce(&mut State, Duration) -> T) -> T {
        let (mut state, now) = self.lock();
        let result = act(&mut state, now);
        let told: Vec<_> = state
            .broker
            .grant(now)
            .into_iter()
            .map(|(ticket, spender)| (ticket, Reservation { pool: self.clone(), spender, made: false }))
            .map(|(ticket, reservation)| (state.waiting.remove(&ticket), Ok(reservation)))
            .collect();
        self.outlook.store(Arc::new(state.broker.outlook(now)));
        // A reservation that nobody takes is dropped and comes back here: the lock must be free.
        drop(state);
        tell(told);
        result
    }

    /// Tells those who cannot be served in time.
    fn dismiss(&self) {
        let (mut state, now) = self.lock();
        let late = {
            let most = state.max_waiting;
            state.broker.dismiss(now, most)
        };
        let told = late
            .into_iter()
            .map(|(ticket, wait)| (state.waiting.remove(&ticket), Err(Exhausted(wait))))
            .collect();
        drop(state);
        tell(told);
    }

    /// Reserves one call. Waits for its turn if that comes before `deadline` (time since the clock's
    /// start), and says so at once if not, or as soon as others have taken it.
    pub async fn reserve(self: &Arc<Self>, spender: &Spender, deadline: Duration) -> Told {
        let (tell, mut told) = oneshot::channel();
        let ticket = self.turn(|state, _| {
            let ticket = state.broker.ask(spender, deadline);
            state.waiting.insert(ticket, tell);
            ticket
        });
        let _place = Place { pool: self, ticket };
        if let Ok(told) = told.try_recv() {
            return told;
        }
        self.dismiss();
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let (now, next) = self.look();
            if now > deadline {
                return Err(Exhausted(next.saturating_sub(now)));
            }
            tokio::select! {
                biased;
                told = &mut told => return told.unwrap_or(Err(Exhausted(STEP))),
                () = &mut changed => {}
                () = self.clock.sleep(next.min(now + STEP).min(deadline + INSTANT).saturating_sub(now)) => {
                    self.turn(|_, _| {});
                }
            }
        }
    }

    /// The time, and when to look again.
    fn look(&self) -> (Duration, Duration) {
        let (state, now) = self.lock();
        (now, state.broker.next(now).unwrap_or(now + STEP).max(now + INSTANT))
    }

    /// The upstream said that there is no room: for `wait` no call is made.
    pub fn close_for(self: &Arc<Self>, wait: Duration) {
        self.turn(|state, now| state.broker.close_until(now + wait));
        self.dismiss();
        self.changed.notify_waiters();
    }

    /// Calls there is room for at once, and how long until all have come back; with none left,
    /// until one has. Waits for nobody: while somebody else is at work on the pool it tells what was
    /// so before.
    pub fn standing(&self) -> (u32, Duration) {
        let now = self.clock.uptime();
        let mut outlook = **self.outlook.load();
        // Once for each call that leaves a window.
        if now >= outlook.holds_until
            && let Ok(state) = self.state.try_lock()
        {
            outlook = state.broker.outlook(now);
            self.outlook.store(Arc::new(outlook));
        }
        (outlook.left, outlook.resets_at.saturating_sub(now))
    }

    /// Whether it knows nothing that a new one would not: no call in any window, nobody who waits, no
    /// refusal to keep to.
    pub fn is_idle(&self) -> bool {
        let (state, now) = self.lock();
        state.broker.is_idle(now)
    }

    /// Calls that wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).broker.waiting()
    }
}

fn tell(told: Vec<(Option<oneshot::Sender<Told>>, Told)>) {
    for (listener, told) in told {
        if let Some(listener) = listener {
            // Nobody listens any more: a reservation goes back when it is dropped.
            let _ = listener.send(told);
        }
    }
}

/// A place in the queue, given up when the one who waits leaves.
struct Place<'a> {
    pool: &'a Arc<Pool>,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waiting.remove(&self.ticket).is_some() {
            state.broker.leave(self.ticket);
        }
    }
}

impl Reservation {
    /// The call is being made: from here on it counts, whatever becomes of it.
    pub fn make(&mut self) {
        self.made = true;
    }

    /// The call never left: there was no connection for it.
    pub fn unmake(&mut self) {
        self.made = false;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let made = self.made;
        self.pool.turn(|state, now| {
            if made {
                state.broker.end(&self.spender, now);
            } else {
                state.broker.give_back(&self.spender);
            }
        });
        self.pool.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::config::{Fairness, Lane};

    const RATE: Rate = Rate { amount: 2, window: Duration::from_secs(60) };

    fn pool() -> (Arc<Pool>, Clock, Spender) {
        let clock = Clock::manual(UnixMillis(0));
        let fairness = Fairness { headroom: 0, background_minimum: 0 };
        let shares = Shares { interactive: 1, background: 0, fairness };
        let spender = Spender { client: "one".into(), lane: Lane::Interactive, weight: 1 };
        (Pool::new(&[RATE], shares, 10, clock.clone()), clock, spender)
    }

    #[tokio::test]
    async fn where_it_stands_is_told_while_somebody_else_is_at_work_on_it() {
        let (pool, clock, spender) = pool();
        pool.reserve(&spender, Duration::ZERO).await.expect("room").make();
        let held = pool.state.lock().expect("nobody panicked");
        assert_eq!(pool.standing(), (1, Duration::from_secs(60)));
        clock.advance(RATE.window);
        assert_eq!(pool.standing(), (1, Duration::ZERO), "what was so before");
        drop(held);
        assert_eq!(pool.standing(), (2, Duration::ZERO));
    }

    #[tokio::test]
    async fn with_nothing_left_it_says_when_something_will_be() {
        let (pool, clock, spender) = pool();
        let under_way = pool.reserve(&spender, Duration::ZERO).await.expect("room");
        let mut first = pool.reserve(&spender, Duration::ZERO).await.expect("room");
        assert_eq!(pool.standing(), (0, Duration::from_secs(60)), "if both end at once");
        first.make();
        clock.advance(Duration::from_secs(10));
        drop(first);
        clock.advance(Duration::from_secs(20));
        assert_eq!(pool.standing(), (0, Duration::from_secs(40)));
        drop(under_way);
        assert_eq!(pool.standing(), (1, Duration::from_secs(40)), "it was never made");
    }
}
