//! The contract as a document: made from the routes, open to everybody, the same from the command line,
//! and as a page that needs nothing from outside.

use http::{Method, StatusCode};
use kore_gateway::observe::metrics::VERSION;
use kore_gateway::routes::{ROUTES, RequestLimits, openapi};
use kore_standin::{Conversation, EXAMPLE_STREAM};
use serde_json::Value;

use crate::world::{DAY, Got, REPORTING, World, before, got};

async fn open(world: &World, method: Method, path: &str) -> Got {
    got(world.http.request(method, format!("http://{}{path}", world.address))).await
}

#[tokio::test]
async fn the_document_has_every_route_and_needs_no_credential_and_no_call() {
    let world = World::new().await;
    let got = open(&world, Method::GET, "/openapi.json").await;
    assert_eq!(got.status, StatusCode::OK);
    assert_eq!(got.header("content-type"), "application/json");
    assert!(!got.header("x-request-id").is_empty());
    let document = got.json();
    assert_eq!(document["openapi"], "3.2.0");
    let paths: usize = ROUTES.iter().map(|route| route.paths.len()).sum();
    assert_eq!(document["paths"].as_object().unwrap().len(), paths);
    for route in &ROUTES {
        for path in route.paths {
            let item = &document["paths"][path];
            assert_eq!(item["query"].is_object(), route.takes_query(), "{path}");
            let operation = &item[route.method.as_str().to_ascii_lowercase()];
            for status in ["200", "304", "400", "401", "403", "429", "502", "503", "504"] {
                assert!(operation["responses"][status].is_object(), "{path} {status}");
            }
        }
    }
    assert_eq!(world.standin.count(), 0);
}

#[tokio::test]
async fn both_are_kept_by_their_tag_and_take_get_and_head_only() {
    let world = World::new().await;
    for path in ["/openapi.json", "/docs"] {
        let first = open(&world, Method::GET, path).await;
        assert_eq!(first.header("cache-control"), "public, max-age=300");
        let url = format!("http://{}{path}", world.address);
        let again = got(world.http.get(url).header("if-none-match", first.header("etag"))).await;
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        let head = open(&world, Method::HEAD, path).await;
        assert_eq!(head.header("content-length"), first.body.len().to_string());
        assert!(head.body.is_empty());
        let refused = open(&world, Method::POST, path).await;
        assert_eq!((refused.status, refused.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    }
    assert_eq!(open(&world, Method::GET, "/docs/").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_page_runs_no_script_and_loads_nothing() {
    let world = World::new().await;
    let page = open(&world, Method::GET, "/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy").to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    for loads in ["<script", "<link", "<img", "src=", "url(", "@import", "href=\"http"] {
        assert!(!html.contains(loads), "{loads}");
    }
    for route in &ROUTES {
        for path in route.paths {
            assert!(html.contains(path), "{path}");
        }
    }
}

#[tokio::test]
async fn the_document_tells_the_limits_in_effect() {
    let world =
        World::with(|setup| setup.config = "limits.conversation_details_limit = 250".to_owned()).await;
    let document = open(&world, Method::GET, "/openapi.json").await.json();
    let limit = document.pointer(
        "/paths/~1api~1public~1bot~1{botId}~1conversationDetails/post/requestBody/content/application~1json\
         /schema/properties/limit/maximum",
    );
    assert_eq!(limit, Some(&Value::from(250)));
}

#[test]
fn the_command_prints_the_same_without_accounts_or_secrets() {
    let printed =
        std::process::Command::new(env!("CARGO_BIN_EXE_kore-gateway")).arg("openapi").output().unwrap();
    assert!(printed.status.success());
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let limits = RequestLimits { conversation_details_limit: 100, max_json_depth: 32 };
    assert_eq!(printed, openapi::document(limits, VERSION));
}

/// scripts/schemathesis asks what the document allows and forbids. Its venv is made on first use.
#[tokio::test]
async fn answers_are_as_the_document_says_whatever_is_asked() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let id = conversation.conversation_id.clone();
    let world = World::with(|setup| {
        setup.without_quota = true;
        setup.standin.conversations = vec![conversation];
    })
    .await;
    let url = format!("http://{}", world.address);
    let checked = tokio::process::Command::new("scripts/schemathesis")
        .args([url.as_str(), REPORTING, &id])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{told}\n{}", String::from_utf8_lossy(&checked.stderr));
    assert!(world.standin.count() > 0, "nothing got as far as the upstream\n{told}");
    println!("{told}");
}
