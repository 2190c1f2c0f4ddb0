//! What is to be forgotten, what was, and what must not come back.

use std::collections::VecDeque;

use super::group::Group;
use crate::routes::{Name, ROUTES};
use crate::seen;

/// Purges remembered for fills that were under way. A fill that began before the oldest of them
/// stores nothing: it cannot be known whether it may.
const MOST_REMEMBERED: usize = 1024;

/// What is to be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purge {
    All,
    Group(Group),
}

impl Purge {
    pub fn conversation(id: &str) -> Self {
        Self::Group(Group::named(&(seen::Kind::Conversation, id.to_owned())))
    }

    pub fn session(id: &str) -> Self {
        Self::Group(Group::named(&(seen::Kind::Session, id.to_owned())))
    }

    pub fn bot(id: &str) -> Self {
        Self::Group(Group::bot(id))
    }

    pub fn account(id: &str) -> Self {
        Self::Group(Group::account(id))
    }

    /// Whether an entry of these groups is meant.
    pub fn takes(&self, groups: &[Group]) -> bool {
        match self {
            Self::All => true,
            Self::Group(group) => groups.contains(group),
        }
    }
}

/// What a purge removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// In the order of [`ROUTES`].
    entries: [u64; ROUTES.len()],
    /// With their variants.
    pub bytes: u64,
}

impl Removed {
    pub fn count(&mut self, route: Name, bytes: u64) {
        self.entries[route as usize] += 1;
        self.bytes += bytes;
    }

    pub fn of(&self, route: Name) -> u64 {
        self.entries[route as usize]
    }

    pub fn entries(&self) -> u64 {
        self.entries.iter().sum()
    }
}

/// A moment among the purges.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Began(u64);

/// The purges of late. What a fill brings that began before one of them is not stored where that
/// purge would have taken it.
#[derive(Default)]
pub struct Tombstones {
    count: u64,
    latest: VecDeque<Purge>,
}

impl Tombstones {
    pub fn now(&self) -> Began {
        Began(self.count)
    }

    pub fn put_up(&mut self, purge: Purge) {
        self.count += 1;
        self.latest.push_front(purge);
        self.latest.truncate(MOST_REMEMBERED);
    }

    /// Whether what began then and has these groups has been purged since.
    pub fn forbid(&self, began: Began, groups: &[Group]) -> bool {
        let since = usize::try_from(self.count - began.0).unwrap_or(usize::MAX);
        since > self.latest.len() || self.latest.iter().take(since).any(|purge| purge.takes(groups))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_began_before_a_purge_and_is_meant_by_it_is_forbidden() {
        let mut tombstones = Tombstones::default();
        let (mine, other) = ([Group::bot("st-1")], [Group::bot("st-2")]);
        let before = tombstones.now();
        tombstones.put_up(Purge::bot("st-1"));
        assert!(tombstones.forbid(before, &mine));
        assert!(!tombstones.forbid(before, &other));
        assert!(!tombstones.forbid(tombstones.now(), &mine));
        tombstones.put_up(Purge::All);
        assert!(tombstones.forbid(before, &other));
    }

    #[test]
    fn what_began_before_the_oldest_purge_that_is_remembered_is_forbidden() {
        let mut tombstones = Tombstones::default();
        let before = tombstones.now();
        for _ in 0..MOST_REMEMBERED {
            tombstones.put_up(Purge::bot("st-1"));
        }
        assert!(!tombstones.forbid(before, &[Group::bot("st-2")]));
        tombstones.put_up(Purge::bot("st-1"));
        assert!(tombstones.forbid(before, &[Group::bot("st-2")]));
    }

    #[test]
    fn the_kinds_of_id_do_not_share_a_name_space() {
        assert_ne!(Purge::bot("x"), Purge::account("x"));
        assert_ne!(Purge::session("x"), Purge::conversation("x"));
    }
}
