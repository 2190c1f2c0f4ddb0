//! Which entries are in a group. Stands beside the store, which only knows keys.

use std::collections::BTreeMap;
use std::ops::Bound::Included;

use super::group::Group;
use crate::routes::Key;

/// Bytes a membership takes: group, serial and key handle in a B-tree that is two thirds full.
pub const MEMBERSHIP: usize = 72;

/// One insertion into the store: another for every insertion, the same key's too.
pub type Serial = u64;

/// Memberships of stored entries, by group.
#[derive(Default)]
pub struct Index {
    members: BTreeMap<(Group, Serial), Key>,
}

impl Index {
    pub fn add(&mut self, serial: Serial, groups: &[Group], key: &Key) {
        for group in groups.iter().filter(|group| group.is_indexed()) {
            self.members.insert((*group, serial), key.clone());
        }
    }

    pub fn remove(&mut self, serial: Serial, groups: &[Group]) {
        for group in groups.iter().filter(|group| group.is_indexed()) {
            self.members.remove(&(*group, serial));
        }
    }

    /// The keys of a group's entries.
    pub fn keys(&self, group: Group) -> Vec<Key> {
        let range = (Included((group, 0)), Included((group, Serial::MAX)));
        self.members.range(range).map(|(_, key)| key.clone()).collect()
    }
}
