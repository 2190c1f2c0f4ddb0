//! Estimates how long an upstream takes to answer, from its last answers.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The smallest margin above the mean.
const LEAST_MARGIN: Duration = Duration::from_millis(250);

/// A running mean of the time that answers take, and of their deviation from it (as for round trips, RFC 6298 §2).
#[derive(Default)]
pub struct Pace(Mutex<Option<Estimate>>);

#[derive(Clone, Copy)]
struct Estimate {
    mean: Duration,
    deviation: Duration,
}

impl Pace {
    /// Records the time of an answer.
    pub fn note(&self, taken: Duration) {
        let mut estimate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *estimate = Some(match *estimate {
            None => Estimate { mean: taken, deviation: taken / 2 },
            Some(Estimate { mean, deviation }) => Estimate {
                deviation: (deviation * 3 + taken.abs_diff(mean)) / 4,
                mean: (mean * 7 + taken) / 8,
            },
        });
    }

    /// How long the next answer will take, with a margin. A call that is granted later than that before its waiters
    /// leave is granted in vain. At most half of `timeout`; a tenth of it before the first answer.
    pub fn expected(&self, timeout: Duration) -> Duration {
        let estimate = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        estimate.map_or(timeout / 10, |Estimate { mean, deviation }| {
            let margin = LEAST_MARGIN.max(mean / 4).max(deviation * 4);
            (mean + margin).min(timeout / 2)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[test]
    fn what_is_expected_follows_what_is_seen_with_a_margin_and_within_bounds() {
        let pace = Pace::default();
        let expected = || pace.expected(TIMEOUT).as_millis();
        assert_eq!(expected(), 3000);
        pace.note(Duration::ZERO);
        assert_eq!(expected(), 250);
        for _ in 0..50 {
            pace.note(Duration::from_secs(4));
        }
        assert!((4900..=5100).contains(&expected()), "{}", expected());
        for n in 0..50 {
            pace.note(Duration::from_secs(2 + n % 2 * 4));
        }
        assert!((10_000..=15_000).contains(&expected()), "{}", expected());
        for _ in 0..50 {
            pace.note(TIMEOUT);
        }
        assert_eq!(expected(), 15_000);
    }
}
