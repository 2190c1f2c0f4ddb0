//! Whatever conversations, callers, operators and failures do, in whatever order: no live body comes
//! out of the store, none is older than the rule allows, none from before its purge, and what a small
//! model of the rule knows to be fresh costs no call.

use std::collections::HashMap;
use std::io::Read;
use std::time::Duration;

use http::Method;
use kore_gateway::cache::Purge;
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault, Gate};
use proptest::prelude::{Strategy, prop_oneof};
use proptest::strategy::{Just, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::cases::times_factor;
use crate::world::{
    DAY, Got, HOUR, MINUTE, NOON, REPORTING, SECOND, World, before, conversation_path, got, transcript_path,
    until, window_path,
};

const LIVES: u32 = 60;
const STEPS: usize = 80;
const PEOPLE: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Advance(Duration),
    Ask(Ask, Manner, usize),
    /// Asks, and what he asks for is purged before the upstream's answer is let through.
    PurgeMeanwhile(Ask, Purged, usize),
    /// Asks and hangs up.
    Leave(usize),
    End(usize),
    Reopen(usize),
    Edit(usize),
    Purge(Purged, usize),
    Fail,
}

#[derive(Clone, Copy, Debug)]
enum Purged {
    Conversation,
    Session,
    All,
}

/// How a question is asked. HEAD where it is a GET, QUERY where it is a POST.
#[derive(Clone, Copy, Debug)]
struct Manner {
    is_other_method: bool,
    coding: &'static str,
}

