//! A valid request, and what its answer says.

use std::sync::Arc;

use super::{Key, Route};
use crate::clock::UnixMillis;
use crate::lifecycle::phase::{Phase, Summary};
use crate::lifecycle::sightings::{HashedId, IdKind, Sighting};

/// A request that is allowed, valid and in canonical form. It says nothing of who asked.
#[derive(Clone, Debug)]
pub struct Query {
    pub route: &'static Route,
    /// Its id.
    pub account: Arc<str>,
    pub bot: Option<Arc<str>>,
    pub key: Key,
    /// For a transcript with a summary: the same without it.
    pub plain: Option<Key>,
    /// Whether the request held some text that is not in the key as it was sent.
    pub drops_text: bool,
    pub requested: Requested,
}

/// What was asked for, as far as an answer is held against it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Requested {
    Conversation {
        id: String,
    },
    Window {
        start: UnixMillis,
        /// The first moment after the window.
        end: UnixMillis,
        /// Minutes, JavaScript's sign: what is added to local time to get UTC.
        offset_minutes: i32,
    },
    Transcript(Transcript),
}

/// The id a transcript was asked by, the one the upstream considers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transcript {
    pub kind: IdKind,
    pub id: String,
    /// The conversation that the request names, if it does, also where another id counts: its record says whose
    /// session it is. Not part of the question.
    pub conversation: Option<String>,
    pub with_summary: bool,
}

impl Requested {
    /// The id that was asked for, if it was one.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Conversation { id } | Self::Transcript(Transcript { id, .. }) => Some(id),
            Self::Window { .. } => None,
        }
    }

    /// The same, and what it names.
    pub fn name(&self) -> Option<HashedId> {
        match self {
            Self::Conversation { id } => Some(HashedId::new(IdKind::Conversation, id)),
            Self::Window { .. } => None,
            Self::Transcript(Transcript { kind, id, .. }) => Some(HashedId::new(*kind, id)),
        }
    }

    pub fn with_summary(&self) -> bool {
        matches!(self, Self::Transcript(transcript) if transcript.with_summary)
    }
}

/// What a body of the expected shape says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// [`Phase::Unknown`] where the route does not say; then `known_by` is looked up.
    pub phase: Phase,
    /// What it says about conversations that other answers may be about.
    pub sightings: Vec<Sighting>,
    /// The ids under which its phase may have been seen.
    pub known_by: Vec<HashedId>,
    /// The bots the body names: its own, or those of its rows.
    pub bots: Vec<Box<str>>,
    /// The accounts the body names as its own, or its rows'.
    pub accounts: Vec<Box<str>>,
    /// Whether it is what was asked for.
    pub identity: IdentityProof,
    /// What it has of a summary.
    pub summary: Summary,
}

/// Whether a body is about what was asked for, as far as the body itself can tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdentityProof {
    Proven,
    /// If what was asked for is known to go by this name.
    ProvenIf(HashedId),
    /// It names nothing that could be held against the question, or something that does not fit.
    Unproven,
}

/// Why a complete body of a 200 is not the answer to what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// It ends in the middle.
    Cut,
    /// It is no JSON, or JSON of another shape: an encrypted payload, an HTML page, an error.
    Shape,
    /// It is about something else.
    Other,
}

impl Misfit {
    /// What a JSON parser's error says about a body whose transfer was complete.
    pub(super) fn from_json(error: &serde_json::Error) -> Self {
        if error.is_eof() { Self::Cut } else { Self::Shape }
    }
}
