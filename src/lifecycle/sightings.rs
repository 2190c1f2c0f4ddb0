//! What answers that went by have said about conversations, for the route that says nothing itself.
//!
//! A transcript (`conversation_details`) carries no status. The other two routes name the
//! conversation, its session and its call together with their status, so each of their answers
//! leaves a sighting here, and the transcript's phase is looked up. The table is bounded: an id
//! that was pushed out is unknown again, and unknown is treated as live.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use hashlink::LruCache;

use crate::clock::Moment;
use crate::digest;
use crate::lifecycle::phase::Phase;

/// What kind of id an answer named. The kinds do not share a name space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum IdKind {
    Conversation,
    Session,
    Call,
}

/// An id and its kind, to be compared: a digest of the id, which is small, of one size, and tells
/// nobody whose conversation it is. Two ids in 2^60 would share one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HashedId {
    pub kind: IdKind,
    pub digest: [u8; 15],
}

impl HashedId {
    pub fn new(kind: IdKind, id: &str) -> Self {
        Self { kind, digest: digest::short(id.as_bytes()) }
    }
}

/// Names one conversation goes by beyond which no more are remembered.
const MOST_NAMES: usize = 64;

/// One conversation under all the ids an answer gave it, and the phase it was seen in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    pub names: Vec<HashedId>,
    pub phase: Phase,
    /// The bots that the answer names as the conversation's.
    pub bots: Vec<Box<str>>,
}

/// What was last said about an id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    pub phase: Phase,
    /// When the answer that said it was asked for.
    pub asked_at: Moment,
    /// Every name the conversation goes by; none, and no memory, where this is the only one.
    pub names: Arc<[HashedId]>,
    bots: BotNumbers,
}

/// Bots of one conversation beyond which no more are remembered: its contact-centre instance and the
/// automation bots it went through. It is none of theirs, as far as is known.
const MOST_BOTS: usize = 4;

/// The bots of a conversation, by their numbers in [`BotNames`]; zeros at the end where there are fewer.
type BotNumbers = [u16; MOST_BOTS];

/// Of a bot that came when there were too many: one without a name, which is not "no answer has said".
const NAMELESS: u16 = u16::MAX;

/// The bots that answers have named. They are few, and named again and again.
#[derive(Default)]
struct BotNames {
    /// The number of each, from 1.
    numbers: HashMap<Arc<str>, u16>,
    names: Vec<Arc<str>>,
}

impl BotNames {
    fn number(&mut self, bot: &str) -> u16 {
        if let Some(known) = self.numbers.get(bot) {
            return *known;
        }
        let number = u16::try_from(self.names.len() + 1).unwrap_or(NAMELESS);
        if number != NAMELESS {
            let bot: Arc<str> = bot.into();
            self.names.push(bot.clone());
            self.numbers.insert(bot, number);
        }
        number
    }

    fn numbers(&mut self, bots: &[Box<str>]) -> BotNumbers {
        let new = bots.iter().map(|bot| BotNumbers::from([self.number(bot), 0, 0, 0]));
        new.fold(BotNumbers::default(), joined)
    }

    /// Their names; the empty one, which is no bot's, of one that has none.
    fn named(&self, numbers: BotNumbers) -> impl Iterator<Item = Box<str>> {
        let name = |number| Box::from(self.names.get(usize::from(number) - 1).map_or("", |name| name));
        numbers.into_iter().filter(|number| *number != 0).map(name)
    }
}

/// Both, as far as there is room.
fn joined(mut held: BotNumbers, new: BotNumbers) -> BotNumbers {
    for number in new {
        if number != 0
            && !held.contains(&number)
            && let Some(free) = held.iter_mut().find(|free| **free == 0)
        {
            *free = number;
        }
    }
    held
}

/// The ids with the phase they were last seen in, per account.
pub struct Sightings(Mutex<Table>);

struct Table {
    known: LruCache<Id, Known, RandomState>,
    /// Those it has heard of, by their number: as few as are configured.
    accounts: Vec<Arc<str>>,
    bots: BotNames,
}

#[derive(PartialEq, Eq, Hash)]
struct Id {
    account: usize,
    name: HashedId,
}

impl Sightings {
    /// A table of at most `capacity` ids; those named longest ago are forgotten first. (By use, a
    /// new conversation would never push out an old one.)
    pub fn new(capacity: u64) -> Self {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        let known = LruCache::with_hasher(capacity, RandomState::default());
        Self(Mutex::new(Table { known, accounts: Vec::new(), bots: BotNames::default() }))
    }

