//! Patience: when a connection has made its listener wait for long enough.
//!
//! One look at all connections every so often, at what their [`Pulse`]s say. Times are kept to
//! within one look, a quarter of the shortest time-out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::pulse::{Order, Pulse, Reading};
use crate::observe::metrics::{Connections, Ended};

/// Looks are no farther apart than this, and no closer than that.
const FARTHEST: Duration = Duration::from_secs(1);
const CLOSEST: Duration = Duration::from_millis(5);
/// What a peer takes within a write time-out at least, if there is so much for it.
const LEAST_WRITTEN: u64 = 16 * 1024;
/// Of all connections, the part that is closed at a time where one needs a place: to find the longest idle ones is to
/// look at all of them.
const MADE_ROOM_FOR: usize = 128;
/// A connection that was told to finish has this long to do so when it has nothing under way:
/// HTTP/2 says goodbye in a round trip.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long a connection may keep its listener waiting.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte of a head (of the first one: from the connection's start) to its end.
    pub header: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For a peer that takes (nearly) nothing of its answer.
    pub write: Duration,
    /// Between two requests, once the listener is to end.
    pub last: Duration,
}

/// All connections of a listener.
pub struct Watch {
    timeouts: Timeouts,
    watched: Vec<Watched>,
    closed: Connections,
    ticks: tokio::time::Interval,
}

impl Watch {
    pub fn new(timeouts: Timeouts, closed: Connections) -> Self {
        let shortest = timeouts.header.min(timeouts.idle).min(timeouts.write);
        let mut ticks = tokio::time::interval((shortest / 4).clamp(CLOSEST, FARTHEST));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { timeouts, watched: Vec::new(), closed, ticks }
    }

    /// A new connection.
    pub fn add(&mut self, pulse: Arc<Pulse>) {
        self.watched.push(Watched { pulse, patience: Patience::new(Instant::now()), begun: 0 });
    }

    /// Waits for the time of the next look.
    pub async fn due(&mut self) -> Instant {
        self.ticks.tick().await
    }

    /// Looks at every connection; those that have ended are forgotten.
    pub fn look(&mut self, now: Instant) {
        let timeouts = self.timeouts;
        let closed = &self.closed;
        self.watched.retain_mut(|watched| {
            // Nobody else holds it: the connection is gone.
            if Arc::strong_count(&watched.pulse) == 1 {
                return false;
            }
            let order = watched.pulse.order();
            let reading = watched.pulse.reading();
            let verdict = watched.patience.judge(reading, order, now, &timeouts);
            if let Some((order, reason)) = verdict {
                closed.ended(reason);
                watched.pulse.tell(order);
            } else if reading.under_way > 0 && reading.begun == watched.begun {
                // The same request as at the last look.
                watched.pulse.ask();
            }
            watched.begun = reading.begun;
            true
        });
    }

    /// Closes those that have been idle for longest, for others to have their places.
    pub fn make_room(&mut self, now: Instant) {
        let count = (self.watched.len() / MADE_ROOM_FOR).max(1);
        let idle = self.watched.iter_mut().filter_map(|watched| {
            watched.patience.idle_since(watched.pulse.reading(), now).map(|since| (since, &watched.pulse))
        });
        // Those that were told to end have made room already.
        let mut idle: Vec<_> = idle.filter(|(_, pulse)| pulse.order() < Order::Close).collect();
        idle.sort_by_key(|(since, _)| *since);
        for (_, pulse) in idle.into_iter().take(count) {
            self.closed.ended(Ended::Displaced);
            pulse.tell(Order::Close);
        }
    }

    /// Tells every connection the same.
    pub fn tell_all(&self, order: Order) {
        self.watched.iter().for_each(|watched| watched.pulse.tell(order));
    }
}

struct Watched {
    pulse: Arc<Pulse>,
    patience: Patience,
    /// Requests ever begun at the last look.
    begun: u64,
}

/// What is remembered of a connection from look to look.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// What it waits in, and since when.
    waits: Waits,
    since: Instant,
    /// Since when its peer takes too little, and what had been written by then.
    blocked: Option<(Instant, u64)>,
}

