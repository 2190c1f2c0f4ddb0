//! What is taken of a bound, in all and by each client: places to wait in, bytes that are held. Each client has a share
//! of every bound, so that no client can take all of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;

/// How much may be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
    pub all: usize,
    /// By one client.
    pub of_one: usize,
}

/// Who takes it: a client by its name, or all whose credential is not known yet.
pub type Who = Option<Arc<str>>;

/// What stands in the way of taking more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// The one's own share is used up.
    Share,
    All,
}

/// What is taken now.
#[derive(Debug, Default)]
pub struct Shares {
    all: Arc<Count>,
    each: Each<Count>,
}

#[derive(Debug, Default)]
struct Count(AtomicUsize);

impl Count {
    fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn begin(self: &Arc<Self>) -> Taken {
        Taken { of: self.clone(), amount: 0 }
    }

    fn has_room(&self, most: usize) -> bool {
        let now = self.now();
        now < most || now == 0
    }
}

impl Shares {
    /// What is taken in all.
    pub fn now(&self) -> usize {
        self.all.now()
    }

    /// The share of `who`, of which this has taken nothing yet.
    pub fn begin(&self, who: &Who) -> Share {
        Share { own: self.begin_own(who), all: self.begin_all() }
    }

    /// Counts for `who` alone: for what several have at the same time, and what is one in all.
    pub fn begin_own(&self, who: &Who) -> Taken {
        self.each.of(who, Count::default).begin()
    }

    /// The other part of that: counts in all, and for nobody.
    pub fn begin_all(&self) -> Taken {
        self.all.begin()
    }
}

/// Some of a count. It is given back when this is dropped.
#[derive(Debug)]
pub struct Taken {
    of: Arc<Count>,
    amount: usize,
}

impl Taken {
    /// Takes more, if at most `most` is taken then, or nothing by anybody else: what is alone has room, or it would
    /// never have any.
    #[must_use]
    pub fn grow(&mut self, more: usize, most: usize) -> bool {
        let fits = |now: usize| {
            let then = now.saturating_add(more);
            (then <= most || now == self.amount).then_some(then)
        };
        let grown = self.of.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.amount += if grown { more } else { 0 };
        grown
    }

    /// A part of it, to be given back on its own; what is not in it is taken, whatever the bound.
    fn part(&mut self, amount: usize) -> Self {
        let had = self.amount.min(amount);
        self.amount -= had;
        self.of.0.fetch_add(amount - had, Ordering::Relaxed);
        Self { of: self.of.clone(), amount }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// What somebody has taken, which counts for him and in all.
#[derive(Debug)]
pub struct Share {
    own: Taken,
    all: Taken,
}

impl Share {
    /// Whether anything more could be taken.
    pub fn room(&self, bound: Bound) -> Result<(), Full> {
        match (self.own.of.has_room(bound.of_one), self.all.of.has_room(bound.all)) {
            (false, _) => Err(Full::Share),
            (true, false) => Err(Full::All),
            (true, true) => Ok(()),
        }
    }

    /// Takes more, if there is room; as [`Taken::grow`].
    pub fn grow(&mut self, more: usize, bound: Bound) -> Result<(), Full> {
        if !self.own.grow(more, bound.of_one) {
            return Err(Full::Share);
        }
        if !self.all.grow(more, bound.all) {
            drop(self.own.part(more));
            return Err(Full::All);
        }
        Ok(())
    }

    /// Takes more until there is so much; as [`Taken::grow`].
    pub fn grow_to(&mut self, amount: usize, bound: Bound) -> Result<(), Full> {
        self.grow(amount.saturating_sub(self.own.amount), bound)
    }

    /// A part of it, to be given back on its own; what is not in it is taken, whatever the bound.
    pub fn part(&mut self, amount: usize) -> Self {
        Self { own: self.own.part(amount), all: self.all.part(amount) }
    }
}

/// One of something for each client. It stays, once the client has come: there are as many as the configuration
/// names.
#[derive(Debug)]
pub struct Each<T>(Mutex<HashMap<Who, Arc<T>, RandomState>>);

impl<T> Each<T> {
    pub fn of(&self, who: &Who, new: impl FnOnce() -> T) -> Arc<T> {
        // No change is left half done by a panic.
        let mut each = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = each.get(who) {
            return known.clone();
        }
        each.entry(who.clone()).or_insert(Arc::new(new())).clone()
    }
}

impl<T> Default for Each<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound { all: 25, of_one: 15 };

    fn a() -> Who {
        Some("a".into())
    }

    #[test]
    fn each_has_a_share_all_have_the_whole_and_what_is_dropped_is_given_back() {
        let shares = Shares::default();
        let (mut one, mut other, mut stranger) =
            (shares.begin(&a()), shares.begin(&a()), shares.begin(&None));
        assert_eq!(one.grow(10, BOUND), Ok(()));
        assert_eq!(other.grow(6, BOUND), Err(Full::Share));
        assert_eq!(other.grow_to(5, BOUND), Ok(()));
        assert_eq!((other.room(BOUND), stranger.room(BOUND)), (Err(Full::Share), Ok(())));
        assert_eq!(stranger.grow(11, BOUND), Err(Full::All), "and nothing of his own is taken");
        assert_eq!(stranger.grow(10, BOUND), Ok(()));
        assert_eq!(shares.now(), 25);
        drop((one, other));
        assert_eq!((shares.now(), stranger.grow_to(15, BOUND)), (10, Ok(())));
        drop(stranger);
        assert_eq!(shares.now(), 0);
    }

    #[test]
    fn what_is_alone_has_room_in_a_share_and_in_the_whole() {
        let shares = Shares::default();
        let mut alone = shares.begin(&a());
        assert_eq!((alone.grow(20, BOUND), alone.grow(20, BOUND)), (Ok(()), Ok(())));
        assert_eq!(shares.begin(&None).grow(1, BOUND), Err(Full::All));
        assert_eq!(shares.begin(&a()).grow(1, BOUND), Err(Full::Share));
    }

    #[test]
    fn a_part_is_given_back_on_its_own_and_counts_also_beyond_what_was_taken() {
        let shares = Shares::default();
        let mut share = shares.begin(&a());
        assert_eq!(share.grow(10, BOUND), Ok(()));
        let (first, second) = (share.part(7), share.part(7));
        assert_eq!(shares.now(), 14);
        drop(first);
        assert_eq!(shares.now(), 7);
        drop((second, share));
        assert_eq!(shares.now(), 0);
    }
}
