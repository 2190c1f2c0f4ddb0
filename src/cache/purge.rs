//! What is to be forgotten, what was, and what must not come back.

use std::collections::VecDeque;

use super::group::Group;
use crate::lifecycle::sightings;
use crate::routes::{ROUTES, RouteName};

/// Purges remembered for fills that were under way. A fill that began before the oldest of them
/// stores nothing: it cannot be known whether it may.
const MOST_REMEMBERED: usize = 1024;

/// What is to be forgotten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Purge {
    All,
    Account(String),
    Bot(String),
    /// A conversation or a session: what names it, and what is known to be about it.
    Named(sightings::HashedId),
}

impl Purge {
    pub fn conversation(id: &str) -> Self {
        Self::Named(sightings::HashedId::new(sightings::IdKind::Conversation, id))
    }

    pub fn session(id: &str) -> Self {
        Self::Named(sightings::HashedId::new(sightings::IdKind::Session, id))
    }

    pub fn bot(id: &str) -> Self {
        Self::Bot(id.to_owned())
    }

    pub fn account(id: &str) -> Self {
        Self::Account(id.to_owned())
    }
}

/// What a purge means, by groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meant {
    All,
    Group(Group),
    Linked {
        group: Group,
        /// What else it is called. A transcript or a row does not name its conversation, only the
        /// session, so those go along; the record of another conversation of that session does not.
        links: Vec<Group>,
    },
}

impl Meant {
    /// What `purge` means, where what it names is also called `links`.
    pub fn by(purge: &Purge, links: &[sightings::HashedId]) -> Self {
        match purge {
            Purge::All => Self::All,
            Purge::Account(id) => Self::Group(Group::account(id)),
            Purge::Bot(id) => Self::Group(Group::bot(id)),
            Purge::Named(name) => {
                let links = links.iter().copied().map(Group::named).collect();
                Self::Linked { group: Group::named(*name), links }
            }
        }
    }

    /// Whether an entry of that route, in these groups, is meant.
    pub fn takes(&self, route: RouteName, groups: &[Group]) -> bool {
        match self {
            Self::All => true,
            Self::Group(group) => groups.contains(group),
            Self::Linked { group, links } => {
                let is_linked = |link: &Group| groups.contains(link) && link.takes_along(route);
                groups.contains(group) || links.iter().any(is_linked)
            }
        }
    }

    /// The groups that all it means are in, where they are few enough for the index.
    pub fn indexed(&self) -> Option<Vec<Group>> {
        match self {
            Self::All => None,
            Self::Group(group) => group.is_indexed().then(|| vec![*group]),
            Self::Linked { group, links } => Some(std::iter::once(group).chain(links).copied().collect()),
        }
    }

    /// Takes in that these groups are one conversation's, and says whether that is news.
    fn learn(&mut self, linked: &[Group]) -> bool {
        let Self::Linked { group, links } = self else { return false };
        if !linked.contains(group) {
            return false;
        }
        let known = links.len();
        let news = linked.iter().filter(|linked| *linked != group);
        let news: Vec<_> = news.filter(|linked| !links.contains(linked)).copied().collect();
        links.extend(news);
        links.len() > known
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
    pub fn count(&mut self, route: RouteName, bytes: u64) {
        self.entries[route as usize] += 1;
        self.bytes += bytes;
    }

    pub fn of(&self, route: RouteName) -> u64 {
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
    latest: VecDeque<Meant>,
}

impl Tombstones {
    pub fn now(&self) -> Began {
        Began(self.count)
    }

    pub fn put_up(&mut self, meant: Meant) {
        self.count += 1;
        self.latest.push_front(meant);
        self.latest.truncate(MOST_REMEMBERED);
    }

    /// Whether what began then, is of that route and in these groups has been purged since.
    pub fn forbid(&self, began: Began, route: RouteName, groups: &[Group]) -> bool {
        let since = usize::try_from(self.count - began.0).unwrap_or(usize::MAX);
        let mut latest = self.latest.iter().take(since);
        since > self.latest.len() || latest.any(|meant| meant.takes(route, groups))
    }

    /// Whether a conversation or a session was purged of late.
    pub fn any_named(&self) -> bool {
        self.latest.iter().any(|meant| matches!(meant, Meant::Linked { .. }))
    }

    /// Takes in that these groups are one conversation's, and says whether that makes a purge of late
    /// mean more than was known when it was made.
    pub fn learn(&mut self, linked: &[Group]) -> bool {
        self.latest.iter_mut().map(|meant| meant.learn(linked)).fold(false, |any, news| any | news)
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
        tombstones.put_up(Meant::by(&Purge::bot("st-1"), &[]));
        assert!(tombstones.forbid(before, RouteName::Conversation, &mine));
        assert!(!tombstones.forbid(before, RouteName::Conversation, &other));
        assert!(!tombstones.forbid(tombstones.now(), RouteName::Conversation, &mine));
        tombstones.put_up(Meant::All);
        assert!(tombstones.forbid(before, RouteName::Conversation, &other));
    }

    #[test]
    fn what_began_before_the_oldest_purge_that_is_remembered_is_forbidden() {
        let mut tombstones = Tombstones::default();
        let before = tombstones.now();
        let meant = || Meant::by(&Purge::bot("st-1"), &[]);
        for _ in 0..MOST_REMEMBERED {
            tombstones.put_up(meant());
        }
        assert!(!tombstones.forbid(before, RouteName::Conversation, &[Group::bot("st-2")]));
        tombstones.put_up(meant());
        assert!(tombstones.forbid(before, RouteName::Conversation, &[Group::bot("st-2")]));
    }

    #[test]
    fn the_kinds_of_id_do_not_share_a_name_space() {
        let meant = |purge| Meant::by(&purge, &[]);
        assert_ne!(meant(Purge::bot("x")), meant(Purge::account("x")));
        assert_ne!(meant(Purge::session("x")), meant(Purge::conversation("x")));
    }

    #[test]
    fn a_conversation_takes_its_sessions_transcripts_and_rows_along_and_no_other_record() {
        use RouteName::{Conversation, ConversationDetails, InteractionDetails};
        let name = sightings::HashedId::new;
        let (first, second) =
            (name(sightings::IdKind::Conversation, "c-1"), name(sightings::IdKind::Conversation, "c-2"));
        let session = name(sightings::IdKind::Session, "s");
        let purge = Meant::by(&Purge::conversation("c-1"), &[session]);
        let of_the_second = [Group::named(second), Group::named(session)];
        let of_the_session = [Group::named(session)];
        for (route, groups, takes) in [
            (Conversation, &of_the_second[..], false),
            (InteractionDetails, &of_the_session, true),
            (ConversationDetails, &of_the_session, true),
            (ConversationDetails, &of_the_second[..1], false),
        ] {
            assert_eq!(purge.takes(route, groups), takes, "{route:?}");
        }
        let purge = Meant::by(&Purge::session("s"), &[first, second]);
        assert!(purge.takes(Conversation, &of_the_second[..1]));
    }
}
