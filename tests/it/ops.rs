//! What operators see: health, version, and metrics under the names that dashboards use.

use kore_gateway::standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM};
use serde_json::Value;

use crate::world::{DAY, REPORTING, World, before, conversation_path, got};

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
