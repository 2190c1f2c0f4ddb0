//! What operators are handed to watch it by (alerts, dashboard, runbooks) names things that exist.

use std::collections::BTreeSet;

use kore_standin::{Conversation, EXAMPLE_STREAM};

use crate::tls_listener::{self, Authority};
use crate::world::{DAY, World, before, client, conversation_path};

const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/dashboards/kore-gateway.json");
const OPERATIONS: &str = include_str!("../../docs/OPERATIONS.md");

/// Words that begin as our metrics do.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    words
        .filter(|word| {
            ["kore_gateway_", "http_server_", "http_client_"].iter().any(|ours| word.starts_with(ours))
        })
        .collect()
}

#[tokio::test]
async fn every_metric_that_an_alert_or_the_dashboard_names_is_in_a_scrape() {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        setup.standin.conversations = vec![conversation];
        setup.clients = client("people", "kg_people").rate_limit("10/s").toml()
            + "oidc = { issuer = \"https://login.example.com\", audience = \"a\", jwks_url = \"http://127.0.0.1:9/jwks\" }\n";
    })
    .await;
    world.get(&path).await;
    let scrape = String::from_utf8(world.ops("/metrics").await.body.to_vec()).unwrap();
    // What is there with TLS only.
    let identity = Authority::new().issue();
    let with_tls = World::with(|setup| tls_listener::with_tls(setup, &identity, "")).await;
    let scrape_with_tls = String::from_utf8(with_tls.ops("/metrics").await.body.to_vec()).unwrap();
    let there: BTreeSet<&str> = scrape
        .lines()
        .chain(scrape_with_tls.lines())
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    for (file, text) in [("alerts", ALERTS), ("dashboard", DASHBOARD)] {
        let named = metrics_in(text);
        assert!(named.len() > 10, "{file}: {named:?}");
        for metric in named {
            assert!(there.contains(metric), "{file} names {metric}, which is in no scrape\n{scrape}");
        }
    }
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let alerts: BTreeSet<&str> =
        ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let runbooks: BTreeSet<&str> = OPERATIONS
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .filter(|line| line.starts_with("Kore"))
        .collect();
    assert_eq!(alerts, runbooks);
    for alert in alerts {
        let link = format!("runbook: docs/OPERATIONS.md#{}", alert.to_ascii_lowercase());
        assert!(ALERTS.contains(&link), "{link}");
    }
}
