//! Counts the memory of a streamed answer until its parts have been sent.

use bytes::Bytes;
use futures_util::stream::StreamExt;

use super::outcome::AttemptOutcome;
use crate::fetch::answer::{Fetched, Large, Parts};
use crate::overload::shares::Share;

/// The same outcome. Each part of a streamed answer counts in `share` until its last receiver has it or has left.
pub fn counted(outcome: AttemptOutcome, mut share: Share) -> AttemptOutcome {
    let AttemptOutcome::Answered(Fetched::Large(large, bounds)) = outcome else { return outcome };
    let parts = large.body.into_stream().map(move |part| {
        part.map(|bytes| {
            let share = share.part(bytes.len());
            Bytes::from_owner(Leaving { bytes, _share: share })
        })
    });
    let body = Parts::new(parts.boxed());
    AttemptOutcome::Answered(Fetched::Large(Large { body, ..large }, bounds))
}

/// A part on its way out.
struct Leaving {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Leaving {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
