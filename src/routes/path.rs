//! Paths: where the literals of a route's pattern stand, and the ids between them.

use std::ops::Range;

use http::uri::PathAndQuery;

use super::{ids, shown};
use crate::error::Fault;

/// What an id is the id of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    Account,
    /// A stream or bot.
    Bot,
    Conversation,
}

/// A path pattern that has been read.
pub struct Pattern {
    /// What stands before each id.
    ids: Vec<(&'static str, Of)>,
    /// What stands behind the last one, up to the last segment.
    before: &'static str,
    /// The last segment with its slash, if it is literal; it matches in any letter case.
    last: &'static str,
}

impl Pattern {
    pub fn of(path: &'static str) -> Self {
        let (mut found, mut rest) = (Vec::new(), path);
        while let Some((literal, (name, after))) =
            rest.split_once('{').and_then(|(literal, after)| Some((literal, after.split_once('}')?)))
        {
            let of = match name {
                "accountId" => Of::Account,
                "conversationId" => Of::Conversation,
                _ => Of::Bot,
            };
            found.push((literal, of));
            rest = after;
        }
        let (before, last) = rest.split_at(rest.rfind('/').unwrap_or(rest.len()));
        Self { ids: found, before, last }
    }

    /// The ids in a path of this pattern, none of them empty; none if it is of another.
    pub fn ids(&self, target: &PathAndQuery) -> Option<Ids> {
        let path = target.path().as_bytes();
        let (mut account, mut bot, mut conversation) = (None, None, None);
        let mut at = 0;
        for (literal, of) in &self.ids {
            let rest = path.get(at..)?.strip_prefix(literal.as_bytes())?;
            let start = at + literal.len();
            at = memchr::memchr(b'/', rest).map_or(path.len(), |length| start + length);
            if at == start {
                return None;
            }
            let id = match of {
                Of::Account => &mut account,
                Of::Bot => &mut bot,
                Of::Conversation => &mut conversation,
            };
            *id = Some(start..at);
        }
        let last = path.get(at..)?.strip_prefix(self.before.as_bytes())?;
        if !last.eq_ignore_ascii_case(self.last.as_bytes()) {
            return None;
        }
        let mut ids = Ids { path: target.clone(), account, bot, conversation, are_well_formed: false };
        let are_ids = ids.each().all(|(id, _, shape)| id.is_none_or(|id| shape(id).is_ok()));
        ids.are_well_formed = are_ids;
        Some(ids)
    }
}

/// The ids in a path, as they were sent.
#[derive(Clone, Debug)]
pub struct Ids {
    path: PathAndQuery,
    account: Option<Range<usize>>,
    bot: Option<Range<usize>>,
    conversation: Option<Range<usize>>,
    are_well_formed: bool,
}

impl Ids {
    fn slice(&self, range: &Option<Range<usize>>) -> Option<&str> {
        self.path.as_str().get(range.clone()?)
    }

    pub fn account(&self) -> Option<&str> {
        self.slice(&self.account)
    }

    /// The stream or bot.
    pub fn bot(&self) -> Option<&str> {
        self.slice(&self.bot)
    }

    pub fn conversation(&self) -> Option<&str> {
        self.slice(&self.conversation)
    }

    /// Each, its name and its shape.
    fn each(&self) -> impl Iterator<Item = (Option<&str>, &'static str, ids::Shape)> {
        [
            (self.account(), "accountId", ids::account as ids::Shape),
            (self.bot(), "streamId", ids::stream),
            (self.conversation(), "conversationId", ids::conversation),
        ]
        .into_iter()
    }

    /// Whether each id has its shape.
    pub fn are_well_formed(&self) -> bool {
        self.are_well_formed
    }

    /// Ids that are none; the shapes are the contract's.
    pub fn faults(&self) -> Vec<Fault> {
        if self.are_well_formed {
            return Vec::new();
        }
        let fault = |(id, name, shape): (Option<&str>, &'static str, ids::Shape)| {
            let (id, expected) = id.and_then(|id| Some((id, shape(id).err()?)))?;
            let detail = format!("`{name}` is {}; it is {expected}", shown(id));
            Some(Fault::in_parameter(name, detail))
        };
        self.each().filter_map(fault).collect()
    }
}
