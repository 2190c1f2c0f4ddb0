//! docs/REFERENCE.md says what the code does: each of its tables has all that there is, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use kore_gateway::cache::{Reason, StaleReason};
use kore_gateway::error::Kind;
use kore_standin::{Conversation, EXAMPLE_STREAM};

use crate::world::{DAY, World, before, change_config, client, conversation_path, reload, with_ops_token};

const REFERENCE: &str = include_str!("../../docs/REFERENCE.md");
const CAUSES: &str = include_str!("../../src/error/cause.rs");
const REASONS: &str = include_str!("../../src/access/oidc/reason.rs");

/// The rows of the table whose head begins with these names of columns.
fn rows(head: &str) -> Vec<Vec<&'static str>> {
    let begins = format!("| {head} |");
    let table = REFERENCE.lines().skip_while(move |line| !line.starts_with(&begins));
    let rows: Vec<_> =
        table.skip(2).map_while(|line| line.strip_prefix('|')?.strip_suffix('|')).map(cells).collect();
    assert!(rows.len() > 1, "no table {head}");
    rows
}

fn cells(row: &'static str) -> Vec<&'static str> {
    row.split('|').map(str::trim).collect()
}

/// What a cell has between backticks.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn name(cell: &str) -> &str {
    names(cell).next().unwrap_or(cell)
}

/// The words of the first column. None stands there twice.
fn first_column(head: &str) -> BTreeSet<&'static str> {
    let rows = rows(head);
    let words: BTreeSet<_> = rows.iter().map(|row| name(row[0])).collect();
    assert_eq!(words.len(), rows.len(), "{head}: one stands there twice");
    words
}

#[test]
fn every_kind_of_error_is_told_with_its_status() {
    let told: BTreeSet<_> = rows("kind").iter().map(|row| (name(row[0]), row[1].to_owned())).collect();
    let there = Kind::ALL.map(|kind| (kind.as_str(), kind.status().as_str().to_owned()));
    assert_eq!(told, BTreeSet::from(there));
}

#[test]
fn every_detail_of_cache_status_is_told() {
    let stale = StaleReason::ALL.map(StaleReason::as_str);
    let not_stored = Reason::ALL.map(Reason::as_str);
    assert_eq!(first_column("detail"), stale.into_iter().chain(not_stored).collect());
}

#[test]
fn every_cause_of_an_access_line_is_told() {
    let word =
        |line: &'static str| line.trim().strip_suffix("\",")?.split_once("=> \"").map(|(_, word)| word);
    let causes = CAUSES.lines().filter_map(word);
    let tokens = REASONS.lines().filter_map(word).filter(|word| word.starts_with("token-"));
    assert_eq!(first_column("cause"), causes.chain(tokens).collect());
}

#[test]
fn the_lists_that_the_tables_are_held_to_are_whole() {
    assert!(Reason::ALL.iter().enumerate().all(|(place, reason)| *reason as usize == place));
    assert_eq!(Reason::ALL.len(), Reason::NoStore as usize + 1, "the last one in the enum");
    assert!(StaleReason::ALL.iter().enumerate().all(|(place, reason)| *reason as usize == place));
    assert_eq!(StaleReason::ALL.len(), StaleReason::Error as usize + 1, "the last one in the enum");
}

/// A world in which every family of metrics has a series.
async fn counted() -> World {
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        with_ops_token(setup);
        setup.standin.conversations = vec![conversation];
        setup.clients = client("people", "kg_people").rate_limit("10/s").toml()
            + "oidc = { issuer = \"https://login.example.com\", audience = \"a\", jwks_url = \"http://127.0.0.1:9/jwks\" }\n";
        let audit = setup.secrets.path().join("audit.jsonl");
        setup.config.push_str(&format!("audit.to = {audit:?}\ntracing.endpoint = \"http://127.0.0.1:9\"\n"));
    })
    .await;
    assert_eq!(world.get(&path).await.status, 200);
    assert_eq!(world.get("/nowhere").await.status, 404);
    // With TLS callers would have to trust the certificate, so it comes last.
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (world.secrets.path().join("tls.crt"), world.secrets.path().join("tls.key"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    change_config(&world, |written| format!("server.tls = {{ cert = {cert:?}, key = {key:?} }}\n{written}"));
    assert_eq!(reload(&world).await.status, 200);
    world
}

#[tokio::test]
async fn every_metric_is_told_with_its_type_and_its_labels() {
    let scrape = String::from_utf8(counted().await.ops("/metrics").await.body.to_vec()).unwrap();
    let there: BTreeSet<_> = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name, kind, labels(&scrape, name)))
        .collect();
    let rows = rows("metric");
    let told: BTreeSet<_> =
        rows.iter().map(|row| (name(row[0]), row[1], names(row[2]).collect::<BTreeSet<_>>())).collect();
    let differing: Vec<_> = told.symmetric_difference(&there).collect();
    assert!(differing.is_empty(), "{differing:?}");
    assert_eq!(told.len(), rows.len(), "one stands there twice");
}

/// The labels of a metric's series, but for the bounds of a histogram's buckets. All have the same.
fn labels<'a>(scrape: &'a str, metric: &str) -> BTreeSet<&'a str> {
    let series = scrape.lines().filter_map(|line| line.strip_prefix(metric));
    let of_metric = series
        .filter(|rest| ["{", " ", "_bucket", "_count", "_sum"].iter().any(|next| rest.starts_with(next)));
    let sets: BTreeMap<BTreeSet<&str>, &str> = of_metric
        .map(|rest| {
            let inside = rest.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
            let labels = inside.map_or("", |(inside, _)| inside).split(',');
            (
                labels
                    .filter_map(|label| Some(label.split_once("=\"")?.0))
                    .filter(|name| *name != "le")
                    .collect(),
                rest,
            )
        })
        .collect();
    assert_eq!(sets.len(), 1, "{metric}: {sets:?}");
    sets.into_keys().next().unwrap_or_default()
}

#[tokio::test]
async fn every_reason_to_end_a_connection_is_told() {
    let scrape = String::from_utf8(World::new().await.ops("/metrics").await.body.to_vec()).unwrap();
    let series = scrape.lines().filter(|line| line.starts_with("kore_gateway_connections_ended_total{"));
    let reasons = series.filter_map(|line| line.split_once("reason=\"")?.1.split('"').next());
    assert_eq!(first_column("reason"), reasons.collect());
}

#[test]
fn every_exit_code_is_told() {
    let ended = |arguments: &[&str]| {
        let status =
            Command::new(env!("CARGO_BIN_EXE_kore-gateway")).args(arguments).output().unwrap().status;
        status.code().unwrap().to_string()
    };
    let there = [ended(&["--version"]), ended(&["check"]), ended(&["dance"])];
    assert_eq!(rows("code").iter().map(|row| row[0].to_owned()).collect::<Vec<_>>(), there);
}

/// Variables that are read by name, in the gateway's sources and in those of its libraries that it relies on.
#[test]
fn every_environment_variable_is_told() {
    let told: Vec<_> = rows("variable").iter().flat_map(|row| names(row[0])).collect();
    for (file, source) in sources() {
        let words = source.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        let variables = words.filter(|word| {
            ["OTEL_", "LISTEN_FDS", "KORE_GATEWAY_"].iter().any(|ours| word.starts_with(ours))
                && !word.starts_with("KORE_GATEWAY__")
        });
        for variable in variables {
            assert!(told.contains(&variable), "{file}: {variable} is not told");
        }
    }
}

/// The gateway's own sources, without the tests in them.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
                found.push((path.display().to_string(), code));
            }
        }
    }
    assert!(found.len() > 100);
    found
}