    /// Remembers what an answer said that was asked for at `asked_at`. The newest word counts, so a
    /// reopened conversation is live; and an answer that was slow to come does not take back what
    /// a later one said. What one answer says, as by the rows of a window, holds
    /// together: a session with two conversations is over when both are.
    pub fn note(&self, account: &Arc<str>, sightings: &[Sighting], asked_at: Moment) {
        let mut table = self.table();
        let account = table.number(account).unwrap_or_else(|| table.add(account));
        for Sighting { names, phase, bots } in sightings {
            let bots = table.bots.numbers(bots);
            let all: Arc<[HashedId]> = if names.len() > 1 { names.as_slice().into() } else { Arc::default() };
            for name in names {
                let new = Known { phase: *phase, asked_at, names: all.clone(), bots };
                let id = Id { account, name: *name };
                match table.known.get_mut(&id) {
                    Some(held) => held.merge(new),
                    None => drop(table.known.insert(id, new)),
                }
            }
        }
    }

    /// What else goes by that name is called, in any account.
    pub fn names(&self, name: HashedId) -> Vec<HashedId> {
        let table = self.table();
        let known = (0..table.accounts.len()).filter_map(|account| table.known.peek(&Id { account, name }));
        known.flat_map(|known| known.names.to_vec()).filter(|other| *other != name).collect()
    }

    /// What is known of `name`; nothing if it was never named, or too long ago.
    pub fn get(&self, account: &str, name: HashedId) -> Option<Known> {
        let table = self.table();
        let account = table.number(account)?;
        table.known.peek(&Id { account, name }).cloned()
    }

    /// The bots that a conversation belongs to which goes by all of `names`, as far as answers have said; none
    /// if no answer has. Where answers about two of the names have no bot in common, it is one bot without
    /// a name, which nobody may see.
    pub fn bots(&self, account: &str, names: &[HashedId]) -> Box<[Box<str>]> {
        let table = self.table();
        let Some(account) = table.number(account) else { return Box::default() };
        let new = names.iter().map(|name| table.bots(account, *name));
        let new = new.filter(|bots| *bots != BotNumbers::default());
        let common = new.reduce(|one, other| {
            let mut both = one;
            both.iter_mut().filter(|bot| !other.contains(bot)).for_each(|bot| *bot = 0);
            both
        });
        match common {
            None => Box::default(),
            Some(common) if common == BotNumbers::default() => Box::new([Box::from("")]),
            Some(common) => table.bots.named(common).collect(),
        }
    }

    /// No change is left half done by a panic: there is none to panic between two steps.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn number(&self, account: &str) -> Option<usize> {
        self.accounts.iter().position(|known| **known == *account)
    }

    /// The bots of what goes by a name. A call is its session's, whose automation bots only rows name, and no row
    /// names a call. A name for which no answer named a bot has those of its other names.
    fn bots(&self, account: usize, name: HashedId) -> BotNumbers {
        let known = |name| self.known.peek(&Id { account, name });
        let Some(Known { bots: own, names, .. }) = known(name) else { return BotNumbers::default() };
        let is_told = *own != BotNumbers::default();
        let others = names.iter().filter(|other| match name.kind {
            IdKind::Call if is_told => other.kind == IdKind::Session,
            _ => !is_told,
        });
        others.filter_map(|other| known(*other)).map(|other| other.bots).fold(*own, joined)
    }

    fn add(&mut self, account: &Arc<str>) -> usize {
        self.accounts.push(account.clone());
        self.accounts.len() - 1
    }
}

impl Known {
    /// Merges what another answer said.
    fn merge(&mut self, new: Self) {
        // A conversation stays its bot's: what is said of that adds up, whenever it was said.
        self.bots = joined(self.bots, new.bots);
        if self.asked_at.is_after(new.asked_at) {
            return;
        }
        let phase = if self.asked_at == new.asked_at { self.phase.and(new.phase) } else { new.phase };
        let names = together(&new.names, &self.names);
        *self = Self { phase, names, bots: self.bots, ..new };
    }
}

/// What was said, and what was known before and is not said again: one route names the call, the
/// other does not.
fn together(new: &Arc<[HashedId]>, held: &Arc<[HashedId]>) -> Arc<[HashedId]> {
    if new.iter().all(|name| held.contains(name)) {
        return held.clone();
    }
    let more = held.iter().filter(|name| !new.contains(name));
    let room = MOST_NAMES.saturating_sub(new.len());
    let more: Vec<_> = more.take(room).copied().collect();
    if more.is_empty() { new.clone() } else { new.iter().copied().chain(more).collect() }
}

#[cfg(test)]
mod tests;