const PLAIN: Manner = Manner { is_other_method: false, coding: "identity" };

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Ask {
    Conversation,
    Transcript,
    /// The window of the day on which it began, which is nobody else's.
    Window,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..PEOPLE;
    let ask = prop_oneof![4 => Just(Ask::Conversation), 2 => Just(Ask::Transcript), 2 => Just(Ask::Window)];
    let manner = prop_oneof![
        4 => Just(PLAIN),
        1 => Just(Manner { is_other_method: true, ..PLAIN }),
        1 => Just(Manner { coding: "gzip", ..PLAIN }),
        1 => Just(Manner { is_other_method: true, coding: "br" }),
    ];
    let purged =
        prop_oneof![2 => Just(Purged::Conversation), 1 => Just(Purged::Session), 1 => Just(Purged::All)];
    prop_oneof![
        3 => prop_oneof![
            Just(SECOND), Just(20 * SECOND), Just(MINUTE), Just(10 * MINUTE), Just(HOUR), Just(13 * HOUR)
        ].prop_map(Step::Advance),
        14 => (ask.clone(), manner, who.clone()).prop_map(|(ask, manner, who)| Step::Ask(ask, manner, who)),
        2 => (ask, purged.clone(), who.clone())
            .prop_map(|(ask, purged, who)| Step::PurgeMeanwhile(ask, purged, who)),
        1 => who.clone().prop_map(Step::Leave),
        1 => who.clone().prop_map(Step::End),
        1 => who.clone().prop_map(Step::Reopen),
        1 => who.clone().prop_map(Step::Edit),
        2 => (purged, who).prop_map(|(purged, who)| Step::Purge(purged, who)),
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
            let start = before((1 + u32::try_from(n).unwrap()) * DAY);
            let mut record = Conversation::live(EXAMPLE_STREAM, n as u64, start).with_messages(3);
            tell_version(&mut record, 1);
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
        let version = life.record.padding + 1;
        tell_version(&mut life.record, version);
        // Over as soon as it says CLOSED, which the stand-in says at once here.
        let over = life.record.end_ms.filter(|_| life.record.reopened_ms.is_none());
        life.versions.push((self.now, life.record.padding, over));
        self.world.standin.put(life.record.clone());
    }

    fn request(&self, ask: Ask, manner: Manner, who: usize) -> reqwest::RequestBuilder {
        let record = &self.lives[who].record;
        let (method, path, body) = match ask {
            Ask::Conversation => (Method::GET, conversation_path(&record.conversation_id), String::new()),
            Ask::Transcript => {
                let body = json!({ "sessionId": record.session_id });
                (Method::POST, transcript_path(), body.to_string())
            }
            Ask::Window => {
                let day =
                    jiff::Timestamp::from_millisecond(record.start_ms).unwrap().strftime("%F").to_string();
                let body = json!({ "startDate": day, "endDate": day, "timeZoneOffset": 0 });
                (Method::POST, window_path(), body.to_string())
            }
        };
        let method = match (manner.is_other_method, method) {
            (false, method) => method,
            (true, Method::GET) => Method::HEAD,
            (true, _) => Method::QUERY,
        };
        let request = self.world.request(method, &path, REPORTING).header("accept-encoding", manner.coding);
        if body.is_empty() { request } else { request.header("content-type", "application/json").body(body) }
    }

    fn check(&mut self, ask: Ask, who: usize, got: &Got, calls: usize) {
        let status = got.cache_status().to_owned();
        let life = &self.lives[who];
        if status.is_empty() || got.status != 200 {
            assert!(calls > 0, "an error costs a call: {got:?}");
            return;
        }
        let is_hit = status.contains("; hit;");
        let age = if is_hit { got.header("age").parse::<i64>().unwrap() } else { 0 };
        let at = self.now - age * 1000;
        let version = match version(ask, got) {
            Some(told) => life.versions.iter().position(|(_, known, _)| *known == told).unwrap(),
            // A HEAD: of what was true then. Of what was true in the same moment, what may be stored.
            None => {
                let then = life.versions.iter().rposition(|(from, _, _)| *from <= at).unwrap();
                let in_the_moment = |version: &usize| {
                    *version == then || is_hit && life.versions[version + 1].0 == at && *version >= life.least
                };
                let may_be_stored = |version: &usize| life.versions[*version].2.is_some();
                (0..=then).rev().take_while(in_the_moment).find(may_be_stored).unwrap_or(then)
            }
        };
        let by_now = |at: i64| match ask {
            Ask::Conversation | Ask::Window => life.versions[version].2,
            Ask::Transcript => life.told.iter().rfind(|(told, _)| *told <= at).and_then(|(_, over)| *over),
        };

        if let Some((at, settled)) = self.stored.get(&(ask, who)) {
            let least = if *settled { DAY } else { 30 * SECOND } * 9 / 10;
            if self.now - at < millis(least) {
                assert_eq!(calls, 0, "fresh by the rule, and yet a call: {status}");
            }
        }
        if is_hit {
            self.hits += 1;
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
            if ask != Ask::Transcript {
                self.tell(who);
            }
        }
    }

    /// Purges, and makes it known by what is asked from then on.
    fn purge(&mut self, purged: Purged, who: usize) {
        let record = &self.lives[who].record;
        let (purge, whose) = match purged {
            Purged::Conversation => (Purge::conversation(&record.conversation_id), who..who + 1),
            Purged::Session => (Purge::session(&record.session_id), who..who + 1),
            Purged::All => (Purge::All, 0..PEOPLE),
        };
        self.world.app.cache.purge(purge);
        for who in whose {
            self.change(who, |_| {});
            self.forget(who);
        }
    }

    /// A call is on its way while what it asks for is purged: what it brings is of before that, so it
    /// is handed to who waits for it, and not stored.
    async fn purge_meanwhile(&mut self, ask: Ask, purged: Purged, who: usize) {
        let gate = Gate::closed();
        self.world.standin.fault(Some(Fault::Held(gate.clone())));
        let calls = self.world.standin.count();
        let asking = tokio::spawn(got(self.request(ask, PLAIN, who)));
        until("it is answered, or the call is made", || {
            asking.is_finished() || self.world.standin.count() > calls
        })
        .await;
        let was_over = self.lives[who].versions.last().unwrap().2;
        self.purge(purged, who);
        gate.open();
        let got = asking.await.unwrap();
        self.world.standin.fault(None);
        self.settle_down().await;
        let status = got.cache_status();
        if got.status == 200 && !status.contains("; hit;") {
            assert!(!status.ends_with("; stored"), "of before the purge, and stored: {status}");
        }
        // By who waited, or by a refresh.
        let answered = |call: &kore_standin::Call| call.status == 200;
        if ask != Ask::Transcript && self.world.standin.calls()[calls..].iter().any(answered) {
            self.lives[who].told.push((self.now, was_over));
            if was_over.is_none() {
                self.forget(who);
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
            Step::Ask(ask, manner, who) => {
                let before = self.world.standin.count();
                let got = got(self.request(ask, manner, who)).await;
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
            Step::Purge(purged, who) => self.purge(purged, who),
            Step::PurgeMeanwhile(ask, purged, who) => self.purge_meanwhile(ask, purged, who).await,
            Step::Fail => self.world.standin.fault_next(1, Fault::Status(500)),
            Step::Reopen(_) => {}
        }
    }

    /// Until no request and no refresh is under way.
    async fn settle_down(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        until("all is quiet", || {
            self.world.app.metrics.http.active_requests.get() == 0
                && self.world.standin.calls().iter().all(|call| call.status != 0)
        })
        .await;
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
}

/// Each version of a record shows its number in every answer.
fn tell_version(record: &mut Conversation, version: usize) {
    record.padding = version;
    record.channel = format!("version {version}");
}

/// Which version an answer tells of; none where it has no body.
fn version(ask: Ask, got: &Got) -> Option<usize> {
    let mut body = Vec::new();
    match got.header("content-encoding") {
        "gzip" => flate2::read::GzDecoder::new(&got.body[..]).read_to_end(&mut body).ok()?,
        "br" => brotli::Decompressor::new(&got.body[..], 4096).read_to_end(&mut body).ok()?,
        _ => (&got.body[..]).read_to_end(&mut body).ok()?,
    };
    if body.is_empty() {
        return None;
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    Some(match ask {
        Ask::Conversation => body["formData"][0]["padding"].as_str().unwrap().len(),
        Ask::Transcript => {
            body["conversationHistory"][0]["components"][0]["data"]["text"].as_str().unwrap().len()
        }
        Ask::Window => {
            assert_eq!(body["data"].as_array().unwrap().len(), 1, "{body}");
            body["data"][0]["channel"].as_str().unwrap().strip_prefix("version ")?.parse().unwrap()
        }
    })
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
    let lives = usize::try_from(times_factor(LIVES)).unwrap();
    let mut hits = 0;
    for life in 0..lives {
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
    println!("{lives} lives of {STEPS} steps, {hits} answers out of the store");
    assert!(hits > lives * 3, "the store was hardly used: {hits}");
}
