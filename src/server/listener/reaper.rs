//! ConnectionTimer: when a connection has made its listener wait for long enough.
//!
//! One look at all connections every so often, at what their [`ConnectionStats`]s say. Times are kept to
//! within one look, a quarter of the shortest time-out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::stats::{ConnectionStats, DrainState, Sample};
use crate::observe::metrics::{Connections, Ended};

/// Looks are no farther apart than this, and no closer than that.
const MAX_INTERVAL: Duration = Duration::from_secs(1);
const MIN_INTERVAL: Duration = Duration::from_millis(5);
/// What a peer takes within a write time-out at least, if there is so much for it.
const MIN_WRITTEN: u64 = 16 * 1024;
/// Of all connections, the part that is closed at a time where one needs a place: to find the longest idle ones is to
/// look at all of them.
const DISPLACED_PART: usize = 128;
/// A connection that was told to finish has this long to do so when it has nothing under way:
/// HTTP/2 says goodbye in a round trip.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

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
    pub drain_idle: Duration,
}

/// All connections of a listener.
pub struct Reaper {
    timeouts: Timeouts,
    tracked: Vec<Tracked>,
    closed: Connections,
    ticks: tokio::time::Interval,
}

impl Reaper {
    pub fn new(timeouts: Timeouts, closed: Connections) -> Self {
        let shortest = timeouts.header.min(timeouts.idle).min(timeouts.write);
        let mut ticks = tokio::time::interval((shortest / 4).clamp(MIN_INTERVAL, MAX_INTERVAL));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { timeouts, tracked: Vec::new(), closed, ticks }
    }

    /// A new connection.
    pub fn add(&mut self, stats: Arc<ConnectionStats>) {
        self.tracked.push(Tracked { stats, timer: ConnectionTimer::new(Instant::now()), started: 0 });
    }

    /// Waiting for the time of the next look.
    pub async fn next_sweep(&mut self) -> Instant {
        self.ticks.tick().await
    }

    /// Looks at every connection; those that have ended are forgotten.
    pub fn sweep(&mut self, now: Instant) {
        let timeouts = self.timeouts;
        let closed = &self.closed;
        self.tracked.retain_mut(|tracked| {
            // Nobody else holds it: the connection is gone.
            if Arc::strong_count(&tracked.stats) == 1 {
                return false;
            }
            let state = tracked.stats.drain_state();
            let sample = tracked.stats.sample();
            let verdict = tracked.timer.judge(sample, state, now, &timeouts);
            if let Some((state, reason)) = verdict {
                closed.ended(reason);
                tracked.stats.advance_to(state);
            } else if sample.in_flight > 0 && sample.started == tracked.started {
                // The same request as at the last look.
                tracked.stats.request_probe();
            }
            tracked.started = sample.started;
            true
        });
    }

    /// Closes those that have been idle for longest, for others to have their places.
    pub fn make_room(&mut self, now: Instant) {
        let count = (self.tracked.len() / DISPLACED_PART).max(1);
        let idle = self.tracked.iter_mut().filter_map(|tracked| {
            tracked.timer.idle_since(tracked.stats.sample(), now).map(|since| (since, &tracked.stats))
        });
        // Those that were told to end have made room already.
        let mut idle: Vec<_> = idle.filter(|(_, stats)| stats.drain_state() < DrainState::Closing).collect();
        idle.sort_by_key(|(since, _)| *since);
        for (_, stats) in idle.into_iter().take(count) {
            self.closed.ended(Ended::Displaced);
            stats.advance_to(DrainState::Closing);
        }
    }

    /// Tells every connection the same.
    pub fn advance_all(&self, state: DrainState) {
        self.tracked.iter().for_each(|tracked| tracked.stats.advance_to(state));
    }
}

struct Tracked {
    stats: Arc<ConnectionStats>,
    timer: ConnectionTimer,
    /// Requests ever started at the last look.
    started: u64,
}

/// What is remembered of a connection from look to look.
#[derive(Clone, Copy, Debug)]
struct ConnectionTimer {
    /// What it waits in, and since when.
    waiting: Waiting,
    since: Instant,
    /// Since when its peer takes too little, and what had been written by then.
    blocked: Option<(Instant, u64)>,
}

