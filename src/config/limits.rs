//! What may be asked how much (`[limits]`).

use super::section::Section;
use super::value::Rate;

/// Limits of callers that are not clients, or not whole ones.
#[derive(Clone, Copy, Debug)]
pub struct Callers {
    /// What one address may ask without a valid credential.
    pub unauthenticated: Rate,
    /// Addresses, and bearers of tokens, that are counted at a time.
    pub tracked: u64,
}

/// What `[limits]` says, of which each part goes to another place.
pub struct Limits {
    pub conversation_details_limit: u64,
    pub callers: Callers,
    pub redaction_work: u64,
}

impl Limits {
    pub fn read(mut section: Section<'_>) -> Self {
        let limits = Self {
            conversation_details_limit: section.required("conversation_details_limit"),
            callers: Callers {
                unauthenticated: section.required("unauthenticated"),
                tracked: section.required("tracked_callers"),
            },
            redaction_work: section.required("redaction_work"),
        };
        section.close();
        limits
    }
}
