//! What operators see: health, version, and metrics under the names that dashboards use.

use http::Method;
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault};
use serde_json::Value;

use crate::world::{
    DAY, NEIGHBOUR, NOON, REPORTING, World, before, client, conversation_path, got, window_path,
};

#[tokio::test]
async fn every_promised_metric_is_there_in_both_formats() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::of(vec![conversation]).await;
    world.get(&path).await;
    world.get(&path).await;
    let plain = world.ops("/metrics").await;
    assert_eq!(plain.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let plain = String::from_utf8(plain.body.to_vec()).unwrap();
    for series in [
        r#"http_server_request_duration_seconds_count{route="conversation",method="GET",status="200"} 2"#,
        "http_server_active_requests 0",
        r#"http_client_request_duration_seconds_count{route="conversation",status="200"} 1"#,
        r#"kore_gateway_cache_requests_total{route="conversation",outcome="hit"} 1"#,
        r#"kore_gateway_cache_requests_total{route="conversation",outcome="miss"} 1"#,
        "kore_gateway_cache_entries 1",
        "kore_gateway_cache_bytes ",
        "kore_gateway_cache_evictions_total 0",
        "# TYPE kore_gateway_rate_limited_total counter",
        r#"kore_gateway_upstream_attempts_total{route="conversation",result="answered"} 1"#,
        &format!(r#"kore_gateway_upstream_quota_available{{account="{EXAMPLE_ACCOUNT}",pool="account"}} 59"#),
        "kore_gateway_upstream_quota_wait_seconds_count 1",
        "kore_gateway_breaker_state{upstream=",
        "kore_gateway_tokens_minted_total{credential=",
        "kore_gateway_token_expiry_timestamp_seconds{credential=",
        r#"kore_gateway_config_reloads_total{result="success"} 1"#,
        "kore_gateway_config_last_reload_successful 1",
        &format!("kore_gateway_config_last_reload_success_timestamp_seconds {}", NOON / 1000),
        r#"kore_gateway_build_info{version=""#,
    ] {
        assert!(plain.contains(&format!("\n{series}")), "no {series} in\n{plain}");
    }
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let url = format!("http://{}/metrics", world.ops);
    let open = got(client.get(url).header("accept", "application/openmetrics-text; version=1.0.0")).await;
    assert_eq!(open.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.body.ends_with(b"# EOF\n"));
}

#[tokio::test]
async fn the_format_of_metrics_is_the_one_that_is_liked_best() {
    let world = World::new().await;
    let url = format!("http://{}/metrics", world.ops);
    for (accept, is_open) in [
        ("*/*", false),
        ("application/openmetrics-text", true),
        ("application/openmetrics-text;q=0, */*", false),
        ("application/openmetrics-text;q=0.1, text/plain", false),
        (
            "text/plain;q=0.3, application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6, */*;q=0.1",
            true,
        ),
        ("application/openmetrics-text;version=0.0.1, */*;q=0.1", false),
        ("APPLICATION/OpenMetrics-Text", true),
        ("image/png", false),
    ] {
        let metrics = got(world.http.get(&url).header("accept", accept)).await;
        assert_eq!(
            metrics.header("content-type").starts_with("application/openmetrics-text"),
            is_open,
            "{accept}"
        );
        assert_eq!(metrics.header("vary"), "Accept");
    }
}

/// Every metric that is promised by name, with the kind it says it is and its labels.
const PROMISED: [(&str, &str, &[&str]); 16] = [
    ("http_server_request_duration_seconds", "histogram", &["route", "method", "status"]),
    ("http_server_active_requests", "gauge", &[]),
    ("http_client_request_duration_seconds", "histogram", &["route", "status"]),
    ("kore_gateway_cache_requests_total", "counter", &["route", "outcome"]),
    ("kore_gateway_cache_entries", "gauge", &[]),
    ("kore_gateway_cache_bytes", "gauge", &[]),
    ("kore_gateway_cache_evictions_total", "counter", &[]),
    ("kore_gateway_rate_limited_total", "counter", &["client"]),
    ("kore_gateway_upstream_attempts_total", "counter", &["route", "result"]),
    ("kore_gateway_upstream_quota_available", "gauge", &["account", "pool"]),
    ("kore_gateway_upstream_quota_wait_seconds", "histogram", &[]),
    ("kore_gateway_breaker_state", "gauge", &["upstream"]),
    ("kore_gateway_tokens_minted_total", "counter", &["credential"]),
    ("kore_gateway_token_expiry_timestamp_seconds", "gauge", &["credential"]),
    ("kore_gateway_config_reloads_total", "counter", &["result"]),
    ("kore_gateway_build_info", "gauge", &["version", "commit"]),
];

#[tokio::test]
async fn every_promised_metric_has_its_kind_and_exactly_its_labels() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::of(vec![conversation]).await;
    world.get(&path).await;
    let scrape = String::from_utf8(world.ops("/metrics").await.body.to_vec()).unwrap();
    for (name, kind, labels) in PROMISED {
        assert!(scrape.contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind}\n{scrape}");
        let samples = match kind {
            "histogram" => ["_count", "_sum", "_bucket"].map(|suffix| format!("{name}{suffix}")).to_vec(),
            _ => vec![name.to_owned()],
        };
        for sample in samples {
            let mut expected = labels.to_vec();
            expected.extend(sample.ends_with("_bucket").then_some("le"));
            expected.sort_unstable();
            let mut found = scrape.lines().filter_map(|line| labels_of(line, &sample)).peekable();
            assert!(found.peek().is_some(), "no {sample} in\n{scrape}");
            for labels in found {
                assert_eq!(labels, expected, "{sample}");
            }
        }
    }
    let outcomes = ["hit", "stale", "miss", "collapsed", "bypass"];
    for outcome in outcomes {
        let series =
            format!("kore_gateway_cache_requests_total{{route=\"conversation\",outcome=\"{outcome}\"}} ");
        assert!(scrape.contains(&series), "no {series}");
    }
    let of_conversation = "kore_gateway_cache_requests_total{route=\"conversation\",";
    assert_eq!(scrape.lines().filter(|line| line.starts_with(of_conversation)).count(), outcomes.len());
}

