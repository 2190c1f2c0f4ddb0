//! An answer above the cap is passed through, whole and uncached, to all who asked at once and may see
//! any bot; one that is cut is cut for them too; the
//! store never holds more bytes than it may.

use futures_util::future::join_all;
use http::{Method, StatusCode};
use kore_standin::{Conversation, EXAMPLE_STREAM, Fault, Gate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{
    DAY, Got, MINUTE, ONE_BOT, REPORTING, SECOND, World, before, conversation_path, got, until,
};

async fn world(conversations: Vec<Conversation>) -> World {
    World::with(|setup| {
        setup.standin.conversations = conversations;
        setup.without_quota = true;
        setup.config = "upstream.max_body = \"64KiB\"\ncache.capacity = \"1MiB\"".to_owned();
    })
    .await
}

fn large(bytes: usize) -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).padded(bytes)
}

fn padding(got: &Got) -> usize {
    got.json()["formData"][0]["padding"].as_str().unwrap().len()
}

#[tokio::test]
async fn an_answer_above_the_cap_is_passed_through_whole_and_not_stored_however_it_is_sent() {
    let world = world(vec![large(300_000)]).await;
    let path = conversation_path(&large(0).conversation_id);
    for (at, sent) in [None, Some(Fault::Chunked), Some(Fault::Gzipped), Some(Fault::CloseDelimited)]
        .into_iter()
        .enumerate()
    {
        world.standin.fault(sent.clone());
        for calls in 1..=2 {
            let got = world.get(&path).await;
            assert_eq!(got.status, StatusCode::OK);
            assert_eq!(padding(&got), 300_000, "{sent:?}");
            assert_eq!(
                got.cache_status(),
                "kore-gateway; fwd=uri-miss; fwd-status=200; stored=?0; detail=too-large"
            );
            assert_eq!((got.header("etag"), got.header("age")), ("", ""));
            assert_eq!(world.standin.count(), 2 * at + calls);
        }
    }
    assert_eq!(world.app.cache.size(), (0, 0));
}

#[tokio::test]
async fn all_who_ask_at_once_for_a_large_answer_share_one_call_and_each_gets_all_of_it() {
    let world = world(vec![large(300_000)]).await;
    let path = conversation_path(&large(0).conversation_id);
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let asking = join_all((0..20).map(|_| world.get(&path)));
    let letting_go = async {
        until("all are under way", || world.app.metrics.http.active_requests.get() == 20).await;
        gate.open();
    };
    let (all, ()) = futures_util::join!(asking, letting_go);
    assert!(all.iter().all(|got| padding(got) == 300_000));
    let collapsed = all.iter().filter(|got| got.cache_status().contains("; collapsed")).count();
    assert_eq!((collapsed, world.standin.count()), (19, 1));
}

/// They go at one pace, but not at that of one who stands still.
#[tokio::test]
async fn who_stops_reading_a_large_answer_keeps_the_others_from_it_for_a_second_and_no_longer() {
    keeps_a_reader_for_a_second(1).await;
}

#[tokio::test]
async fn many_who_stop_reading_a_large_answer_keep_one_who_reads_for_a_second_and_no_longer() {
    keeps_a_reader_for_a_second(5).await;
}

async fn keeps_a_reader_for_a_second(idlers: usize) {
    // More than the sockets on the way can hold.
    const LENGTH: usize = 24_000_000;
    // All parties run on this one thread: if each has had so many turns, and nothing has come, nothing will.
    const TURNS: usize = 20_000;
    let still = async || {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    };
    let world = World::with(|setup| {
        setup.config = "upstream.max_body = \"64KiB\"\nupstream.timeout = \"10m\"".to_owned();
    })
    .await;
    let path = conversation_path("c-1");
    let body = [&b"{\"_id\":\""[..], &vec![b'x'; LENGTH], b"\"}"].concat();
    world.standin.serve_body("/conversations/", 200, "application/json", body);
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let mut idle = Vec::new();
    for _ in 0..idlers {
        let mut idler = TcpStream::connect(world.address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {REPORTING}\r\n\r\n");
        idler.write_all(head.as_bytes()).await.unwrap();
        idle.push(idler);
    }
    let reading = world.request(Method::GET, &path, REPORTING).send();
    let (reader, ()) = futures_util::join!(reading, async {
        let all = i64::try_from(idlers + 1).unwrap();
        until("all are under way", || world.app.metrics.http.active_requests.get() == all).await;
        gate.open();
    });
    let (mut reader, mut got, mut held_up) = (reader.unwrap(), 0, 0);
    loop {
        let chunk = tokio::select! {
            biased;
            chunk = reader.chunk() => Some(chunk.unwrap()),
            () = still() => None,
        };
        match chunk {
            Some(Some(chunk)) => got += chunk.len(),
            Some(None) => break,
            None => {
                held_up += 1;
                assert!(held_up < 20, "{got} bytes after {held_up} seconds");
                world.advance(SECOND);
            }
        }
    }
    assert!(got > LENGTH && held_up > 0, "{got} bytes");
    assert_eq!(world.standin.count(), 1);
    // The others were left behind, and can see it.
    for mut idler in idle {
        let mut rest = Vec::new();
        idler.read_to_end(&mut rest).await.ok();
        assert!(rest.len() < LENGTH && !rest.ends_with(b"0\r\n\r\n"), "{} bytes", rest.len());
    }
}

#[tokio::test]
async fn a_client_of_some_bots_does_not_get_what_nobody_has_looked_into() {
    let large = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).padded(200_000);
    let world = world(vec![large.clone()]).await;
    let refused = world.request(Method::GET, &conversation_path(&large.conversation_id), ONE_BOT);
    let refused = got(refused).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::BAD_GATEWAY, "upstream-invalid"));
}

