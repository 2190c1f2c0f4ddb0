//! What an entry is about, in a form that can be looked up: cache groups (RFC 9875).

use aws_lc_rs::digest;

use crate::routes::{self, Key};
use crate::seen;

/// Something entries have in common. 128 bits of a digest, so that it is small, of one size, and
/// tells nobody an id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Group {
    kind: Kind,
    digest: [u8; 16],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Kind {
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
        Self::new(Kind::Account, id.as_bytes())
    }

    /// A bot, which is a stream.
    pub fn bot(id: &str) -> Self {
        Self::new(Kind::Bot, id.as_bytes())
    }

    pub fn named((kind, id): &seen::Name) -> Self {
        let kind = match kind {
            seen::Kind::Conversation => Kind::Conversation,
            seen::Kind::Session => Kind::Session,
            seen::Kind::Call => Kind::Call,
        };
        Self::new(kind, id.as_bytes())
    }

    /// The transcripts with a summary that answer `key`, which asks for none.
    pub fn plain(key: &Key) -> Self {
        Self::new(Kind::Plain, key.as_bytes())
    }

    /// Whether it is the group of [`Group::plain`].
    pub fn is_of_a_plain_one(&self) -> bool {
        self.kind == Kind::Plain
    }

    fn new(kind: Kind, bytes: &[u8]) -> Self {
        let mut short = [0; 16];
        let whole = digest::digest(&digest::SHA256, bytes);
        short.iter_mut().zip(whole.as_ref()).for_each(|(short, byte)| *short = *byte);
        Self { kind, digest: short }
    }

    /// Whether all of a route's answers in it are about what it is linked to. A session, or a call, can
    /// have been part of more than one conversation, and each of those has a record of its own.
    pub fn takes_along(&self, route: routes::Name) -> bool {
        self.kind == Kind::Conversation || route != routes::Name::Conversation
    }

    /// Whether it is small enough for an index. Accounts and bots have most entries among their
    /// members, so they are looked for by going through all.
    pub fn is_indexed(&self) -> bool {
        !matches!(self.kind, Kind::Account | Kind::Bot)
    }
}
