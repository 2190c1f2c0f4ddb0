//! What an entry is about, in a form that can be looked up: cache groups (RFC 9875).

use crate::digest;
use crate::lifecycle::sightings;
use crate::routes::{self, Key};

/// Something entries have in common. A digest, so that it is small, of one size, and tells nobody an
/// id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Group {
    kind: GroupKind,
    digest: [u8; 15],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum GroupKind {
    Account,
    Bot,
    Conversation,
    Session,
    Call,
    /// Transcripts that hold all of another one.
    Plain,
}

impl Group {
    pub fn account(id: &str) -> Self {
        Self::new(GroupKind::Account, id.as_bytes())
    }

    /// A bot, which is a stream.
    pub fn bot(id: &str) -> Self {
        Self::new(GroupKind::Bot, id.as_bytes())
    }

    pub fn named(name: sightings::HashedId) -> Self {
        let kind = match name.kind {
            sightings::IdKind::Conversation => GroupKind::Conversation,
            sightings::IdKind::Session => GroupKind::Session,
            sightings::IdKind::Call => GroupKind::Call,
        };
        Self { kind, digest: name.digest }
    }

    /// The transcripts with a summary that answer `key`, which asks for none.
    pub fn plain(key: &Key) -> Self {
        Self::new(GroupKind::Plain, key.as_bytes())
    }

    /// Whether it is the group of [`Group::plain`].
    pub fn is_of_a_plain_one(&self) -> bool {
        self.kind == GroupKind::Plain
    }

    fn new(kind: GroupKind, bytes: &[u8]) -> Self {
        Self { kind, digest: digest::short(bytes) }
    }

    /// Whether all of a route's answers in it are about what it is linked to. A session, or a call, can
    /// have been part of more than one conversation, and each of those has a record of its own.
    pub fn takes_along(&self, route: routes::RouteName) -> bool {
        self.kind == GroupKind::Conversation || route != routes::RouteName::Conversation
    }

    /// Whether it is small enough for an index. Accounts and bots have most entries among their
    /// members, so they are looked for by going through all.
    pub fn is_indexed(&self) -> bool {
        !matches!(self.kind, GroupKind::Account | GroupKind::Bot)
    }
}
