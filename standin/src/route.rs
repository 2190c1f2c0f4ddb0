//! The paths of the three APIs (contract §1): words in any case, ids as they are.

use super::Pool;
use super::options::{Account, Scope};
use super::quota::Limit;

#[derive(Clone, Copy, Debug)]
pub(super) enum Route<'a> {
    /// E1.
    Conversation { stream: &'a str, conversation: &'a str },
    /// E2, under either of its names.
    InteractionDetails { account: &'a str },
    /// E3.
    ConversationDetails { bot: &'a str },
}

impl<'a> Route<'a> {
    pub(super) fn of(path: &'a str) -> Option<Route<'a>> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let words = |pattern: &[&str]| {
            pattern.len() == segments.len()
                && pattern
                    .iter()
                    .zip(&segments)
                    .all(|(word, segment)| *word == "*" || word.eq_ignore_ascii_case(segment))
        };
        let details = ["agentassist", "api", "public", "analytics", "account", "*", "v2"];
        let named = |name| words(&[details.as_slice(), &[name]].concat());
        if words(&["agentassist", "api", "v1", "public", "*", "conversations", "*"]) {
            Some(Route::Conversation { stream: segments[4], conversation: segments[6] })
        } else if named("interactionDetails") || named("calldetails") {
            Some(Route::InteractionDetails { account: segments[5] })
        } else if words(&["api", "public", "bot", "*", "conversationDetails"]) {
            Some(Route::ConversationDetails { bot: segments[3] })
        } else {
            None
        }
    }

    pub(super) fn method(self) -> &'static str {
        match self {
            Route::Conversation { .. } => "GET",
            Route::InteractionDetails { .. } | Route::ConversationDetails { .. } => "POST",
        }
    }

    pub(super) fn scope(self) -> Scope {
        match self {
            Route::Conversation { .. } | Route::InteractionDetails { .. } => Scope::Analytics,
            Route::ConversationDetails { .. } => Scope::ChatHistory,
        }
    }

    /// The stream (= bot) in the path.
    pub(super) fn stream(self) -> Option<&'a str> {
        match self {
            Route::Conversation { stream, .. } => Some(stream),
            Route::ConversationDetails { bot } => Some(bot),
            Route::InteractionDetails { .. } => None,
        }
    }

    /// What a call is counted against, and how much that may be.
    pub(super) fn pool(self, account: &Account) -> (Pool, Vec<Limit>) {
        match self {
            Route::ConversationDetails { bot } => (
                Pool::Bot(bot.to_owned()),
                vec![
                    Limit::per_minute(account.bot_calls_per_minute),
                    Limit::per_hour(account.bot_calls_per_hour),
                ],
            ),
            _ => (Pool::Account(account.id.clone()), vec![Limit::per_minute(account.calls_per_minute)]),
        }
    }
}
