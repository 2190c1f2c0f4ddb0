//! An upstream call is never spent twice for the same answer, however many ask at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use kore_gateway::cache::{Served, Source, Terms};
use kore_gateway::clock::Moment;
use kore_gateway::config::Lane;
use kore_gateway::error::Error;
use kore_gateway::fetch::answer::{Answer, Fetched};
use kore_gateway::fetch::payer::Payer;
use kore_gateway::routes::{self, Found, Key, Query, Route, RouteName};
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault, Gate};

use crate::world::{
    DAY, Got, MINUTE, REPORTING, World, before, conversation_path, got, transcript_path, until, window_path,
};

const AT_ONCE: usize = 500;

fn settled() -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY))
}

/// Asks so many times at once that all of them are under way before the upstream answers any.
async fn all_at_once(world: &World, path: &str, times: usize) -> Vec<Got> {
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let asking = futures_util::future::join_all((0..times).map(|_| world.get(path)));
    let letting_go = async {
        let under_way = i64::try_from(times).unwrap();
        until("all are under way", || world.app.metrics.http.active_requests.get() == under_way).await;
        gate.open();
    };
    let (answers, ()) = futures_util::join!(asking, letting_go);
    world.standin.clear_faults();
    answers
}

#[tokio::test]
async fn five_hundred_at_once_for_a_settled_conversation_make_one_call_and_a_hundred_after_make_none() {
    let world = World::of(vec![settled()]).await;
    let path = conversation_path(&settled().conversation_id);
    let answers = all_at_once(&world, &path, AT_ONCE).await;
    assert_eq!(world.standin.count(), 1);
    let body = &answers[0].body;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == *body));
    let collapsed = answers.iter().filter(|answer| answer.cache_status().contains("; collapsed")).count();
    assert_eq!(collapsed, AT_ONCE - 1);

    let later = futures_util::future::join_all((0..100).map(|_| world.get(&path))).await;
    assert_eq!(world.standin.count(), 1);
    assert!(later.iter().all(|answer| answer.is_hit() && answer.body == *body));
    world.assert_no_violations();
}

