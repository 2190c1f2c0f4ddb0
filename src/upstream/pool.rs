//! One pool of the upstream's quota, with those who wait for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot};

use super::broker::{Availability, Broker, INSTANT, QuotaShares, STEP, Ticket};
use crate::clock::Clock;
use crate::config::Rate;
use crate::fetch::payer::{Payer, Payers};

/// A pool. All decisions are the [`Broker`]'s; here they are waited for.
pub struct Pool {
    state: Mutex<State>,
    /// What the broker last foresaw, for those who only want to know where the pool stands: every hit
    /// tells its caller, and hits must not queue up for a lock. Set under the lock.
    availability: ArcSwap<Availability>,
    /// Something ended, came back or closed: who sleeps looks again.
    changed: Notify,
    clock: Clock,
    /// The upstream has shown that there is such a bot.
    is_proven: AtomicBool,
}

struct State {
    broker: Broker,
    max_waiting: usize,
    waiting: HashMap<Ticket, oneshot::Sender<ReservationResult>>,
    /// When those who cannot be served in time are to be looked for again.
    shed_at: Duration,
}

type ReservationResult = Result<Reservation, Exhausted>;

/// There is no room in time; there would be after this long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted(pub Duration);

/// Room for one call. Given back when it is dropped.
pub struct Reservation {
    pool: Arc<Pool>,
    payer: Payer,
    state: CallState,
}

/// How far a call has come, as far as the quota is concerned: what dropping its reservation means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CallState {
    /// It never left.
    Unsent,
    /// It may have left, and nothing came back. Whoever gives it up cannot call it back.
    InFlight,
    /// Something came back, be it only the end of the connection: the upstream has counted it, if it
    /// ever does.
    Done,
}

/// A call that was given up may still lie in front of the upstream, unread, and be counted when it is
/// read. No proxy holds a request for longer than this by default (nginx: 60 s).
const MAY_LIE_UNREAD: Duration = Duration::from_secs(60);

impl Pool {
    /// A pool with these windows, for which at most `max_waiting` calls wait.
    pub fn new(rates: &[Rate], shares: QuotaShares, max_waiting: usize, clock: Clock) -> Arc<Self> {
        let broker = Broker::new(rates, shares);
        let availability = ArcSwap::from_pointee(broker.availability(clock.uptime()));
        let state =
            Mutex::new(State { broker, max_waiting, waiting: HashMap::new(), shed_at: Duration::ZERO });
        let is_proven = AtomicBool::new(false);
        Arc::new(Self { state, availability, changed: Notify::new(), clock, is_proven })
    }

    /// Other windows and shares from here on, for the same calls.
    pub fn reshape(self: &Arc<Self>, rates: &[Rate], shares: QuotaShares, max_waiting: usize) {
        self.update(|state, _| {
            state.broker.reshape(rates, shares);
            state.max_waiting = max_waiting;
        });
        self.shed();
        self.changed.notify_waiters();
    }

    /// The state, and the time. Read under the lock: one who waited for it would put a call that has
    /// ended before one that ended earlier.
    fn lock(&self) -> (MutexGuard<'_, State>, Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state, self.clock.uptime())
    }

    /// Changes something, and tells whom it concerns.
    fn update<T>(self: &Arc<Self>, act: impl FnOnce(&mut State, Duration) -> T) -> T {
        let (mut state, now) = self.lock();
        let result = act(&mut state, now);
        let results: Vec<_> = state
            .broker
            .grant(now)
            .into_iter()
            .map(|(ticket, payer)| {
                (ticket, Reservation { pool: self.clone(), payer, state: CallState::Unsent })
            })
            .map(|(ticket, reservation)| (state.waiting.remove(&ticket), Ok(reservation)))
            .collect();
        self.availability.store(Arc::new(state.broker.availability(now)));
        // A reservation that nobody takes is dropped and comes back here: the lock must be free.
        drop(state);
        notify(results);
        result
    }

    /// Tells those who cannot be served in time.
    fn shed(&self) {
        let (state, now) = self.lock();
        self.shed_from(state, now);
    }

    /// The same, if nobody has looked lately. Nobody came, but the calls under way have taken longer
    /// than was foreseen.
    fn shed_when_due(&self) {
        let (state, now) = self.lock();
        if now >= state.shed_at {
            self.shed_from(state, now);
        }
    }

