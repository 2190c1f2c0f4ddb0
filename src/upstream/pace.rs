//! How long an upstream takes to answer, as far as its last answers tell.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The least by which an answer may be later than the ones before.
const LEAST_MARGIN: Duration = Duration::from_millis(250);

/// A running mean of the time that answers take, and of how far they are from it (as RFC 6298 §2 has it for
/// round trips).
#[derive(Default)]
pub struct Pace(Mutex<Option<Estimate>>);

#[derive(Clone, Copy)]
struct Estimate {
    mean: Duration,
    deviation: Duration,
}

impl Pace {
    /// An answer took so long.
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

    /// How long the next answer will take, with a margin: what is granted later than that before its waiters
    /// leave is granted for nobody. At most half of `timeout`; a tenth where nothing is known.
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
