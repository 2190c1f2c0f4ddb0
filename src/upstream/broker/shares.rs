//! The share of each client in a pool.

use crate::config::Fairness;

/// The clients that share a pool, and the rule by which they do.
#[derive(Clone, Copy, Debug)]
pub struct QuotaShares {
    /// Sums of weights.
    pub interactive: u32,
    pub background: u32,
    /// The largest weight of an interactive client.
    pub heaviest: u32,
    pub fairness: Fairness,
}

impl QuotaShares {
    /// The share of the whole background lane in a window of `amount` calls.
    pub fn background_minimum(&self, amount: usize) -> usize {
        match (self.interactive, self.background) {
            (_, 0) => 0,
            (0, _) => amount,
            _ => percent(amount, self.fairness.background_minimum).max(1),
        }
    }

    /// The share of an interactive client in a window of `amount` calls.
    pub fn interactive_share(&self, amount: usize, weight: u32) -> usize {
        let amount = amount - self.background_minimum(amount);
        let sum = self.interactive.max(weight).max(1) as usize;
        (amount * weight as usize / sum).max(1)
    }

    /// The largest share of a client that has not called yet. The clients that have called weigh `weight_seen`
    /// together.
    pub fn of_an_unseen_client(&self, amount: usize, weight_seen: u32) -> usize {
        match self.interactive.saturating_sub(weight_seen).min(self.heaviest) {
            0 => 0,
            weight => self.interactive_share(amount, weight),
        }
    }

    /// How many calls of a window are at most reserved for a sudden burst.
    pub fn reserve(&self, amount: usize) -> usize {
        percent(amount, self.fairness.reserve)
    }

    /// How many calls of a window surplus leaves free in any case.
    pub fn headroom(&self, amount: usize) -> usize {
        percent(amount, self.fairness.headroom)
    }
}

fn percent(amount: usize, percent: u32) -> usize {
    amount * percent as usize / 100
}
