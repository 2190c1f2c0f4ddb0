//! The circuit breaker: stops calls to an upstream that fails, and finds out when it is back.
//!
//! It is closed until `failures` calls in a row have failed. Then it is open for `open_for`. Then one call passes as a
//! probe, and its result decides. If a probe has no result after `open_for`, the next probe passes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;

use crate::clock::Clock;
use crate::config;

/// The states, with their values in `kore_gateway_breaker_state`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Duration },
    Probing { until: Duration },
}

impl State {
    const fn value(self) -> i64 {
        match self {
            Self::Closed { .. } => 0,
            Self::Probing { .. } => 1,
            Self::Open { .. } => 2,
        }
    }
}

/// The state and its number. The result of a call that passed in an earlier state is ignored.
struct Era {
    state: State,
    number: u64,
    rule: config::Breaker,
}

impl Era {
    fn turn(&mut self, state: State) {
        self.state = state;
        self.number += 1;
    }
}

/// The breaker of one base URL.
pub struct Breaker {
    era: Mutex<Era>,
    clock: Clock,
    gauge: Gauge,
}

/// Whether a call is the first of its request. A request counts as one failure, however many attempts it takes:
/// otherwise one record that always fails would open the breaker for everybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttemptKind {
    First,
    Repeat,
}

/// The permission to make one call. Dropped without a report, it counts as a failure: an abandoned call has not shown
/// that the upstream works.
pub struct Permit<'a> {
    breaker: &'a Breaker,
    era: u64,
    kind: AttemptKind,
    reported: bool,
}

impl Breaker {
    pub fn new(rule: config::Breaker, clock: Clock, gauge: Gauge) -> Self {
        let era = Mutex::new(Era { state: State::Closed { failures: 0 }, number: 0, rule });
        Self { era, clock, gauge }
    }

    /// Changes the rule. An open breaker stays open until its time.
    pub fn reshape(&self, rule: config::Breaker) {
        self.era().rule = rule;
    }

    fn era(&self) -> MutexGuard<'_, Era> {
        self.era.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call would pass now, or how long until one may. Changes nothing.
    pub fn check(&self) -> Result<(), Duration> {
        let era = self.era();
        let now = self.clock.uptime();
        match era.state {
            State::Open { until } | State::Probing { until } if now < until => Err(until.saturating_sub(now)),
            _ => Ok(()),
        }
    }

    /// Permits a call, or says how long until one may pass.
    pub fn permit(&self, kind: AttemptKind) -> Result<Permit<'_>, Duration> {
        let mut era = self.era();
        let now = self.clock.uptime();
        match era.state {
            State::Closed { .. } => {}
            State::Open { until } | State::Probing { until } if now < until => {
                return Err(until.saturating_sub(now));
            }
            State::Open { .. } | State::Probing { .. } => {
                let until = now + era.rule.open_for;
                era.turn(State::Probing { until });
            }
        }
        self.gauge.set(era.state.value());
        Ok(Permit { breaker: self, era: era.number, kind, reported: false })
    }

    fn report(&self, number: u64, kind: AttemptKind, well: bool) {
        let mut era = self.era();
        if number != era.number {
            return;
        }
        match era.state {
            State::Closed { .. } if well => era.state = State::Closed { failures: 0 },
            State::Closed { .. } if kind == AttemptKind::Repeat => {}
            State::Closed { failures } if failures + 1 < era.rule.failures => {
                era.state = State::Closed { failures: failures + 1 };
            }
            State::Probing { .. } if well => era.turn(State::Closed { failures: 0 }),
            State::Closed { .. } | State::Probing { .. } => {
                let until = self.clock.uptime() + era.rule.open_for;
                era.turn(State::Open { until });
            }
            State::Open { .. } => {} // No call passes in this state.
        }
        self.gauge.set(era.state.value());
    }
}