    fn shed_from(&self, mut state: MutexGuard<'_, State>, now: Duration) {
        state.shed_at = now + STEP;
        let max_waiting = state.max_waiting;
        let late = state.broker.shed(now, max_waiting);
        let results = late
            .into_iter()
            .map(|(ticket, wait)| (state.waiting.remove(&ticket), Err(Exhausted(wait))))
            .collect();
        drop(state);
        notify(results);
    }

    /// Reserves one call, on the account of whichever of `payers` has its turn first; more of them
    /// may join meanwhile. Waits if that comes before `deadline` (time since the clock's start), and
    /// says so at once if not, or as soon as others have taken it.
    pub async fn reserve(self: &Arc<Self>, payers: &Payers, deadline: Duration) -> ReservationResult {
        let (sender, mut receiver) = oneshot::channel();
        let mut joining = payers.watch();
        let ticket = self.update(|state, now| {
            let waiting = joining.borrow_and_update();
            let ticket = state.broker.enqueue(&waiting, now, deadline);
            state.waiting.insert(ticket, sender);
            ticket
        });
        let _place = QueuePlace { pool: self, ticket };
        // Also where it goes at once: it may have taken the room that another one waits for.
        self.shed();
        if let Ok(result) = receiver.try_recv() {
            return result;
        }
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let (now, next) = self.next_grant();
            if now > deadline {
                return Err(Exhausted(next.saturating_sub(now)));
            }
            tokio::select! {
                biased;
                result = &mut receiver => return result.unwrap_or(Err(Exhausted(STEP))),
                () = &mut changed => self.shed_when_due(),
                Ok(()) = joining.changed() => {
                    self.update(|state, now| state.broker.join(ticket, &joining.borrow_and_update(), now));
                    self.shed();
                }
                () = self.clock.sleep(next.min(now + STEP).min(deadline + INSTANT).saturating_sub(now)) => {
                    self.update(|_, _| {});
                    self.shed_when_due();
                }
            }
        }
    }

    /// The time, and when to look again.
    fn next_grant(&self) -> (Duration, Duration) {
        let (state, now) = self.lock();
        (now, state.broker.next_grant(now).unwrap_or(now + STEP).max(now + INSTANT))
    }

    /// The upstream said that there is no room: for `wait` no call is made.
    pub fn refuse_for(self: &Arc<Self>, wait: Duration) {
        self.update(|state, now| state.broker.refuse_until(now + wait));
        self.shed();
        self.changed.notify_waiters();
    }

    /// Calls there is room for at once, and how long until all have come back; with none left,
    /// until one has. Waits for nobody: while somebody else is at work on the pool it tells what was
    /// so before.
    pub fn available(&self) -> (u32, Duration) {
        self.available_at(self.clock.uptime())
    }

    /// The same, for who has just read the clock.
    pub fn available_at(&self, now: Duration) -> (u32, Duration) {
        let mut availability = **self.availability.load();
        // Once for each call that leaves a window.
        if now >= availability.holds_until
            && let Ok(state) = self.state.try_lock()
        {
            availability = state.broker.availability(now);
            self.availability.store(Arc::new(availability));
        }
        (availability.left, availability.resets_at.saturating_sub(now))
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

fn notify(results: Vec<(Option<oneshot::Sender<ReservationResult>>, ReservationResult)>) {
    for (waiter, result) in results {
        if let Some(waiter) = waiter {
            // The waiter may have left. Its reservation goes back when it is dropped.
            let _ = waiter.send(result);
        }
    }
}

/// A place in the queue, given up when the one who waits leaves.
struct QueuePlace<'a> {
    pool: &'a Arc<Pool>,
    ticket: Ticket,
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waiting.remove(&self.ticket).is_some() {
            state.broker.withdraw(self.ticket);
        }
    }
}

impl Reservation {
    /// The call is being made: from here on it counts, whatever becomes of it.
    pub fn mark_sent(&mut self) {
        self.state = CallState::InFlight;
    }

    /// The call never left: there was no connection for it.
    pub fn mark_unsent(&mut self) {
        self.state = CallState::Unsent;
    }

    /// Something came back.
    pub fn mark_done(&mut self) {
        self.state = CallState::Done;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.update(|state, now| match self.state {
            CallState::Unsent => state.broker.give_back(&self.payer),
            CallState::InFlight => state.broker.end(now + MAY_LIE_UNREAD),
            CallState::Done => state.broker.end(now),
        });
        self.pool.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
