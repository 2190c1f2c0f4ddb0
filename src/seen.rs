//! What answers that went by have told about conversations, for the route that says nothing itself.
//!
//! A transcript (`conversation_details`) carries no status. The other two routes name the
//! conversation, its session and its call together with their status, so each of their answers
//! leaves a sighting here, and the transcript's phase is looked up. The table is bounded: an id
//! that was pushed out is unknown again, and unknown is treated as live.

use std::sync::Arc;

use moka::sync::Cache;

use crate::phase::Phase;

/// What kind of id an answer named. The kinds do not share a name space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    Conversation,
    Session,
    Call,
}

/// One id and the phase it was seen in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    pub kind: Kind,
    pub id: String,
    pub phase: Phase,
}

#[derive(PartialEq, Eq, Hash)]
struct Name {
    account: Arc<str>,
    kind: Kind,
    id: String,
}

/// The table of ids with the phase they were last seen in, per account.
pub struct Seen {
    phases: Cache<Name, Phase>,
}

impl Seen {
    /// A table of at most `capacity` ids; the least used are forgotten first.
    pub fn new(capacity: u64) -> Self {
        Self { phases: Cache::new(capacity) }
    }

    /// Remembers what an answer told. The newest word counts, so a reopened conversation is live.
    pub fn note(&self, account: &Arc<str>, sightings: Vec<Sighting>) {
        for Sighting { kind, id, phase } in sightings {
            self.phases.insert(Name { account: account.clone(), kind, id }, phase);
        }
    }

    /// The phase in which `id` was last seen; [`Phase::Unknown`] if never, or too long ago.
    pub fn phase(&self, account: &Arc<str>, kind: Kind, id: &str) -> Phase {
        let name = Name { account: account.clone(), kind, id: id.to_owned() };
        self.phases.get(&name).unwrap_or(Phase::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    fn sighting(kind: Kind, phase: Phase) -> Vec<Sighting> {
        vec![Sighting { kind, id: "x-1".to_owned(), phase }]
    }

    #[test]
    fn an_id_is_known_by_account_and_kind() {
        let seen = Seen::new(10);
        let (ours, theirs): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let over = Phase::Over { since: UnixMillis(1) };
        seen.note(&ours, sighting(Kind::Session, over));
        assert_eq!(seen.phase(&ours, Kind::Session, "x-1"), over);
        assert_eq!(seen.phase(&ours, Kind::Call, "x-1"), Phase::Unknown);
        assert_eq!(seen.phase(&theirs, Kind::Session, "x-1"), Phase::Unknown);
    }

    #[test]
    fn the_newest_word_counts() {
        let seen = Seen::new(10);
        let account: Arc<str> = "a".into();
        seen.note(&account, sighting(Kind::Session, Phase::Over { since: UnixMillis(1) }));
        seen.note(&account, sighting(Kind::Session, Phase::Live));
        assert_eq!(seen.phase(&account, Kind::Session, "x-1"), Phase::Live);
    }

    #[test]
    fn the_table_is_bounded() {
        let seen = Seen::new(100);
        let account: Arc<str> = "a".into();
        for n in 0..10_000 {
            let id = format!("c-{n}");
            seen.note(&account, vec![Sighting { kind: Kind::Conversation, id, phase: Phase::Live }]);
        }
        seen.phases.run_pending_tasks();
        assert!(seen.phases.entry_count() <= 100);
    }
}