impl Permit<'_> {
    /// Reports whether the call went well.
    pub fn report(mut self, well: bool) {
        self.reported = true;
        self.breaker.report(self.era, self.kind, well);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.reported {
            self.breaker.report(self.era, self.kind, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    const RULE: config::Breaker = config::Breaker { failures: 3, open_for: Duration::from_secs(5) };

    fn breaker() -> (Breaker, Clock) {
        let clock = Clock::manual(UnixMillis(0));
        (Breaker::new(RULE, clock.clone(), Gauge::default()), clock)
    }

    fn call(breaker: &Breaker, well: bool) -> bool {
        breaker.permit(AttemptKind::First).map(|permit| permit.report(well)).is_ok()
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let (breaker, _) = breaker();
        for well in [false, false, true, false, false] {
            assert!(call(&breaker, well));
        }
        assert!(call(&breaker, false));
        assert_eq!(breaker.permit(AttemptKind::First).err(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn after_its_time_one_probe_decides() {
        let (breaker, clock) = breaker();
        for _ in 0..3 {
            call(&breaker, false);
        }
        clock.advance(Duration::from_secs(5));
        let probe = breaker.permit(AttemptKind::First).expect("a probe");
        assert!(breaker.permit(AttemptKind::First).is_err(), "a second probe at once");
        probe.report(false);
        assert!(breaker.permit(AttemptKind::First).is_err());
        clock.advance(Duration::from_secs(5));
        assert!(call(&breaker, true));
        assert!(call(&breaker, true));
    }

    #[test]
    fn a_probe_that_is_given_up_does_not_jam_it() {
        let (breaker, clock) = breaker();
        for _ in 0..3 {
            call(&breaker, false);
        }
        clock.advance(Duration::from_secs(5));
        drop(breaker.permit(AttemptKind::First));
        clock.advance(Duration::from_secs(5));
        assert!(breaker.permit(AttemptKind::First).is_ok());
    }

    fn opened() -> (Breaker, Clock) {
        let (breaker, clock) = breaker();
        for _ in 0..3 {
            call(&breaker, false);
        }
        (breaker, clock)
    }

    #[test]
    fn a_probe_that_hangs_holds_nobody_up_for_longer_than_the_breaker_is_open() {
        let (breaker, clock) = opened();
        clock.advance(Duration::from_secs(5));
        let hanging = breaker.permit(AttemptKind::First).expect("a probe");
        clock.advance(Duration::from_secs(4));
        assert_eq!(breaker.check(), Err(Duration::from_secs(1)));
        clock.advance(Duration::from_secs(1));
        assert_eq!(breaker.check(), Ok(()));
        let second = breaker.permit(AttemptKind::First).expect("another probe");
        assert!(breaker.permit(AttemptKind::First).is_err(), "one at a time");
        hanging.report(false);
        assert_eq!(breaker.permit(AttemptKind::First).err(), Some(Duration::from_secs(5)), "a late failure");
        second.report(true);
        assert!(call(&breaker, true));
    }

    #[test]
    fn what_was_let_through_before_the_state_changed_does_not_change_it() {
        let (breaker, clock) = breaker();
        let [success, failure] = [(); 2].map(|()| breaker.permit(AttemptKind::First).expect("closed"));
        for _ in 0..3 {
            call(&breaker, false);
        }
        success.report(true);
        assert!(breaker.permit(AttemptKind::First).is_err(), "an old success");
        clock.advance(Duration::from_secs(5));
        let probe = breaker.permit(AttemptKind::First).expect("a probe");
        drop(failure);
        probe.report(true);
        assert!(call(&breaker, true), "an old failure");
    }

    #[test]
    fn a_request_is_one_failure_however_often_it_is_tried() {
        let (breaker, clock) = breaker();
        for _ in 0..10 {
            breaker.permit(AttemptKind::Repeat).expect("closed").report(false);
        }
        for _ in 0..2 {
            assert!(call(&breaker, false));
        }
        breaker.permit(AttemptKind::Repeat).expect("closed").report(true);
        for _ in 0..3 {
            assert!(call(&breaker, false));
        }
        clock.advance(Duration::from_secs(5));
        breaker.permit(AttemptKind::Repeat).expect("a probe").report(false);
        assert!(breaker.check().is_err(), "a probe counts, whatever it is");
    }
}
