//! Closed conversations, kept. [`Cache::get_or_fill`] is the door; [`Cache::fresh`] looks in.
//!
//! What is stored is the same for everyone: the fill knows the query, never the caller. Who may see
//! it is decided before the look-up and again, where the body names its bots, after it.

pub mod admit;
mod back_off;
mod broadcast;
mod decision;
mod doorkeeper;
mod entry;
mod fill;
mod group;
mod index;
mod jobs;
mod json_end;
mod memory;
mod projected;
mod purge;
mod single_flight;
mod source;
mod variants;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::error::{Error, Kind};
use crate::fetch::answer::Fetched;
use crate::fetch::payer::{Payer, Payers};
use crate::lifecycle::phase::Rule;
use crate::lifecycle::sightings::Sightings;
use crate::observe::metrics::Metrics;
use crate::routes::{Key, Query};

pub use admit::Reason;
use back_off::BackOff;
pub use decision::Decision;
use decision::decide;
pub use entry::{Entry, Freshness, Tag};
use fill::{FillOutcome, FillResult};
pub use jobs::Turn;
use jobs::{Job, Jobs};
use memory::Memory;
pub use projected::Part;
use purge::Meant;
pub use purge::{Purge, Removed};
use single_flight::{SingleFlight, Waiter};
pub use source::{ForwardReason, Served, Source, StaleReason, Terms};
pub use variants::Coding;

/// The store, the fills under way, and what is known of conversations that say nothing themselves.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    memory: Memory,
    flights: SingleFlight<Key, FillResult, FlightContext>,
    back_off: BackOff,
    jobs: Jobs,
    seen: Sightings,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// What all who wait for one fill have in common.
#[derive(Clone)]
struct FlightContext {
    payers: Payers,
    /// Started for a request for which what is stored will not do.
    is_revalidation: bool,
    /// Whether anybody lets it be stored.
    may_store: Arc<AtomicBool>,
}

/// What the cache is limited to, as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// Bytes.
    pub capacity: u64,
    /// Ids whose phase is remembered.
    pub seen: u64,
    /// After a fill that failed, until the next one for the same answer.
    pub back_off: Duration,
}

