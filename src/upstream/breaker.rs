//! Leaves an upstream alone that fails, and finds out when it is back.
//!
//! Closed until `failures` in a row; then open for `open_for`; then one request at a time is let
//! through as a probe, and its outcome decides.

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
    Probing,
}

impl State {
    const fn value(self) -> i64 {
        match self {
            Self::Closed { .. } => 0,
            Self::Probing => 1,
            Self::Open { .. } => 2,
        }
    }
}

/// The breaker of one base URL.
pub struct Breaker {
    rule: config::Breaker,
    state: Mutex<State>,
    clock: Clock,
    gauge: Gauge,
}

/// Leave to make one call. Reports a failure if it is dropped without a word: a call that was
/// given up has not shown that the upstream is well.
pub struct Permit<'a> {
    breaker: &'a Breaker,
    reported: bool,
}

impl Breaker {
    pub fn new(rule: config::Breaker, clock: Clock, gauge: Gauge) -> Self {
        Self { rule, state: Mutex::new(State::Closed { failures: 0 }), clock, gauge }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether leave to call would be given now; takes none.
    pub fn check(&self) -> Result<(), Duration> {
        let now = self.clock.uptime();
        match *self.state() {
            State::Open { until } if now < until => Err(until.saturating_sub(now)),
            State::Probing => Err(self.rule.open_for),
            State::Closed { .. } | State::Open { .. } => Ok(()),
        }
    }

    /// Leave to call, or how long until it is worth asking again.
    pub fn permit(&self) -> Result<Permit<'_>, Duration> {
        let mut state = self.state();
        let now = self.clock.uptime();
        match *state {
            State::Closed { .. } => {}
            State::Open { until } if now < until => return Err(until.saturating_sub(now)),
            State::Open { .. } => *state = State::Probing,
            State::Probing => return Err(self.rule.open_for),
        }
        self.gauge.set(state.value());
        Ok(Permit { breaker: self, reported: false })
    }

    fn report(&self, well: bool) {
        let mut state = self.state();
        let until = self.clock.uptime() + self.rule.open_for;
        *state = match *state {
            _ if well => State::Closed { failures: 0 },
            State::Closed { failures } if failures + 1 < self.rule.failures => {
                State::Closed { failures: failures + 1 }
            }
            State::Closed { .. } | State::Probing => State::Open { until },
            open @ State::Open { .. } => open,
        };
        self.gauge.set(state.value());
    }
}

impl Permit<'_> {
    /// How the call went.
    pub fn report(mut self, well: bool) {
        self.reported = true;
        self.breaker.report(well);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.reported {
            self.breaker.report(false);
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
        breaker.permit().map(|permit| permit.report(well)).is_ok()
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let (breaker, _) = breaker();
        for well in [false, false, true, false, false] {
            assert!(call(&breaker, well));
        }
        assert!(call(&breaker, false));
        assert_eq!(breaker.permit().err(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn after_its_time_one_probe_decides() {
        let (breaker, clock) = breaker();
        for _ in 0..3 {
            call(&breaker, false);
        }
        clock.advance(Duration::from_secs(5));
        let probe = breaker.permit().expect("a probe");
        assert!(breaker.permit().is_err(), "a second probe at once");
        probe.report(false);
        assert!(breaker.permit().is_err());
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
        drop(breaker.permit());
        clock.advance(Duration::from_secs(5));
        assert!(breaker.permit().is_ok());
    }
}