#[tokio::test]
async fn a_large_answer_that_is_cut_or_does_not_end_does_not_look_whole_however_it_is_sent() {
    let world = World::with(|setup| {
        setup.standin.conversations = vec![large(300_000)];
        setup.without_quota = true;
        setup.config = "[upstream]\nmax_body = \"64KiB\"\ntimeout = \"5s\"\nlarge_timeout = \"2s\"\n\
                        breaker.failures = 1000000"
            .to_owned();
    })
    .await;
    for cut in [
        Fault::CutBody,
        Fault::ResetInBody,
        Fault::HangInBody,
        Fault::CloseDelimitedCut,
        Fault::TruncatedJson,
        Fault::EndlessBody,
        Fault::GzipBomb,
    ] {
        world.standin.fault(Some(cut.clone()));
        let request = world.request(Method::GET, &conversation_path(&large(0).conversation_id), REPORTING);
        let mut response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{cut:?}");
        let end = loop {
            match response.chunk().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        };
        assert!(end.is_err(), "{cut:?}");
    }
    assert_eq!(world.app.cache.size(), (0, 0));
}

/// A full store refuses what is asked for once, and says so; what it says is stored is there.
#[tokio::test]
async fn what_is_said_to_be_stored_is_there_for_the_next_one() {
    let conversations: Vec<_> =
        (0..120).map(|n| Conversation::closed_at(EXAMPLE_STREAM, n, before(DAY)).padded(20_000)).collect();
    let world = world(conversations.clone()).await;
    let paths: Vec<_> = conversations.iter().map(|one| conversation_path(&one.conversation_id)).collect();
    let (popular, others) = paths.split_at(60);
    for path in popular.iter().cycle().take(60 * 5) {
        world.get(path).await;
    }
    let (mut stored, mut turned_away) = (0, 0);
    for path in others.iter().cycle().take(60 * 5) {
        let first = world.get(path).await;
        if first.cache_status().ends_with("; stored") {
            stored += 1;
            assert!(world.get(path).await.is_hit());
        } else if !first.is_hit() {
            turned_away += 1;
            assert!(first.cache_status().ends_with("; stored=?0; detail=no-room"), "{first:?}");
        }
    }
    assert!(turned_away > 20 && stored > 20, "{turned_away} turned away, {stored} stored");
}

#[tokio::test]
async fn the_store_holds_no_more_bytes_than_it_may_and_its_index_goes_with_it() {
    let conversations: Vec<_> =
        (0..300).map(|n| Conversation::closed_at(EXAMPLE_STREAM, n, before(DAY)).padded(20_000)).collect();
    let world = world(conversations.clone()).await;
    for conversation in &conversations {
        // The second request for it is what a full store makes room for.
        for _ in 0..2 {
            world.get(&conversation_path(&conversation.conversation_id)).await;
            assert!(world.app.cache.size().1 <= 1 << 20);
        }
    }
    let (entries, _) = world.app.cache.size();
    assert!(entries > 20, "{entries}");
    let evictions = world.metric("kore_gateway_cache_evictions_total").await;
    assert!(evictions >= 200.0, "{evictions}");
    // What was pushed out is found by no purge.
    let purged: u64 = conversations
        .iter()
        .map(|conversation| {
            let purge = kore_gateway::cache::Purge::conversation(&conversation.conversation_id);
            world.app.cache.purge(purge).entries()
        })
        .sum();
    assert_eq!(purged, entries);
    assert_eq!(world.app.cache.size(), (0, 0));
    world.advance(MINUTE);
}