/// What a connection is doing, as far as time is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waiting {
    /// Serving requests, or for its peer to take what there is for it, which [`ConnectionTimer::judge_writing`] judges.
    Not,
    /// For the first head, or for the rest of one.
    ForHead { after: u64 },
    /// For another request.
    ForRequest { after: u64 },
    /// To come to its end.
    ForEnd,
}

impl ConnectionTimer {
    fn new(now: Instant) -> Self {
        Self { waiting: Waiting::ForHead { after: 0 }, since: now, blocked: None }
    }

    /// What is to be done about a connection that stands like this now. Pure.
    fn judge(
        &mut self,
        sample: Sample,
        state: DrainState,
        now: Instant,
        timeouts: &Timeouts,
    ) -> Option<(DrainState, Ended)> {
        if state >= DrainState::Closing {
            return None;
        }
        if let Some(verdict) = self.judge_writing(sample, now, timeouts) {
            return Some(verdict);
        }
        let waiting = match sample {
            Sample { in_flight: 1.., .. } | Sample { is_blocked: true, .. } => Waiting::Not,
            _ if state == DrainState::Finishing => Waiting::ForEnd,
            Sample { started: 0, .. } | Sample { has_more: true, .. } => {
                Waiting::ForHead { after: sample.started }
            }
            Sample { started, .. } => Waiting::ForRequest { after: started },
        };
        if waiting != self.waiting {
            (self.waiting, self.since) = (waiting, now);
        }
        let (longest, verdict) = match waiting {
            Waiting::Not => return None,
            Waiting::ForHead { .. } if state == DrainState::LastResponse && sample.read == 0 => {
                (timeouts.drain_idle, (DrainState::Finishing, Ended::Drained))
            }
            Waiting::ForHead { .. } => (timeouts.header, (DrainState::Closing, Ended::HeaderTimeout)),
            Waiting::ForRequest { .. } if state == DrainState::LastResponse => {
                (timeouts.drain_idle, (DrainState::Finishing, Ended::Drained))
            }
            Waiting::ForRequest { .. } => (timeouts.idle, (DrainState::Finishing, Ended::Idle)),
            Waiting::ForEnd => (FINISH_TIMEOUT, (DrainState::Closing, Ended::Unresponsive)),
        };
        (now - self.since >= longest).then_some(verdict)
    }

    /// Since when it has had no request under way, nothing left to send included.
    fn idle_since(&mut self, sample: Sample, now: Instant) -> Option<Instant> {
        if sample.in_flight > 0 || sample.is_blocked {
            return None;
        }
        let started = match self.waiting {
            Waiting::ForHead { after } | Waiting::ForRequest { after } => after,
            Waiting::ForEnd => return Some(self.since),
            // It was serving at the last look.
            Waiting::Not => return Some(now),
        };
        // It has served requests since the last look.
        Some(if started == sample.started { self.since } else { now })
    }

    fn judge_writing(
        &mut self,
        sample: Sample,
        now: Instant,
        timeouts: &Timeouts,
    ) -> Option<(DrainState, Ended)> {
        let (since, written) = match self.blocked {
            Some(blocked) if sample.is_blocked => blocked,
            _ => {
                self.blocked = sample.is_blocked.then_some((now, sample.written));
                return None;
            }
        };
        if now - since < timeouts.write {
            return None;
        }
        if sample.written - written < MIN_WRITTEN {
            return Some((DrainState::Resetting, Ended::WriteTimeout));
        }
        self.blocked = Some((now, sample.written));
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
        drain_idle: SECOND,
    };

    /// Looks once a second at a connection that stands the same all the while; the verdict, and
    /// after how many seconds it came.
    fn judged(
        timer: &mut ConnectionTimer,
        at: Instant,
        sample: Sample,
        state: DrainState,
    ) -> Option<(u32, DrainState, Ended)> {
        let look = |second: u32| timer.judge(sample, state, at + second * SECOND, &TIMEOUTS);
        let mut looks = (0..200).map(look).zip(0..);
        looks.find_map(|(verdict, second)| verdict.map(|(state, why)| (second, state, why)))
    }

    fn fresh() -> (ConnectionTimer, Instant) {
        let now = Instant::now();
        (ConnectionTimer::new(now), now)
    }