#[tokio::test]
async fn the_call_goes_on_for_the_others_when_the_first_caller_hangs_up() {
    let world = World::of(vec![settled()]).await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let path = conversation_path(&settled().conversation_id);
    let first = tokio::spawn(got(world.request(Method::GET, &path, REPORTING)));
    until("the first call reaches the upstream", || world.standin.count() == 1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let asking = futures_util::future::join_all((1..AT_ONCE).map(|_| world.get(&path)));
    let letting_go = async {
        until("all are under way", || world.app.metrics.http.active_requests.get() == 500).await;
        gate.open();
    };
    let (answers, ()) = futures_util::join!(asking, letting_go);
    assert!(
        answers.iter().all(|answer| answer.status == 200 && answer.cache_status().contains("; collapsed"))
    );
    assert_eq!(world.standin.count(), 1);
    assert!(world.get(&path).await.is_hit());
}

#[tokio::test]
async fn a_live_conversation_is_shared_by_those_who_ask_at_once_and_never_stored() {
    let live = Conversation::live(EXAMPLE_STREAM, 2, before(MINUTE));
    let path = conversation_path(&live.conversation_id);
    let world = World::of(vec![live]).await;
    let answers = all_at_once(&world, &path, AT_ONCE).await;
    assert_eq!(world.standin.count(), 1);
    for answer in &answers {
        assert_eq!(answer.status, 200);
        assert!(answer.cache_status().contains("stored=?0"), "{}", answer.cache_status());
        assert!(answer.cache_status().ends_with("detail=live"), "{}", answer.cache_status());
        assert_eq!(answer.header("cache-control"), "private, no-store");
        assert!(!answer.headers.contains_key("age"));
    }
    assert_eq!(world.metric("kore_gateway_cache_entries").await, 0.0);

    world.get(&path).await;
    world.get(&path).await;
    assert_eq!(world.standin.count(), 3);
}

#[tokio::test]
async fn equal_queries_spelled_differently_share_one_entry() {
    let world = World::of(vec![settled()]).await;
    let path = window_path();
    let calldetails = path.replace("interactionDetails", "CALLDetails");
    let spellings = [
        (path.clone(), r#"{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":-330}"#),
        (
            format!("{path}?offset=0&limit=100"),
            r#"{ "timeZoneOffset" : -330.0, "endDate":"2026-02-22", "startDate":"2026-02-16" }"#,
        ),
        (
            format!("{calldetails}?limit=0100"),
            r#"{"startDate":"2026-02-16 00:00:00","endDate":"2026-02-22","timeZoneOffset":-330,"queues":[],"channels":[]}"#,
        ),
    ];
    for (at, (path, body)) in spellings.iter().enumerate() {
        let answer = world.post(path, body).await;
        assert_eq!(answer.is_hit(), at > 0, "{body}: {}", answer.cache_status());
    }
    assert_eq!(world.standin.count(), 1);

    let transcripts = [
        r#"{"sessionId":"abc","conversationId":"c-9","lang":"en"}"#,
        r#"{"callId":"k","sessionId":"abc","skip":0,"isSummaryRequired":false}"#,
    ];
    // Nothing has told that it is over, so it is not stored: asked at once, they share the call.
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let transcript_path = transcript_path();
    let both = futures_util::future::join_all(transcripts.map(|body| world.post(&transcript_path, body)));
    let letting_go = async {
        until("both are under way", || world.app.metrics.http.active_requests.get() == 2).await;
        gate.open();
    };
    futures_util::join!(both, letting_go);
    assert_eq!(world.standin.count(), 2);
    world.assert_no_violations();
}

#[tokio::test]
async fn another_time_zone_offset_is_another_answer() {
    let world = World::of(vec![settled()]).await;
    let body = |offset: i32| {
        format!(r#"{{"startDate":"2026-02-28","endDate":"2026-03-01","timeZoneOffset":{offset}}}"#)
    };
    let india = world.post(&window_path(), body(-330)).await;
    let new_york = world.post(&window_path(), body(300)).await;
    assert_eq!(world.standin.count(), 2);
    assert_ne!(india.body, new_york.body);
    assert_eq!(india.json()["numResults"], 1);
    assert_eq!(world.post(&window_path(), body(-330)).await.body, india.body);
    assert_eq!(world.standin.count(), 2);
}

/// Whoever asks again as soon as it is answered wants to know what is true now: what it has just been told, a
/// flight that has landed must not tell it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_handed_again_as_collapsed_the_live_answer_that_it_just_had() {
    const CALLERS: usize = 50;
    const TIMES: usize = 200;
    let world = World::new().await;
    let (query, rule) = (a_query(&world), *world.app.snapshot().config.cache.rule(conversation_route()));
    let calls = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (app, query, calls, now) =
                (world.app.clone(), query.clone(), calls.clone(), world.clock.moment());
            tokio::spawn(async move {
                let (mut last, mut again, mut shared) = (None, 0, 0);
                for _ in 0..TIMES {
                    let calls = calls.clone();
                    let fill = move |_| live_answer(calls.fetch_add(1, Ordering::SeqCst), now);
                    let payer = Payer { client: "reporting".into(), lane: Lane::Interactive, weight: 1 };
                    let served =
                        app.cache.get_or_fill(&query, &rule, MINUTE, Terms::default(), payer, fill).await;
                    let Ok(Served::Entry(entry, Source::Upstream { collapsed, .. })) = served else {
                        panic!("{served:?}")
                    };
                    let body = entry.answer.body.clone();
                    again += usize::from(collapsed && last.as_ref() == Some(&body));
                    shared += usize::from(collapsed);
                    last = Some(body);
                }
                (again, shared)
            })
        })
        .collect();
    let (mut again, mut shared) = (0, 0);
    for caller in callers {
        let (of_one, shared_of_one) = caller.await.unwrap();
        again += of_one;
        shared += shared_of_one;
    }
    assert_eq!(again, 0, "of {} answers, {shared} of them shared", CALLERS * TIMES);
    assert!(shared > CALLERS * TIMES / 2, "they do share: {shared}");
}

fn conversation_route() -> &'static Route {
    Route::named(RouteName::Conversation)
}

fn a_query(world: &World) -> Query {
    let path = PathAndQuery::try_from(conversation_path("c-live")).unwrap();
    let Found::Route(route, ids) = routes::find(&Method::GET, &path) else { panic!("{path}") };
    let limits = world.app.snapshot().config.limits;
    let canonical = (route.parse)(&routes::Request { ids: &ids, query: "", body: None, limits }).unwrap();
    let key = Key::new(EXAMPLE_ACCOUNT, route, &ids, &canonical);
    let bot = Some(EXAMPLE_STREAM.into());
    Query {
        route,
        account: EXAMPLE_ACCOUNT.into(),
        bot,
        key,
        plain: None,
        drops_text: false,
        requested: canonical.requested,
    }
}

async fn live_answer(nth: usize, asked_at: Moment) -> Result<Fetched, Error> {
    for _ in 0..nth % 50 {
        tokio::task::yield_now().await;
    }
    let body = format!(r#"{{"_id":"c-live","status":"ACTIVE","nth":{nth}}}"#).into_bytes().into();
    Ok(Fetched::Whole(Answer {
        status: StatusCode::OK,
        content_type: None,
        retry_after: None,
        body,
        asked_at,
    }))
}
