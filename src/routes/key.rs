//! The name under which an answer is kept, and the plan of the call that fetches it.
//!
//! A key **is** the canonical request: version, account, route, bot, conversation, query string and
//! body, each with its length in front. It is not a hash of it, so two requests cannot collide; and
//! the upstream request is built from the key alone, so nothing that is not in the key can reach
//! the upstream and shape an answer that others will get.

use std::sync::Arc;

use super::{Canonical, Ids, ROUTES, Route, RouteName};

/// Changes when the layout or the meaning of a canonical form does.
const VERSION: u8 = 1;

/// A canonical request. Equal keys, equal meaning. Cheap to clone, and in one block of memory: there are
/// as many as there are entries.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<[u8]>);

/// What a key is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyParts<'a> {
    pub account: &'a str,
    pub bot: &'a str,
    pub conversation: &'a str,
    pub query: &'a str,
    pub body: &'a str,
}

impl Key {
    pub fn new(account: &str, route: &Route, ids: &Ids, canonical: &Canonical) -> Self {
        Self::with_body(account, route, ids, canonical, &canonical.body)
    }

    /// The key of the same transcript without a summary, if one was asked for.
    pub fn plain(account: &str, route: &Route, ids: &Ids, canonical: &Canonical) -> Option<Self> {
        let body = canonical.plain_body.as_deref()?;
        Some(Self::with_body(account, route, ids, canonical, body))
    }

    fn with_body(account: &str, route: &Route, ids: &Ids, canonical: &Canonical, body: &str) -> Self {
        let parts = [
            account,
            ids.bot().unwrap_or_default(),
            ids.conversation().unwrap_or_default(),
            &canonical.query,
            body,
        ];
        let length = parts.iter().map(|part| part.len() + size_of::<u32>()).sum::<usize>();
        let mut key = Vec::with_capacity(length + 2);
        key.extend_from_slice(&[VERSION, route.name as u8]);
        for part in parts {
            // A part is at most a request body, which is far below 4 GiB.
            key.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            key.extend_from_slice(part.as_bytes());
        }
        Self(key.into())
    }

    /// A key for tests that need any.
    #[cfg(test)]
    pub fn of_nothing(route: &Route) -> Self {
        Self(Arc::from([VERSION, route.name as u8]))
    }

    /// The name of what a projection shows of the answer: the key, and behind its last part the
    /// projection and the answer it was made from.
    pub fn projected(&self, projection: &[u8], answer: &[u8]) -> Self {
        Self([&*self.0, projection, answer].concat().into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn route(&self) -> &'static Route {
        let index = self.0.get(1).copied().map_or(RouteName::Conversation as usize, usize::from);
        &ROUTES[index]
    }

    /// The parts again, as they went in.
    pub fn parts(&self) -> KeyParts<'_> {
        let mut rest = self.0.get(2..).unwrap_or_default();
        let mut next = || {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let (part, tail) = tail.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            rest = tail;
            std::str::from_utf8(part).ok()
        };
        KeyParts {
            account: next().unwrap_or_default(),
            bot: next().unwrap_or_default(),
            conversation: next().unwrap_or_default(),
            query: next().unwrap_or_default(),
            body: next().unwrap_or_default(),
        }
    }
}

impl std::fmt::Debug for Key {
    /// The route and the length: a key holds what a caller asked for.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({}, {} B)", self.route().name.as_str(), self.0.len())
    }
}
