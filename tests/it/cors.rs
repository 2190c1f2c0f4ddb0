//! A page may read what its client may: exact origins, per client. A preflight has no caller and is
//! answered for all clients together; the answer itself for its caller's own origins, errors too.

use http::Method;
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault, Gate, OTHER_ACCOUNT};

use crate::world::{
    DAY, Got, REPORTING, World, before, change_config, client, conversation_path, got, transcript_path,
    until, window_path,
};

const DESK: &str = "https://desk.example.com";
const QUALITY: &str = "http://quality.example.com:8443";
const DESK_KEY: &str = "kg_desk";
const BOTH_KEY: &str = "kg_both";
const QUALITY_KEY: &str = "kg_quality";

async fn world() -> (World, String) {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation];
        setup.clients = client("both", BOTH_KEY).rate_limit("1000/min").toml();
        setup.clients.push_str(&format!("origins = [\"{DESK}\", \"{QUALITY}\"]\n"));
        for (name, key, origin) in [("desk", DESK_KEY, DESK), ("quality", QUALITY_KEY, QUALITY)] {
            setup.clients.push_str(&client(name, key).rate_limit("4/min").toml());
            setup.clients.push_str(&format!("origins = [\"{origin}\"]\n"));
        }
    })
    .await;
    (world, path)
}

/// As a browser sends it: without the credential.
async fn preflight(world: &World, path: &str, origin: &str, method: &str) -> Got {
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    got(http
        .request(Method::OPTIONS, format!("http://{}{path}", world.address))
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "authorization,if-none-match"))
    .await
}

#[tokio::test]
async fn a_preflight_is_answered_for_the_origins_of_all_clients_and_costs_nothing() {
    let (world, path) = world().await;
    for origin in [DESK, QUALITY] {
        let paths = [(path.as_str(), "GET"), (&window_path(), "POST"), (&transcript_path(), "POST")];
        for (path, method) in paths {
            let answer = preflight(&world, path, origin, method).await;
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (204, &b""[..]));
            assert_eq!(answer.header("access-control-allow-origin"), origin);
            assert!(answer.header("access-control-allow-methods").split(", ").any(|known| known == method));
            let accepted = answer.header("access-control-allow-headers");
            for name in ["authorization", "content-type", "if-none-match", "cache-control"] {
                assert!(accepted.split(", ").any(|known| known == name), "{name}");
            }
            assert_eq!(answer.header("access-control-max-age"), "600");
            assert_eq!(answer.header("vary"), "Origin");
            assert!(!answer.headers.contains_key("access-control-allow-credentials"));
        }
    }
    assert_eq!(preflight(&world, "/nothing", DESK, "GET").await.status, 404);
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn null_and_look_alikes_are_refused() {
    let (world, path) = world().await;
    for origin in [
        "null",
        "*",
        "https://desk.example.com.evil.example",
        "https://evil-desk.example.com",
        "https://desk.example.com:443",
        "https://desk.example.com/",
        "https://DESK.example.com",
        "http://desk.example.com",
        "https://desk.example.com:8443",
        "https://desk.example.com@evil.example",
        "https://quality.example.com:8443",
        "http://quality.example.com",
    ] {
        let refused = preflight(&world, &path, origin, "GET").await;
        assert_eq!(refused.status, 403, "{origin}");
        assert!(!refused.headers.contains_key("access-control-allow-origin"), "{origin}");
        let answer = got(world.request(Method::GET, &path, BOTH_KEY).header("origin", origin)).await;
        assert_eq!(answer.status, 200, "{origin}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{origin}");
    }
}

#[tokio::test]
async fn an_answer_is_for_its_callers_own_origins_and_says_what_a_script_may_read() {
    let (world, path) = world().await;
    let own = got(world.request(Method::GET, &path, DESK_KEY).header("origin", DESK)).await;
    assert_eq!(own.header("access-control-allow-origin"), DESK);
    assert_eq!(
        own.header("access-control-expose-headers"),
        "ETag, Age, Cache-Status, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"
    );
    assert_eq!(own.header("vary"), "Accept-Encoding, Origin");
    let others = got(world.request(Method::GET, &path, DESK_KEY).header("origin", QUALITY)).await;
    assert_eq!(others.status, 200);
    assert!(!others.headers.contains_key("access-control-allow-origin"), "another client's page");
    let none = got(world.request(Method::GET, &path, DESK_KEY)).await;
    assert!(!none.headers.contains_key("access-control-allow-origin"));
    assert_eq!(none.header("vary"), "Accept-Encoding, Origin", "a shared cache must know either way");
}

/// An answer that takes its time is for the origins that its caller has when it is handed out.
#[tokio::test]
async fn an_origin_that_is_taken_out_meanwhile_reads_no_answer() {
    let (world, path) = world().await;
    let gate = Gate::closed();
    world.standin.fault(Some(Fault::Held(gate.clone())));
    let ask = |origin| got(world.request(Method::GET, &path, BOTH_KEY).header("origin", origin));
    let (gone, kept) = (tokio::spawn(ask(DESK)), tokio::spawn(ask(QUALITY)));
    until("both are in", || world.app.metrics.http.active_requests.get() == 2).await;
    change_config(&world, |written| {
        let both = format!("origins = [\"{DESK}\", \"{QUALITY}\"]");
        written.replace(&both, &format!("origins = [\"{QUALITY}\"]"))
    });
    world.app.reload().await.unwrap();
    gate.open();
    let (gone, kept) = (gone.await.unwrap(), kept.await.unwrap());
    assert_eq!((gone.status.as_u16(), kept.status.as_u16()), (200, 200));
    assert!(!gone.headers.contains_key("access-control-allow-origin"));
    assert_eq!(kept.header("access-control-allow-origin"), QUALITY);
}

#[tokio::test]
async fn errors_can_be_read_by_the_page_too() {
    let (world, path) = world().await;
    let foreign = window_path().replace(EXAMPLE_ACCOUNT, OTHER_ACCOUNT);
    let asked = [
        (401, world.request(Method::GET, &path, "kg_unknown")),
        (404, world.request(Method::GET, "/nothing", DESK_KEY)),
        (405, world.request(Method::PUT, &path, DESK_KEY)),
        (400, world.post_request(&window_path(), "{}", DESK_KEY)),
        (403, world.post_request(&foreign, "{}", DESK_KEY)),
        (404, world.request(Method::GET, &conversation_path("c-2"), DESK_KEY)),
        (200, world.request(Method::GET, &path, DESK_KEY)),
        (429, world.request(Method::GET, &path, DESK_KEY)),
    ];
    for (status, request) in asked {
        let answer = got(request.header("origin", DESK)).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), DESK, "{status}");
        assert!(answer.header("vary").ends_with("Origin"), "{status}");
    }
    let unlisted =
        got(world.request(Method::GET, &path, "kg_unknown").header("origin", "https://a.example")).await;
    assert!(!unlisted.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn where_nobody_has_origins_answers_do_not_vary_on_them() {
    let world = World::new().await;
    let answer = got(world.request(Method::GET, "/nothing", REPORTING).header("origin", DESK)).await;
    assert!(!answer.headers.contains_key("vary"));
    assert_eq!(preflight(&world, &conversation_path("c-1"), DESK, "GET").await.status, 403);
}
