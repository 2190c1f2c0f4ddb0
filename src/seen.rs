//! What answers that went by have told about conversations, for the route that says nothing itself.
//!
//! A transcript (`conversation_details`) carries no status. The other two routes name the
//! conversation, its session and its call together with their status, so each of their answers
//! leaves a sighting here, and the transcript's phase is looked up. The table is bounded: an id
//! that was pushed out is unknown again, and unknown is treated as live.

use std::sync::{Arc, PoisonError, RwLock};

use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::clock::Moment;
use crate::phase::Phase;

/// What kind of id an answer named. The kinds do not share a name space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    Conversation,
    Session,
    Call,
}

/// An id and its kind.
pub type Name = (Kind, String);

/// Names one conversation goes by beyond which no more are remembered.
const MOST_NAMES: usize = 64;

/// One conversation under all the ids an answer gave it, and the phase it was seen in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    pub names: Vec<Name>,
    pub phase: Phase,
}

/// What was last told about an id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    pub phase: Phase,
    /// When the answer that told it was asked for.
    pub asked_at: Moment,
    /// Every name the conversation goes by, this one included.
    pub names: Arc<[Name]>,
}

#[derive(PartialEq, Eq, Hash)]
struct Id {
    account: Arc<str>,
    kind: Kind,
    id: Box<str>,
}

/// The table of ids with the phase they were last seen in, per account.
pub struct Seen {
    known: Cache<Id, Known>,
    /// Those it has heard of: as few as are configured.
    accounts: RwLock<Vec<Arc<str>>>,
}

impl Seen {
    /// A table of at most `capacity` ids; those named longest ago are forgotten first. (By use, a
    /// new conversation would never push out an old one.)
    pub fn new(capacity: u64) -> Self {
        let known = Cache::builder().max_capacity(capacity).eviction_policy(EvictionPolicy::lru()).build();
        Self { known, accounts: RwLock::default() }
    }

    /// Remembers what an answer told that was asked for at `asked_at`. The newest word counts, so a
    /// reopened conversation is live; and an answer that was slow to come does not take back what
    /// a later one said. What is told by one answer, as by the rows of a window, holds
    /// together: a session with two conversations is over when both are.
    pub fn note(&self, account: &Arc<str>, sightings: &[Sighting], asked_at: Moment) {
        if !self.accounts().contains(account) {
            let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
            accounts.push(account.clone());
        }
        for Sighting { names, phase } in sightings {
            let names: Arc<[Name]> = names.as_slice().into();
            for (kind, id) in names.iter() {
                let id = Id { account: account.clone(), kind: *kind, id: id.as_str().into() };
                let told = Known { phase: *phase, asked_at, names: names.clone() };
                self.known.entry(id).and_compute_with(|held| match held.map(moka::Entry::into_value) {
                    Some(held) if held.asked_at.is_after(asked_at) => Op::Nop,
                    Some(held) => {
                        let phase =
                            if held.asked_at == asked_at { held.phase.and(told.phase) } else { told.phase };
                        Op::Put(Known { phase, names: together(told.names, &held.names), ..told })
                    }
                    None => Op::Put(told),
                });
            }
        }
    }

    /// What else goes by that name is called, in any account.
    pub fn names(&self, name: &Name) -> Vec<Name> {
        let known = self.accounts().into_iter().filter_map(|account| self.get(&account, name));
        known.flat_map(|known| known.names.to_vec()).filter(|other| other != name).collect()
    }

    fn accounts(&self) -> Vec<Arc<str>> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known of `id`; nothing if it was never named, or too long ago.
    pub fn get(&self, account: &Arc<str>, (kind, id): &Name) -> Option<Known> {
        self.known.get(&Id { account: account.clone(), kind: *kind, id: id.as_str().into() })
    }
}

/// What was told, and what was known before and is not told again: one route names the call, the
/// other does not.
fn together(told: Arc<[Name]>, held: &[Name]) -> Arc<[Name]> {
    let more = held.iter().filter(|name| !told.contains(name));
    let room = MOST_NAMES.saturating_sub(told.len());
    let more: Vec<_> = more.take(room).cloned().collect();
    if more.is_empty() { told } else { told.iter().cloned().chain(more).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    const OVER: Phase = Phase::Over { since: UnixMillis(1) };

    /// The uptime in milliseconds; the time of day stands still.
    fn at(millis: u64) -> Moment {
        Moment { wall: UnixMillis(0), uptime: std::time::Duration::from_millis(millis) }
    }

    fn name(kind: Kind) -> Name {
        (kind, "x-1".to_owned())
    }

    fn sighting(names: &[Name], phase: Phase) -> [Sighting; 1] {
        [Sighting { names: names.to_vec(), phase }]
    }

    fn phase(seen: &Seen, account: &Arc<str>, kind: Kind) -> Option<Phase> {
        seen.get(account, &name(kind)).map(|known| known.phase)
    }

    #[test]
    fn an_id_is_known_by_account_and_kind() {
        let seen = Seen::new(10);
        let (ours, theirs): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        seen.note(&ours, &sighting(&[name(Kind::Session)], OVER), at(5));
        assert_eq!(phase(&seen, &ours, Kind::Session), Some(OVER));
        assert_eq!(phase(&seen, &ours, Kind::Call), None);
        assert_eq!(phase(&seen, &theirs, Kind::Session), None);
    }

    #[test]
    fn the_word_asked_for_last_counts_whenever_it_comes() {
        let seen = Seen::new(10);
        let account: Arc<str> = "a".into();
        let names = [name(Kind::Session)];
        seen.note(&account, &sighting(&names, OVER), at(5));
        seen.note(&account, &sighting(&names, Phase::Live), at(7));
        seen.note(&account, &sighting(&names, OVER), at(6));
        assert_eq!(phase(&seen, &account, Kind::Session), Some(Phase::Live));
        // Told in the same moment, it is over only if all that is told is.
        seen.note(&account, &sighting(&names, OVER), at(7));
        assert_eq!(phase(&seen, &account, Kind::Session), Some(Phase::Live));
        seen.note(&account, &sighting(&names, OVER), at(8));
        assert_eq!(phase(&seen, &account, Kind::Session), Some(OVER));
    }

    #[test]
    fn names_told_by_different_routes_are_put_together() {
        let seen = Seen::new(10);
        let account: Arc<str> = "a".into();
        let (session, call) = (name(Kind::Session), name(Kind::Call));
        seen.note(&account, &sighting(&[session.clone(), call.clone()], OVER), at(1));
        seen.note(&account, &sighting(&[session.clone(), name(Kind::Conversation)], OVER), at(2));
        let names = seen.get(&account, &session).expect("known").names;
        assert_eq!(names.len(), 3);
        assert!(names.contains(&call));
    }

    #[test]
    fn the_table_is_bounded() {
        let seen = Seen::new(100);
        let account: Arc<str> = "a".into();
        for n in 0..10_000 {
            let names = [(Kind::Conversation, format!("c-{n}"))];
            seen.note(&account, &sighting(&names, Phase::Live), at(0));
        }
        seen.known.run_pending_tasks();
        assert!(seen.known.entry_count() <= 100);
        // The newest push out the oldest.
        assert!(seen.get(&account, &(Kind::Conversation, "c-9999".to_owned())).is_some());
        assert!(seen.get(&account, &(Kind::Conversation, "c-0".to_owned())).is_none());
    }
}