/// What a connection is doing, as far as time is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    /// Serving requests, or for its peer to take what there is for it, which [`Patience::judge_writing`] judges.
    Not,
    /// For the first head, or for the rest of one.
    ForHead { after: u64 },
    /// For another request.
    ForRequest { after: u64 },
    /// To come to its end.
    ForEnd,
}

impl Patience {
    fn new(now: Instant) -> Self {
        Self { waits: Waits::ForHead { after: 0 }, since: now, blocked: None }
    }

    /// What is to be done about a connection that stands like this now. Pure.
    fn judge(
        &mut self,
        reading: Reading,
        order: Order,
        now: Instant,
        timeouts: &Timeouts,
    ) -> Option<(Order, Ended)> {
        if order >= Order::Close {
            return None;
        }
        if let Some(verdict) = self.judge_writing(reading, now, timeouts) {
            return Some(verdict);
        }
        let waits = match reading {
            Reading { under_way: 1.., .. } | Reading { is_blocked: true, .. } => Waits::Not,
            _ if order == Order::Finish => Waits::ForEnd,
            Reading { begun: 0, .. } | Reading { has_more: true, .. } => {
                Waits::ForHead { after: reading.begun }
            }
            Reading { begun, .. } => Waits::ForRequest { after: begun },
        };
        if waits != self.waits {
            (self.waits, self.since) = (waits, now);
        }
        let (longest, verdict) = match waits {
            Waits::Not => return None,
            Waits::ForHead { .. } if order == Order::Last && reading.read == 0 => {
                (timeouts.last, (Order::Finish, Ended::Drained))
            }
            Waits::ForHead { .. } => (timeouts.header, (Order::Close, Ended::HeaderTimeout)),
            Waits::ForRequest { .. } if order == Order::Last => {
                (timeouts.last, (Order::Finish, Ended::Drained))
            }
            Waits::ForRequest { .. } => (timeouts.idle, (Order::Finish, Ended::Idle)),
            Waits::ForEnd => (GOODBYE, (Order::Close, Ended::Unresponsive)),
        };
        (now - self.since >= longest).then_some(verdict)
    }

    /// Since when it has had no request under way, nothing left to send included.
    fn idle_since(&mut self, reading: Reading, now: Instant) -> Option<Instant> {
        if reading.under_way > 0 || reading.is_blocked {
            return None;
        }
        let begun = match self.waits {
            Waits::ForHead { after } | Waits::ForRequest { after } => after,
            Waits::ForEnd => return Some(self.since),
            // It was serving at the last look.
            Waits::Not => return Some(now),
        };
        // It has served requests since the last look.
        Some(if begun == reading.begun { self.since } else { now })
    }

