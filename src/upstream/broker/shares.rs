//! How much of a pool is whose.

use crate::config::Fairness;

/// The clients among whom a pool is shared, and by what rule.
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
    /// What the background lane gets of a window's `amount` in any case.
    pub fn background_minimum(&self, amount: usize) -> usize {
        match (self.interactive, self.background) {
            (_, 0) => 0,
            (0, _) => amount,
            _ => percent(amount, self.fairness.background_minimum).max(1),
        }
    }

    /// An interactive client's share of a window's `amount`.
    pub fn interactive_share(&self, amount: usize, weight: u32) -> usize {
        let amount = amount - self.background_minimum(amount);
        let sum = self.interactive.max(weight).max(1) as usize;
        (amount * weight as usize / sum).max(1)
    }

    /// The largest share that somebody may come with who has never called, where those who have are of
    /// this weight together.
    pub fn of_an_unseen_client(&self, amount: usize, weight_seen: u32) -> usize {
        match self.interactive.saturating_sub(weight_seen).min(self.heaviest) {
            0 => 0,
            weight => self.interactive_share(amount, weight),
        }
    }

    /// What of a window's `amount` is kept at most for one who comes unawares.
    pub fn reserve(&self, amount: usize) -> usize {
        percent(amount, self.fairness.reserve)
    }

    /// What of a window's `amount` those beyond their share leave free.
    pub fn headroom(&self, amount: usize) -> usize {
        percent(amount, self.fairness.headroom)
    }
}

fn percent(amount: usize, percent: u32) -> usize {
    amount * percent as usize / 100
}