/// The labels of a line, sorted, if it is a sample of that name. No value of ours holds a comma.
fn labels_of<'a>(line: &'a str, sample: &str) -> Option<Vec<&'a str>> {
    let rest = line.strip_prefix(sample)?;
    if rest.starts_with(' ') {
        return Some(Vec::new());
    }
    let (labels, _) = rest.strip_prefix('{')?.rsplit_once('}')?;
    let mut labels: Vec<_> = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)).collect();
    labels.sort_unstable();
    Some(labels)
}

#[tokio::test]
async fn a_made_up_method_or_path_makes_no_time_series_of_its_own() {
    let world = World::new().await;
    for n in 0..20 {
        let method = format!("METHOD{n}").parse().unwrap();
        got(world.request(method, &format!("/{n}"), REPORTING)).await;
    }
    let count = world
        .metric(r#"http_server_request_duration_seconds_count{route="none",method="_OTHER",status="404"}"#);
    assert_eq!(count.await, 20.0);
}

#[tokio::test]
async fn health_and_version_are_answered_without_spending_anything() {
    let world = World::new().await;
    assert_eq!(world.ops("/livez").await.body, "ok\n");
    assert_eq!(world.ops("/readyz").await.body, "ok\n");
    let verbose = world.ops("/readyz?verbose").await.body;
    assert!(String::from_utf8_lossy(&verbose).contains("listener: ok"));
    let version: Value = world.ops("/version").await.json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(world.ops("/admin/config").await.status, 404, "no token is configured");
    assert_eq!(world.standin.count(), 0);
}

/// Every request to a route has one outcome, whatever became of it: hits, misses, what was joined, what was
/// refused at any stage, what failed.
#[tokio::test]
async fn the_outcomes_of_a_route_add_up_to_its_requests() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation];
        setup.clients = client("seldom", "kg_seldom").rate_limit("1/min").toml();
    })
    .await;
    let many = (0..20).map(|_| got(world.request(Method::GET, &path, REPORTING)));
    futures_util::future::join_all(many).await;
    for key in ["wrong", NEIGHBOUR, "kg_seldom", "kg_seldom"] {
        got(world.request(Method::GET, &path, key)).await;
    }
    got(world.request(Method::HEAD, &path, REPORTING)).await;
    world.get(&format!("{path}?limit=0")).await;
    world.get(&conversation_path("no-id")).await;
    world.get(&conversation_path("c-unknown")).await;
    world.post(&path, "{}").await;
    world.post(&window_path(), "{}").await;
    world.standin.fault(Some(Fault::Status(500)));
    world.get(&conversation_path("c-broken")).await;

    let text = String::from_utf8(world.ops("/metrics").await.body.to_vec()).unwrap();
    let sum = |series: &str, route: &str| -> f64 {
        let of_route = format!("{series}{{route=\"{route}\",");
        let samples = text.lines().filter(|line| line.starts_with(&of_route));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    for (route, requests) in [("conversation", 29.0), ("interaction_details", 1.0)] {
        assert_eq!(sum("http_server_request_duration_seconds_count", route), requests, "{text}");
        assert_eq!(sum("kore_gateway_cache_requests_total", route), requests, "{text}");
    }
    assert!(sum("kore_gateway_cache_requests_total", "none") == 0.0);
    let bypass = world.metric(r#"kore_gateway_cache_requests_total{route="conversation",outcome="bypass"}"#);
    assert_eq!(bypass.await, 5.0, "401, 403, 429, and two of 400");
}