    #[test]
    fn each_kind_of_waiting_has_its_own_end() {
        let silent = Sample::default();
        let half_a_head = Sample { read: 20, has_more: true, ..silent };
        let idle = Sample { read: 100, started: 1, ..silent };
        let next_head = Sample { read: 120, has_more: true, ..idle };
        let serving = Sample { in_flight: 1, ..idle };
        let stuck = Sample { is_blocked: true, ..serving };
        for (sample, state, expected) in [
            (silent, DrainState::Serving, Some((15, DrainState::Closing, Ended::HeaderTimeout))),
            (half_a_head, DrainState::Serving, Some((15, DrainState::Closing, Ended::HeaderTimeout))),
            (next_head, DrainState::Serving, Some((15, DrainState::Closing, Ended::HeaderTimeout))),
            (idle, DrainState::Serving, Some((75, DrainState::Finishing, Ended::Idle))),
            (serving, DrainState::Serving, None),
            (stuck, DrainState::Serving, Some((20, DrainState::Resetting, Ended::WriteTimeout))),
            (silent, DrainState::LastResponse, Some((1, DrainState::Finishing, Ended::Drained))),
            (idle, DrainState::LastResponse, Some((1, DrainState::Finishing, Ended::Drained))),
            (half_a_head, DrainState::LastResponse, Some((15, DrainState::Closing, Ended::HeaderTimeout))),
            (serving, DrainState::LastResponse, None),
            (stuck, DrainState::Finishing, Some((20, DrainState::Resetting, Ended::WriteTimeout))),
            (idle, DrainState::Finishing, Some((5, DrainState::Closing, Ended::Unresponsive))),
            (stuck, DrainState::Resetting, None),
        ] {
            let (mut timer, now) = fresh();
            assert_eq!(judged(&mut timer, now, sample, state), expected, "{sample:?} {state:?}");
        }
    }

    #[test]
    fn whoever_goes_on_is_not_cut() {
        let (mut timer, now) = fresh();
        // One answer that is taken at 1 KiB a second, while the listener serves and after it was to end. HTTP has
        // handed on all of it, so the request is over as far as it can tell.
        for second in 0..1000 {
            let state = if second < 500 { DrainState::Serving } else { DrainState::Finishing };
            let written = u64::from(second) * 1024;
            let sample = Sample { read: 500, written, is_blocked: true, started: 1, ..Sample::default() };
            let verdict = timer.judge(sample, state, now + second * SECOND, &TIMEOUTS);
            assert_eq!(verdict, None, "{second}");
        }
    }

    #[test]
    fn a_trickle_is_no_progress() {
        let (mut timer, now) = fresh();
        let cut = (0..100).find(|second| {
            let written = u64::from(*second) * 700;
            let sample = Sample { written, is_blocked: true, in_flight: 1, started: 1, ..Sample::default() };
            timer.judge(sample, DrainState::Serving, now + *second * SECOND, &TIMEOUTS).is_some()
        });
        assert_eq!(cut, Some(20));
    }

    #[tokio::test]
    async fn the_longest_idle_one_makes_room_and_none_with_a_request_does() {
        let mut reaper =
            Reaper::new(TIMEOUTS, crate::observe::metrics::Metrics::new().http.connections("main"));
        let begin = Instant::now();
        let all_stats: Vec<_> = (0..3).map(|_| Arc::new(ConnectionStats::default())).collect();
        all_stats.iter().for_each(|stats| reaper.add(stats.clone()));
        let close = |reaper: &mut Reaper, second: u32| -> Vec<DrainState> {
            reaper.make_room(begin + second * SECOND);
            all_stats.iter().map(|stats| stats.drain_state()).collect()
        };
        // The first has a request under way, the second had one lately.
        all_stats[0].request_started();
        all_stats[1].request_started();
        all_stats[1].request_ended();
        assert_eq!(close(&mut reaper, 1), [DrainState::Serving, DrainState::Serving, DrainState::Closing]);
        assert_eq!(close(&mut reaper, 2), [DrainState::Serving, DrainState::Closing, DrainState::Closing]);
        assert_eq!(close(&mut reaper, 3), [DrainState::Serving, DrainState::Closing, DrainState::Closing]);
        all_stats[0].request_ended();
        assert_eq!(close(&mut reaper, 4), [DrainState::Closing, DrainState::Closing, DrainState::Closing]);
    }
}
