//! One pool of the upstream's quota, and the calls that wait for it.

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

/// A pool. The [`Broker`] decides; the pool waits and informs the waiters.
pub struct Pool {
    state: Mutex<State>,
    /// The broker's last availability. Every hit reads it for the `RateLimit` fields, and hits must not wait for a
    /// lock. Written under the lock.
    availability: ArcSwap<Availability>,
    /// Wakes the waiters: a call has ended, was never sent, or was refused, so the next grant may be earlier or later.
    changed: Notify,
    clock: Clock,
    /// The upstream has confirmed that the bot exists.
    is_proven: AtomicBool,
}

struct State {
    broker: Broker,
    max_waiting: usize,
    waiting: HashMap<Ticket, oneshot::Sender<ReservationResult>>,
    /// When to look again for calls that miss their deadline.
    shed_at: Duration,
}

type ReservationResult = Result<Reservation, Exhausted>;

/// The quota has no room before the deadline. It would have after this time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted(pub Duration);

/// A granted call. Dropped, it is settled with the broker by its state.
pub struct Reservation {
    pool: Arc<Pool>,
    payer: Payer,
    state: CallState,
}

/// The state of a call, which says how its reservation is settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CallState {
    /// The request was never sent.
    Unsent,
    /// The request may have been sent, and nothing has come back. It cannot be recalled.
    InFlight,
    /// Something came back, if only the end of the connection. If the upstream counts the call, it has by now.
    Done,
}

/// An abandoned request may still wait unread in front of the upstream, and is counted when it is read. No proxy holds
/// a request for longer than this by default (nginx: 60 s).
const MAY_LIE_UNREAD: Duration = Duration::from_secs(60);

impl Pool {
    /// A pool with these windows. At most `max_waiting` calls wait for it.
    pub fn new(rates: &[Rate], shares: QuotaShares, max_waiting: usize, clock: Clock) -> Arc<Self> {
        let broker = Broker::new(rates, shares);
        let availability = ArcSwap::from_pointee(broker.availability(clock.uptime()));
        let state =
            Mutex::new(State { broker, max_waiting, waiting: HashMap::new(), shed_at: Duration::ZERO });
        let is_proven = AtomicBool::new(false);
        Arc::new(Self { state, availability, changed: Notify::new(), clock, is_proven })
    }

    /// Replaces the windows and the shares. The calls stay.
    pub fn reshape(self: &Arc<Self>, rates: &[Rate], shares: QuotaShares, max_waiting: usize) {
        self.update(|state, _| {
            state.broker.reshape(rates, shares);
            state.max_waiting = max_waiting;
        });
        self.shed();
        self.changed.notify_waiters();
    }

    /// The state and the time. The clock is read under the lock, so that calls end in the order of their times.
    fn lock(&self) -> (MutexGuard<'_, State>, Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state, self.clock.uptime())
    }

    /// Changes the state, grants what can be granted now, and notifies the waiters.
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
        // A reservation whose waiter has left is dropped, which comes back here: the lock must be free.
        drop(state);
        notify(results);
        result
    }

    /// Sheds the calls that cannot be served by their deadline.
    fn shed(&self) {
        let (state, now) = self.lock();
        self.shed_from(state, now);
    }

    /// The same, at most once in [`STEP`]. Calls in flight may have taken longer than the forecast assumed.
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

    /// Reserves one call, on account of the first of `payers` that the broker serves; more payers may join during the
    /// wait. Waits until `deadline` (time since the clock's start) at the latest. If the call cannot be served by then,
    /// it fails at once, or as soon as that is known.
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
        // Also if it was granted at once: it may have taken the room of another call.
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

    /// The time, and when the next call may be granted.
    fn next_grant(&self) -> (Duration, Duration) {
        let (state, now) = self.lock();
        (now, state.broker.next_grant(now).unwrap_or(now + STEP).max(now + INSTANT))
    }

    /// The upstream refused a call. None is granted for `wait`.
    pub fn refuse_for(self: &Arc<Self>, wait: Duration) {
        self.update(|state, now| state.broker.refuse_until(now + wait));
        self.shed();
        self.changed.notify_waiters();
    }

    /// How many calls there is room for at once, and how long until the window is empty; if none is left, how long
    /// until one is. Waits for no lock: while the pool is locked, it returns the last known numbers.
    pub fn available(&self) -> (u32, Duration) {
        self.available_at(self.clock.uptime())
    }

    /// The same, for a caller that has just read the clock.
    pub fn available_at(&self, now: Duration) -> (u32, Duration) {
        let mut availability = **self.availability.load();
        // This happens once for each call that leaves a window.
        if now >= availability.holds_until
            && let Ok(state) = self.state.try_lock()
        {
            availability = state.broker.availability(now);
            self.availability.store(Arc::new(availability));
        }
        (availability.left, availability.resets_at.saturating_sub(now))
    }

    /// Whether nothing is lost with this pool: no call in a window, none that waits, no refusal.
    pub fn is_idle(&self) -> bool {
        let (state, now) = self.lock();
        state.broker.is_idle(now)
    }

    /// The upstream has confirmed the bot, so no caller has invented it.
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

/// A call in the queues. Dropped, it is withdrawn.
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
    /// The request may be sent from now on. It counts, whatever happens to it.
    pub fn mark_sent(&mut self) {
        self.state = CallState::InFlight;
    }

    /// The request was not sent: there was no connection.
    pub fn mark_unsent(&mut self) {
        self.state = CallState::Unsent;
    }

    /// Something came back, or the connection ended.
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
