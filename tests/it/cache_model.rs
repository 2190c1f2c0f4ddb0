//! Whatever conversations, callers, operators and failures do, in whatever order: no live body comes
//! out of the store, none is older than the rule allows, none from before its purge, and what a small
//! model of the rule knows to be fresh costs no call.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;
use kore_gateway::cache::Purge;
use kore_gateway::standin::{Conversation, EXAMPLE_STREAM, Fault};
use proptest::prelude::{Strategy, prop_oneof};
use proptest::strategy::{Just, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::world::{
    DAY, Got, HOUR, MINUTE, NOON, REPORTING, SECOND, World, before, conversation_path, transcript_path,
};

const LIVES: usize = 60;
const STEPS: usize = 80;
const PEOPLE: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Advance(Duration),
    Ask(Ask, usize),
    /// Asks and hangs up.
    Leave(usize),
    End(usize),
    Reopen(usize),
    Edit(usize),
    Purge(usize),
    PurgeAll,
    Fail,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Ask {
    Conversation,
    Transcript,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..PEOPLE;
    prop_oneof![
        3 => prop_oneof![
            Just(SECOND), Just(20 * SECOND), Just(MINUTE), Just(10 * MINUTE), Just(HOUR), Just(13 * HOUR)
        ].prop_map(Step::Advance),
        8 => who.clone().prop_map(|who| Step::Ask(Ask::Conversation, who)),
        4 => who.clone().prop_map(|who| Step::Ask(Ask::Transcript, who)),
        1 => who.clone().prop_map(Step::Leave),
        1 => who.clone().prop_map(Step::End),
        1 => who.clone().prop_map(Step::Reopen),
        1 => who.clone().prop_map(Step::Edit),
        1 => who.prop_map(Step::Purge),
        1 => Just(Step::PurgeAll),
        1 => Just(Step::Fail),
    ]
}

/// What is true of one conversation, and since when.
struct Life {
    record: Conversation,
    /// (from when, text length that tells this version, over since), the newest last.
    versions: Vec<(i64, usize, Option<i64>)>,
    /// What the gateway has been told: since when it is over, if it is. All that a transcript goes by.
    told: Vec<(i64, Option<i64>)>,
    /// The first version that may be served: what was there before was purged or seen to be void.
    least: usize,
}

struct Model {
    world: World,
    now: i64,
    lives: Vec<Life>,
    /// When each question was last answered by a call that was stored, and how settled it was.
    stored: HashMap<(Ask, usize), (i64, bool)>,
    hits: usize,
}

impl Model {
    async fn new() -> Self {
        let world = World::with(|setup| {
            setup.without_quota = true;
            setup.config = "upstream.breaker.failures = 1000000".to_owned();
        })
        .await;
        let lives = (0..PEOPLE).map(|n| {
            let start = before(DAY);
            let record = Conversation::live(EXAMPLE_STREAM, n as u64, start).with_messages(3).padded(1);
            world.standin.put(record.clone());
            Life { record, versions: vec![(start, 1, None)], told: Vec::new(), least: 0 }
        });
        let lives = lives.collect();
        Self { world, now: NOON, lives, stored: HashMap::new(), hits: 0 }
    }

    /// Changes a record now; its length tells which version it is.
    fn change(&mut self, who: usize, change: impl FnOnce(&mut Conversation)) {
        let life = &mut self.lives[who];
        change(&mut life.record);
        life.record.padding += 1;
        // Over as soon as it says CLOSED, which the stand-in says at once here.
        let over = life.record.end_ms.filter(|_| life.record.reopened_ms.is_none());
        life.versions.push((self.now, life.record.padding, over));
        self.world.standin.put(life.record.clone());
    }

    async fn ask(&self, ask: Ask, who: usize) -> Got {
        let record = &self.lives[who].record;
        match ask {
            Ask::Conversation => self.world.get(&conversation_path(&record.conversation_id)).await,
            Ask::Transcript => {
                self.world.post(&transcript_path(), json!({ "sessionId": record.session_id })).await
            }
        }
    }

    fn check(&mut self, ask: Ask, who: usize, got: &Got, calls: usize) {
        let status = got.cache_status().to_owned();
        let life = &self.lives[who];
        if status.is_empty() || got.status != 200 {
            assert!(calls > 0, "an error costs a call: {got:?}");
            return;
        }
        let body = got.json();
        let padding = match ask {
            Ask::Conversation => &body["formData"][0]["padding"],
            Ask::Transcript => &body["conversationHistory"][0]["components"][0]["data"]["text"],
        };
        let length = padding.as_str().unwrap().len();
        let version = life.versions.iter().position(|(_, known, _)| *known == length).unwrap();
        let by_now = |at: i64| match ask {
            Ask::Conversation => life.versions[version].2,
            Ask::Transcript => life.told.iter().rfind(|(told, _)| *told <= at).and_then(|(_, over)| *over),
        };

        if let Some((at, settled)) = self.stored.get(&(ask, who)) {
            let least = if *settled { DAY } else { 30 * SECOND } * 9 / 10;
            if self.now - at < millis(least) {
                assert_eq!(calls, 0, "fresh by the rule, and yet a call: {status}");
            }
        }
        if status.contains("; hit;") {
            self.hits += 1;
            let age: i64 = got.header("age").parse().unwrap();
            let at = self.now - age * 1000;
            // It is what was true when it was asked for.
            let then = life.versions.iter().rposition(|(from, _, _)| *from <= at).unwrap();
            let same_moment = life.versions[then].0 == at && version <= then;
            assert!(version == then || same_moment, "version {version}, not {then}: {status}");
            assert!(version >= life.least, "from before it was purged or seen live: {status}");
            let over = by_now(at).unwrap_or_else(|| panic!("a live body out of the store: {status}"));
            let ttl = if at - over >= millis(15 * MINUTE) { DAY } else { 30 * SECOND } * 11 / 10;
            let stale = match () {
                () if status.contains("stale-while-revalidate") => MINUTE,
                () if status.contains("stale-if-error") => 7 * DAY,
                () => Duration::ZERO,
            };
            assert!(self.now - at <= millis(ttl + stale), "{age} s old: {status}");
        } else {
            assert_eq!(version, life.versions.len() - 1, "what comes from the upstream is new");
            if status.ends_with("; stored") {
                let over = by_now(self.now).expect("what is stored is over");
                self.stored.insert((ask, who), (self.now, self.now - over >= millis(15 * MINUTE) + 40_000));
            } else {
                self.stored.remove(&(ask, who));
            }
            if ask == Ask::Conversation {
                self.tell(who);
            }
        }
    }

    /// The gateway is told the truth of now. Told that it goes on, it may serve nothing from before,
    /// by any route.
    fn tell(&mut self, who: usize) {
        let over = self.lives[who].versions.last().unwrap().2;
        self.lives[who].told.push((self.now, over));
        if over.is_none() {
            self.forget(who);
        }
    }

    fn forget(&mut self, who: usize) {
        self.lives[who].least = self.lives[who].versions.len() - 1;
        self.stored.retain(|(_, stored), _| *stored != who);
    }

    async fn go(&mut self, step: Step) {
        match step {
            Step::Advance(by) => {
                self.now += millis(by);
                self.world.advance(by);
            }
            Step::Ask(ask, who) => {
                let before = self.world.standin.count();
                let got = self.ask(ask, who).await;
                self.settle_down().await;
                let refreshed = usize::from(got.cache_status().contains("while-revalidate"));
                let calls = self.world.standin.count() - before;
                self.check(ask, who, &got, calls.saturating_sub(refreshed));
            }
            Step::Leave(who) => {
                let path = conversation_path(&self.lives[who].record.conversation_id);
                let before = self.world.standin.count();
                let request = self.world.request(Method::GET, &path, REPORTING).send();
                let _ = tokio::time::timeout(Duration::from_millis(1), request).await;
                self.settle_down().await;
                // The call, if it got so far as to make one, goes on without him.
                if self.world.standin.calls()[before..].iter().any(|call| call.status == 200) {
                    self.stored.remove(&(Ask::Conversation, who));
                    self.tell(who);
                }
            }
            Step::End(who) => {
                let now = self.now;
                self.change(who, |record| {
                    record.end_ms = Some(now);
                    (record.closing_ms, record.reopened_ms) = (0, None);
                });
            }
            Step::Reopen(who) if self.lives[who].record.end_ms.is_some() => {
                let now = self.now;
                self.change(who, |record| record.reopened_ms = Some(now));
            }
            Step::Edit(who) => self.change(who, |_| {}),
            Step::Purge(who) => {
                self.world.app.cache.purge(Purge::conversation(&self.lives[who].record.conversation_id));
                self.change(who, |_| {});
                self.forget(who);
            }
            Step::PurgeAll => {
                self.world.app.cache.purge(Purge::All);
                for who in 0..PEOPLE {
                    self.change(who, |_| {});
                    self.forget(who);
                }
            }
            Step::Fail => self.world.standin.fault_next(1, Fault::Status(500)),
            Step::Reopen(_) => {}
        }
    }

    /// Until no request and no refresh is under way.
    async fn settle_down(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        crate::world::until("all is quiet", || {
            self.world.app.metrics.active_requests.get() == 0
                && self.world.standin.calls().iter().all(|call| call.status != 0)
        })
        .await;
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap()
}

#[tokio::test]
async fn no_life_however_odd_is_served_wrong() {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let mut hits = 0;
    for life in 0..LIVES {
        let steps = proptest::collection::vec(step(), STEPS).new_tree(&mut runner).unwrap().current();
        let mut model = Model::new().await;
        for (at, step) in steps.iter().enumerate() {
            let failed = std::panic::AssertUnwindSafe(model.go(*step));
            if let Err(panic) = futures_util::FutureExt::catch_unwind(failed).await {
                panic!("life {life}, step {at}: {panic:?} after {:?}", &steps[..=at]);
            }
        }
        hits += model.hits;
    }
    println!("{LIVES} lives of {STEPS} steps, {hits} answers out of the store");
    assert!(hits > LIVES * 5, "the store was hardly used: {hits}");
}
