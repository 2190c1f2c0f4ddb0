//! One pool of the upstream's quota, with those who wait for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot};

use super::broker::{Broker, INSTANT, Outlook, STEP, Shares, Ticket};
use crate::clock::Clock;
use crate::config::Rate;
use crate::fetch::payer::{Payer, Payers};

/// A pool. All decisions are the [`Broker`]'s; here they are waited for.
pub struct Pool {
    state: Mutex<State>,
    /// What the broker last foresaw, for those who only want to know where the pool stands: every hit
    /// tells its caller, and hits must not queue up for a lock. Set under the lock.
    outlook: ArcSwap<Outlook>,
    /// Something ended, came back or closed: who sleeps looks again.
    changed: Notify,
    clock: Clock,
    /// The upstream has shown that there is such a bot.
    is_proven: AtomicBool,
}

struct State {
    broker: Broker,
    max_waiting: usize,
    waiting: HashMap<Ticket, oneshot::Sender<Told>>,
    /// When those who cannot be served in time are to be looked for again.
    dismiss_at: Duration,
}

type Told = Result<Reservation, Exhausted>;

/// There is no room in time; there would be after this long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted(pub Duration);

/// Room for one call. Given back when it is dropped.
pub struct Reservation {
    pool: Arc<Pool>,
    payer: Payer,
    stage: Stage,
}

/// How far a call has come, as far as the quota is concerned: what dropping its reservation means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It never left.
    NotMade,
    /// It may have left, and nothing came back. Whoever gives it up cannot call it back.
    UnderWay,
    /// Something came back, be it only the end of the connection: the upstream has counted it, if it
    /// ever does.
    Over,
}

/// A call that was given up may still lie in front of the upstream, unread, and be counted when it is
/// read. No proxy holds a request for longer than this by default (nginx: 60 s).
const MAY_LIE_UNREAD: Duration = Duration::from_secs(60);

impl Pool {
    /// A pool with these windows, for which at most `max_waiting` calls wait.
    pub fn new(rates: &[Rate], shares: Shares, max_waiting: usize, clock: Clock) -> Arc<Self> {
        let broker = Broker::new(rates, shares);
        let outlook = ArcSwap::from_pointee(broker.outlook(clock.uptime()));
        let state =
            Mutex::new(State { broker, max_waiting, waiting: HashMap::new(), dismiss_at: Duration::ZERO });
        let is_proven = AtomicBool::new(false);
        Arc::new(Self { state, outlook, changed: Notify::new(), clock, is_proven })
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
            .map(|(ticket, payer)| (ticket, Reservation { pool: self.clone(), payer, stage: Stage::NotMade }))
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
        let (state, now) = self.lock();
        self.dismiss_from(state, now);
    }

    /// The same, if nobody has looked lately. Nobody came, but the calls under way have taken longer
    /// than was foreseen.
    fn dismiss_when_due(&self) {
        let (state, now) = self.lock();
        if now >= state.dismiss_at {
            self.dismiss_from(state, now);
        }
    }

    fn dismiss_from(&self, mut state: MutexGuard<'_, State>, now: Duration) {
        state.dismiss_at = now + STEP;
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

    /// Reserves one call, on the account of whichever of `payers` has its turn first; more of them
    /// may join meanwhile. Waits if that comes before `deadline` (time since the clock's start), and
    /// says so at once if not, or as soon as others have taken it.
    pub async fn reserve(self: &Arc<Self>, payers: &Payers, deadline: Duration) -> Told {
        let (tell, mut told) = oneshot::channel();
        let mut joining = payers.watch();
        let ticket = self.turn(|state, now| {
            let waiting = joining.borrow_and_update();
            let ticket = state.broker.ask(&waiting, now, deadline);
            state.waiting.insert(ticket, tell);
            ticket
        });
        let _place = Place { pool: self, ticket };
        // Also where it goes at once: it may have taken the room that another one waits for.
        self.dismiss();
        if let Ok(told) = told.try_recv() {
            return told;
        }
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
                () = &mut changed => self.dismiss_when_due(),
                Ok(()) = joining.changed() => {
                    self.turn(|state, now| state.broker.join(ticket, &joining.borrow_and_update(), now));
                    self.dismiss();
                }
                () = self.clock.sleep(next.min(now + STEP).min(deadline + INSTANT).saturating_sub(now)) => {
                    self.turn(|_, _| {});
                    self.dismiss_when_due();
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
        self.standing_at(self.clock.uptime())
    }

    /// The same, for who has just read the clock.
    pub fn standing_at(&self, now: Duration) -> (u32, Duration) {
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

    /// The upstream has shown that what it counts for is no invention of a caller's.
    pub fn prove(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
    }

    pub fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    /// Calls that wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting.len()
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
        self.stage = Stage::UnderWay;
    }

    /// The call never left: there was no connection for it.
    pub fn unmake(&mut self) {
        self.stage = Stage::NotMade;
    }

    /// Something came back.
    pub fn over(&mut self) {
        self.stage = Stage::Over;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.turn(|state, now| match self.stage {
            Stage::NotMade => state.broker.give_back(&self.payer),
            Stage::UnderWay => state.broker.end(now + MAY_LIE_UNREAD),
            Stage::Over => state.broker.end(now),
        });
        self.pool.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