impl Cache {
    pub fn new(limits: CacheLimits, clock: Clock, metrics: &Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            memory: Memory::new(limits.capacity, metrics.cache.evictions.clone(), clock.clone()),
            flights: SingleFlight::new(),
            back_off: BackOff::new(limits.back_off),
            jobs: Jobs::new(),
            seen: Sightings::new(limits.seen),
            clock,
            metrics: metrics.clone(),
        }))
    }

    /// Entries and bytes.
    pub fn size(&self) -> (u64, u64) {
        self.0.memory.size()
    }

    /// What is stored under `key` and fresh at `now`, and how much of its lifetime is left. For those
    /// who want no more than that; everybody else asks [`Cache::get_or_fill`].
    pub fn fresh(&self, key: &Key, now: Moment) -> Option<(Arc<Entry>, Duration)> {
        // Whoever finds nothing here asks again by [`Cache::get_or_fill`], and is counted there.
        let entry = self.0.memory.peek(key)?;
        match entry.freshness(now) {
            Freshness::Fresh { left } => Some((entry, left)),
            _ => None,
        }
    }

    /// The answer to `query`: from the store, from a fill under way, or from a new one. Waits at
    /// most `wait`; the fill goes on without this caller. `payer` says on whose account the call is, if it
    /// comes to one; of one that others wait for too, it is on the account of whoever has his turn first.
    pub async fn get_or_fill<F>(
        &self,
        query: &Query,
        rule: &Rule,
        wait: Duration,
        terms: Terms,
        payer: Payer,
        fill: impl Fn(Payers) -> F + Send + Sync + Clone + 'static,
    ) -> Result<Served, Error>
    where
        F: Future<Output = Result<Fetched, Error>> + Send + 'static,
    {
        let inner = &self.0;
        let now = inner.clock.moment();
        let stored = inner.memory.get(&query.key);
        let is_backing_off = || !inner.back_off.left(&query.key, inner.clock.uptime()).is_zero();
        let freshness = stored.as_ref().map(|entry| entry.freshness(now));
        let (because, fallback) = match (decide(freshness, terms.revalidate, is_backing_off), stored) {
            (Decision::Serve { source, refresh }, Some(entry)) => {
                if refresh && !terms.only_stored && !terms.no_store {
                    // Nobody waits for the outcome; the flight completes all the same.
                    drop(self.join_or_start(query, *rule, terms, &payer, fill));
                }
                return Ok(Served::Entry(entry, source));
            }
            (Decision::Fetch { because, fallback }, stored) => (because, stored.zip(fallback)),
            // Nothing is served where nothing is.
            (Decision::Serve { .. }, None) => (ForwardReason::Miss, None),
        };
        if terms.only_stored {
            return inner.without_a_call(query, rule, terms);
        }

        let mut collapsed = false;
        let filled = within(inner.clock.timeout(wait), async {
            if terms.revalidate {
                self.wait_for_revalidation(&query.key).await;
            }
            let waiter = self.join_or_start(query, *rule, terms, &payer, fill);
            collapsed = waiter.joined;
            let died = || Err(Error::new(Kind::Internal, "the gateway failed while it fetched the answer"));
            waiter.outcome().await.unwrap_or_else(died)
        })
        .await;
        inner.served(query, filled, collapsed, fallback, because)
    }

    /// Whether an answer to `query` is stored, however old, or one that it is cut from.
    pub fn has(&self, query: &Query) -> bool {
        let Inner { memory, clock, .. } = &*self.0;
        let can_be_cut = || query.plain.is_none() && memory.summarised(&query.key, clock.moment()).is_some();
        memory.peek(&query.key).is_some() || can_be_cut()
    }

    /// The bots that answers have named as those of what `query` asks for by an id; none if none has.
    pub fn bots(&self, query: &Query) -> Box<[Box<str>]> {
        query.requested.name().map_or_else(Box::default, |name| self.0.seen.bots(&query.account, &[name]))
    }

    /// Remembers again what an answer to `query` says of ids.
    pub fn note(&self, query: &Query, entry: &Entry) {
        if entry.is_read()
            && let Ok(reading) = (query.route.read)(&query.requested, &entry.answer.body)
        {
            self.0.seen.note(&query.account, &reading.sightings, entry.answer.asked_at);
        }
    }

    /// What would be made of `query`. Counts as one use of what is stored, but not as a request for what is not, and
    /// fetches nothing.
    pub fn decision(&self, query: &Query, revalidate: bool) -> Decision {
        let inner = &self.0;
        let now = inner.clock.moment();
        let freshness = inner.memory.peek(&query.key).map(|entry| entry.freshness(now));
        let is_backing_off = || !inner.back_off.left(&query.key, inner.clock.uptime()).is_zero();
        let decision = decide(freshness, revalidate, is_backing_off);
        let Decision::Fetch { because: ForwardReason::Miss, .. } = decision else { return decision };
        // A transcript that is stored with its summary answers for the one without.
        let held = query.plain.is_none().then(|| inner.memory.summarised(&query.key, now)).flatten();
        match held.map(|(_, entry)| entry.freshness(now)) {
            Some(Freshness::Fresh { left }) => {
                Decision::Serve { source: Source::Hit { left }, refresh: false }
            }
            _ => decision,
        }
    }

    /// Forgets what is meant: fresh, stale, and what is being fetched. Whoever asks from here on
    /// gets an answer that was asked for after this.
    pub fn purge(&self, purge: Purge) -> Removed {
        let removed = self.0.memory.purge(|| match &purge {
            Purge::Named(name) => Meant::by(&purge, &self.0.seen.names(*name)),
            Purge::All | Purge::Account(_) | Purge::Bot(_) => Meant::by(&purge, &[]),
        });
        // Which of the flights are meant is known when they land, but a request that joins one now
        // must not get what it brings. All of them: a purge is rare, a call too much is cheap.
        self.0.flights.detach_all();
        removed
    }

    /// The body of an entry in `coding`, if it need not be made first: as it is, where that coding
    /// does not make it smaller.
    pub fn body_at_hand(&self, entry: &Entry, coding: Coding) -> Option<(Coding, Arc<[u8]>)> {
        let identity = || (Coding::Identity, entry.answer.body.clone());
        if coding == Coding::Identity {
            return Some(identity());
        }
        if entry.variants.lacks(coding) {
            return None;
        }
        let made = entry.variants.get(coding);
        Some(made.map_or_else(identity, |made| (coding, made)))
    }

    /// The body of what was served, in `coding` if that makes it smaller. Made once; what is stored
    /// is weighed again with it. As it is where that takes too long.
    pub async fn body(
        &self,
        key: &Key,
        entry: &Arc<Entry>,
        coding: Coding,
        turn: &Turn,
    ) -> (Coding, Arc<[u8]>) {
        if let Some(body) = self.body_at_hand(entry, coding) {
            return body;
        }
        // Made and weighed in one go: a caller who leaves must not leave bytes that nobody counts.
        let make = {
            let (inner, key, entry) = (self.0.clone(), key.clone(), entry.clone());
            move |is_unwanted: Arc<AtomicBool>| {
                let made = entry.variants.get_or_make(coding, &entry.answer.body, &is_unwanted, || {
                    inner.metrics.cache.body_made(coding.as_str());
                });
                inner.memory.weigh(&key, &entry);
                made
            }
        };
        let made = if entry.answer.body.len() > jobs::INLINE {
            match entry.variants.making(coding, || Jobs::job(make)) {
                // One that was lost, or comes too late: as it is, then.
                Some(making) => self.done(making, turn).await.flatten().flatten(),
                None => None,
            }
        } else {
            make(Arc::default())
        };
        made.map_or_else(|| (Coding::Identity, entry.answer.body.clone()), |made| (coding, made))
    }

    /// What comes of a piece of work, if it comes in time.
    async fn done<T: Clone>(&self, job: Job<T>, turn: &Turn) -> Option<Option<T>> {
        tokio::select! {
            biased;
            done = self.0.jobs.done(job, &turn.client) => Some(done),
            () = self.0.clock.timeout(turn.at_most) => None,
        }
    }

    /// Waits for the revalidation of `key` that began before now, if there is one: those who come
    /// while it flies and want an answer that was asked for later share the next one.
    async fn wait_for_revalidation(&self, key: &Key) {
        let under_way = self.0.flights.current(key);
        if let Some(waiter) = under_way.filter(|waiter| waiter.common.is_revalidation) {
            waiter.outcome().await;
        }
    }

    fn join_or_start<F>(
        &self,
        query: &Query,
        rule: Rule,
        terms: Terms,
        payer: &Payer,
        fill: impl Fn(Payers) -> F + Send + Sync + 'static,
    ) -> Waiter<FillResult, FlightContext>
    where
        F: Future<Output = Result<Fetched, Error>> + Send + 'static,
    {
        let context = || FlightContext {
            payers: Payers::of(payer.clone()),
            is_revalidation: terms.revalidate,
            may_store: Arc::new(AtomicBool::new(!terms.no_store)),
        };
        let waiter = self.0.flights.join_or_start(
            &query.key,
            |context| context.is_revalidation || !terms.revalidate,
            context,
            |context| {
                let (cache, query) = (self.0.clone(), query.clone());
                async move {
                    let call = || fill(context.payers.clone());
                    cache.fill(&query, &rule, &context, call).await
                }
            },
        );
        if waiter.joined {
            waiter.common.payers.join(payer);
            if !terms.no_store {
                waiter.common.may_store.store(true, Ordering::Relaxed);
            }
        }
        waiter
    }
}