    fn judge_writing(
        &mut self,
        reading: Reading,
        now: Instant,
        timeouts: &Timeouts,
    ) -> Option<(Order, Ended)> {
        let (since, written) = match self.blocked {
            Some(blocked) if reading.is_blocked => blocked,
            _ => {
                self.blocked = reading.is_blocked.then_some((now, reading.written));
                return None;
            }
        };
        if now - since < timeouts.write {
            return None;
        }
        if reading.written - written < LEAST_WRITTEN {
            return Some((Order::Reset, Ended::WriteTimeout));
        }
        self.blocked = Some((now, reading.written));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TIMEOUTS: Timeouts = Timeouts {
        header: Duration::from_secs(15),
        idle: Duration::from_secs(75),
        write: Duration::from_secs(20),
        last: SECOND,
    };

    /// Looks once a second at a connection that stands the same all the while; the verdict, and
    /// after how many seconds it came.
    fn judged(
        patience: &mut Patience,
        at: Instant,
        reading: Reading,
        order: Order,
    ) -> Option<(u32, Order, Ended)> {
        let look = |second: u32| patience.judge(reading, order, at + second * SECOND, &TIMEOUTS);
        let mut looks = (0..200).map(look).zip(0..);
        looks.find_map(|(verdict, second)| verdict.map(|(order, why)| (second, order, why)))
    }

    fn fresh() -> (Patience, Instant) {
        let now = Instant::now();
        (Patience::new(now), now)
    }

    #[test]
    fn each_kind_of_waiting_has_its_own_end() {
        let silent = Reading::default();
        let half_a_head = Reading { read: 20, has_more: true, ..silent };
        let idle = Reading { read: 100, begun: 1, ..silent };
        let next_head = Reading { read: 120, has_more: true, ..idle };
        let serving = Reading { under_way: 1, ..idle };
        let stuck = Reading { is_blocked: true, ..serving };
        for (reading, order, expected) in [
            (silent, Order::Serve, Some((15, Order::Close, Ended::HeaderTimeout))),
            (half_a_head, Order::Serve, Some((15, Order::Close, Ended::HeaderTimeout))),
            (next_head, Order::Serve, Some((15, Order::Close, Ended::HeaderTimeout))),
            (idle, Order::Serve, Some((75, Order::Finish, Ended::Idle))),
            (serving, Order::Serve, None),
            (stuck, Order::Serve, Some((20, Order::Reset, Ended::WriteTimeout))),
            (silent, Order::Last, Some((1, Order::Finish, Ended::Drained))),
            (idle, Order::Last, Some((1, Order::Finish, Ended::Drained))),
            (half_a_head, Order::Last, Some((15, Order::Close, Ended::HeaderTimeout))),
            (serving, Order::Last, None),
            (stuck, Order::Finish, Some((20, Order::Reset, Ended::WriteTimeout))),
            (idle, Order::Finish, Some((5, Order::Close, Ended::Unresponsive))),
            (stuck, Order::Reset, None),
        ] {
            let (mut patience, now) = fresh();
            assert_eq!(judged(&mut patience, now, reading, order), expected, "{reading:?} {order:?}");
        }
    }

    #[test]
    fn whoever_goes_on_is_not_cut() {
        let (mut patience, now) = fresh();
        // One answer that is taken at 1 KiB a second, while the listener serves and after it was to end. HTTP has
        // handed on all of it, so the request is over as far as it can tell.
        for second in 0..1000 {
            let order = if second < 500 { Order::Serve } else { Order::Finish };
            let written = u64::from(second) * 1024;
            let reading = Reading { read: 500, written, is_blocked: true, begun: 1, ..Reading::default() };
            let verdict = patience.judge(reading, order, now + second * SECOND, &TIMEOUTS);
            assert_eq!(verdict, None, "{second}");
        }
    }

    #[test]
    fn a_trickle_is_no_progress() {
        let (mut patience, now) = fresh();
        let cut = (0..100).find(|second| {
            let written = u64::from(*second) * 700;
            let reading = Reading { written, is_blocked: true, under_way: 1, begun: 1, ..Reading::default() };
            patience.judge(reading, Order::Serve, now + *second * SECOND, &TIMEOUTS).is_some()
        });
        assert_eq!(cut, Some(20));
    }

    #[tokio::test]
    async fn the_longest_idle_one_makes_room_and_none_with_a_request_does() {
        let mut watch =
            Watch::new(TIMEOUTS, crate::observe::metrics::Metrics::new().http.connections("main"));
        let begin = Instant::now();
        let pulses: Vec<_> = (0..3).map(|_| Arc::new(Pulse::default())).collect();
        pulses.iter().for_each(|pulse| watch.add(pulse.clone()));
        let close = |watch: &mut Watch, second: u32| -> Vec<Order> {
            watch.make_room(begin + second * SECOND);
            pulses.iter().map(|pulse| pulse.order()).collect()
        };
        // The first has a request under way, the second had one lately.
        pulses[0].begins();
        pulses[1].begins();
        pulses[1].ends();
        assert_eq!(close(&mut watch, 1), [Order::Serve, Order::Serve, Order::Close]);
        assert_eq!(close(&mut watch, 2), [Order::Serve, Order::Close, Order::Close]);
        assert_eq!(close(&mut watch, 3), [Order::Serve, Order::Close, Order::Close]);
        pulses[0].ends();
        assert_eq!(close(&mut watch, 4), [Order::Close, Order::Close, Order::Close]);
    }
}
