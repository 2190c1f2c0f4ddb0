//! Ends connections that have run into a timeout.
//!
//! A sweep over the [`ConnectionStats`] of all connections takes place every so often. Timeouts are precise to one
//! interval between sweeps, which is a quarter of the shortest timeout.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::stats::{ConnectionStats, DrainState, Sample};
use crate::observe::metrics::{Connections, Ended};

/// The longest and the shortest interval between two sweeps.
const MAX_INTERVAL: Duration = Duration::from_secs(1);
const MIN_INTERVAL: Duration = Duration::from_millis(5);
/// Bytes that a peer has to receive within each write timeout, if there is so much for it. Fewer are no progress.
const MIN_WRITTEN: u64 = 16 * 1024;
/// When a connection waits for a permit, one in this many connections is closed at once. To find the longest idle ones,
/// all connections have to be examined, so it is not done for a single one.
const DISPLACED_PART: usize = 128;
/// How long a connection with no requests in flight may take to end once it is finishing. HTTP/2's GOAWAY takes a round
/// trip.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The timeouts of a listener's connections.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a whole head, from its first byte. For the first head, from the start of the connection.
    pub header: Duration,
    /// For the time between two requests.
    pub idle: Duration,
    /// For a peer that receives nothing, or nearly nothing, of its response.
    pub write: Duration,
    /// For the time between two requests while the listener drains.
    pub drain_idle: Duration,
}

/// Tracks all connections of a listener.
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

    /// Tracks a new connection.
    pub fn add(&mut self, stats: Arc<ConnectionStats>) {
        self.tracked.push(Tracked { stats, timer: ConnectionTimer::new(Instant::now()), started: 0 });
    }

    /// Waits until the next sweep is due.
    pub async fn next_sweep(&mut self) -> Instant {
        self.ticks.tick().await
    }

    /// Checks every connection against the timeouts, and forgets those that have ended.
    pub fn sweep(&mut self, now: Instant) {
        let timeouts = self.timeouts;
        let closed = &self.closed;
        self.tracked.retain_mut(|tracked| {
            // The last reference is ours: the connection has ended.
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
                // The same request was in flight at the last sweep.
                tracked.stats.request_probe();
            }
            tracked.started = sample.started;
            true
        });
    }

    /// Closes the connections that have been idle for longest, so that others get their permits.
    pub fn make_room(&mut self, now: Instant) {
        let count = (self.tracked.len() / DISPLACED_PART).max(1);
        let idle = self.tracked.iter_mut().filter_map(|tracked| {
            tracked.timer.idle_since(tracked.stats.sample(), now).map(|since| (since, &tracked.stats))
        });
        // Connections that are already closing make room anyway.
        let mut idle: Vec<_> = idle.filter(|(_, stats)| stats.drain_state() < DrainState::Closing).collect();
        idle.sort_by_key(|(since, _)| *since);
        for (_, stats) in idle.into_iter().take(count) {
            self.closed.ended(Ended::Displaced);
            stats.advance_to(DrainState::Closing);
        }
    }

    /// Moves the drain state of every connection forward.
    pub fn advance_all(&self, state: DrainState) {
        self.tracked.iter().for_each(|tracked| tracked.stats.advance_to(state));
    }
}

struct Tracked {
    stats: Arc<ConnectionStats>,
    timer: ConnectionTimer,
    /// Requests that had started by the last sweep.
    started: u64,
}

/// The times of one connection, kept from sweep to sweep.
#[derive(Clone, Copy, Debug)]
struct ConnectionTimer {
    /// What the connection waits for, and since when.
    waiting: Waiting,
    since: Instant,
    /// Since when output has been blocked, and the bytes that had been written by then.
    blocked: Option<(Instant, u64)>,
}

/// What a connection waits for. Each kind has its own timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waiting {
    /// For nothing: it serves requests, or its peer has output to receive, which [`ConnectionTimer::judge_writing`]
    /// judges.
    Not,
    /// For the first head, or for the rest of one.
    ForHead { after: u64 },
    /// For another request.
    ForRequest { after: u64 },
    /// For its own end.
    ForEnd,
}

impl ConnectionTimer {
    fn new(now: Instant) -> Self {
        Self { waiting: Waiting::ForHead { after: 0 }, since: now, blocked: None }
    }

    /// The drain state that a connection with this sample has to move to now, and why. Pure.
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

    /// Since when it has been idle. `None` if it has a request in flight or something left to send.
    fn idle_since(&mut self, sample: Sample, now: Instant) -> Option<Instant> {
        if sample.in_flight > 0 || sample.is_blocked {
            return None;
        }
        let started = match self.waiting {
            Waiting::ForHead { after } | Waiting::ForRequest { after } => after,
            Waiting::ForEnd => return Some(self.since),
            // It was serving at the last sweep, and has ended its requests since.
            Waiting::Not => return Some(now),
        };
        // If it has served requests since the last sweep, it is idle only since now.
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

    /// Judges a connection once a second while its sample stays the same. Returns the verdict, and after how many
    /// seconds it came.
    fn judged(
        timer: &mut ConnectionTimer,
        at: Instant,
        sample: Sample,
        state: DrainState,
    ) -> Option<(u32, DrainState, Ended)> {
        let judge = |second: u32| timer.judge(sample, state, at + second * SECOND, &TIMEOUTS);
        let mut verdicts = (0..200).map(judge).zip(0..);
        verdicts.find_map(|(verdict, second)| verdict.map(|(state, why)| (second, state, why)))
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
    fn a_peer_that_makes_progress_is_not_cut() {
        let (mut timer, now) = fresh();
        // The peer receives one response at 1 KiB a second, before and during the drain. hyper has passed on all of it,
        // so the request counts as ended.
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
        // The first has a request in flight. The second had one a short time ago.
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