impl Inner {
    /// What is stored for a request that gets nothing else, where it is not at hand as it is.
    fn without_a_call(&self, query: &Query, rule: &Rule, terms: Terms) -> Result<Served, Error> {
        let now = self.clock.moment();
        let cut = (!terms.revalidate).then(|| self.cut_from_summarised(query, rule, now, !terms.no_store));
        match cut.flatten() {
            Some(entry) => {
                let source = self.hit(&entry);
                Ok(Served::Entry(entry, source))
            }
            None => Err(Error::not_cached()),
        }
    }

    fn hit(&self, entry: &Entry) -> Source {
        match entry.freshness(self.clock.moment()) {
            Freshness::Fresh { left } => Source::Hit { left },
            // It was fresh a moment ago.
            _ => Source::Hit { left: Duration::ZERO },
        }
    }

    /// What a caller is given of what was fetched, or of what is stored and better than an error.
    fn served(
        &self,
        query: &Query,
        filled: FillResult,
        collapsed: bool,
        fallback: Option<(Arc<Entry>, Source)>,
        because: ForwardReason,
    ) -> Result<Served, Error> {
        // It may have been purged, reopened or replaced meanwhile, or have become too old.
        let fallback = fallback.and_then(|(entry, source)| {
            let is_there = self.memory.holds(&query.key, &entry);
            match entry.freshness(self.clock.moment()) {
                Freshness::OnlyIfError { past } if is_there => {
                    Some((entry, Source::Stale { past, because: StaleReason::Error }))
                }
                Freshness::Fresh { .. } | Freshness::Revalidating { .. } if is_there => Some((entry, source)),
                _ => None,
            }
        });
        let ending = fill::ending(&filled);
        if let Some((stale, source)) = fallback
            && ending.is_some_and(|ending| ending.consequences().loses_to_stale)
        {
            return Ok(Served::Entry(stale, source));
        }
        let upstream = |stored| Source::Upstream { stored, collapsed, because };
        Ok(match filled? {
            FillOutcome::Held(entry) => {
                let source = self.hit(&entry);
                Served::Entry(entry, source)
            }
            FillOutcome::Fetched(entry, stored) => Served::Entry(entry, upstream(stored)),
            FillOutcome::Large(broadcast) => {
                Served::Large(broadcast.subscribe(), upstream(Err(Reason::TooLarge)))
            }
        })
    }
}

async fn within<T>(
    timeout: impl Future<Output = ()>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        outcome = work => outcome,
        () = timeout => Err(Error::new(Kind::UpstreamTimeout, "the upstream did not answer in time")),
    }
}
