//! A good configuration is swapped whole while requests go on; a bad one is refused with all its
//! faults, and the old one stays.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use kore_gateway::access::identify::key_digest;
use kore_gateway::app::triggers::on_changed_files;
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_CLIENT_ID, EXAMPLE_STREAM};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::OpenOptions;
use tokio::time::timeout;

use crate::process::Process;
use crate::world::{
    DAY, Got, OPS_TOKEN, REPORTING, World, admin, before, change_config, client, conversation_path, got,
    reload, with_ops_token,
};

/// As config/gateway.toml has it.
const CHECK_FILES_EVERY: Duration = Duration::from_secs(2);
const NOBODY_READS: &str = "cannot be written: it is a pipe that nobody reads";

async fn world() -> World {
    World::with(|setup| {
        with_ops_token(setup);
        setup.standin.conversations = vec![Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY))];
    })
    .await
}

#[tokio::test]
async fn a_client_comes_and_goes_by_reload_also_for_hits() {
    let world = world().await;
    let path = conversation_path(&Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).conversation_id);
    let status = async |key: &str| got(world.request(Method::GET, &path, key)).await.status;
    assert_eq!(status(REPORTING).await, StatusCode::OK);
    assert_eq!(status("kg_new").await, StatusCode::UNAUTHORIZED);

    change_config(&world, |written| {
        written.replace("name = \"reporting\"", "name = \"renamed\"")
            + &client("new", "kg_new").rate_limit("10/s").toml()
    });
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    assert_eq!(status("kg_new").await, StatusCode::OK);

    change_config(&world, |written| {
        written.split("\n[[clients]]\nname = \"new\"").next().unwrap().to_owned()
    });
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    assert_eq!(status("kg_new").await, StatusCode::UNAUTHORIZED);
    assert_eq!(world.standin.count(), 1, "the store outlives a reload");
    assert_eq!(world.metric(r#"kore_gateway_config_reloads_total{result="success"}"#).await, 3.0);
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_its_faults_and_the_old_one_stays() {
    let world = world().await;
    change_config(&world, |written| {
        written.replace("listen = \"127.0.0.1:0\"", "listen = 5") + "\n[cache]\nx = 1\n"
    });
    let refused = reload(&world).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    let faults = refused.json()["errors"].as_array().unwrap().clone();
    let paths: Vec<_> = faults.iter().map(|fault| fault["path"].as_str().unwrap()).collect();
    for path in ["server.listen", "ops.listen", "cache.x"] {
        assert!(paths.contains(&path), "{paths:?}");
    }
    assert_eq!(got(world.request(Method::GET, &conversation_path("c-2"), REPORTING)).await.status, 404);
    assert_eq!(world.metric(r#"kore_gateway_config_reloads_total{result="failure"}"#).await, 1.0);
}

#[tokio::test]
async fn what_only_a_restart_can_change_is_said_so() {
    let world = world().await;
    change_config(&world, |written| written + "\n[cache]\ncapacity = \"1MiB\"\n");
    let refused = reload(&world).await;
    assert_eq!(refused.json()["errors"][0]["path"], "cache.capacity");
    assert!(refused.json()["errors"][0]["msg"].as_str().unwrap().contains("restart"));
}

/// A pipe in `folder`.
fn pipe(folder: &TempDir, name: &str) -> PathBuf {
    let pipe = folder.path().join(name);
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    pipe
}

/// A reload, which waits for nobody.
async fn reload_in_time(world: &World) -> Got {
    timeout(Duration::from_secs(10), reload(world)).await.expect("a reload waits for no pipe")
}

/// To open such a pipe is to wait for its reader.
#[tokio::test]
async fn a_pipe_that_nobody_reads_is_a_fault_and_holds_up_no_reload() {
    let folder = tempfile::tempdir().unwrap();
    for key in ["log.access_to", "audit.to"] {
        // Each world has its own pipe. An earlier world may still hold its pipe open, and a reader would see the end
        // of that writer.
        let pipe = pipe(&folder, key);
        let world = world().await;
        change_config(&world, |written| {
            assert!(!written.contains(key));
            format!("{key} = \"{}\"\n", pipe.display())
                + &written.replace("log.access = false", "log.access = true")
        });
        let refused = reload_in_time(&world).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        let fault = &refused.json()["errors"][0];
        assert_eq!((&fault["path"], &fault["msg"]), (&key.into(), &NOBODY_READS.into()));

        // The reader is there at once, and before there is a writer.
        let mut reader = BufReader::new(OpenOptions::new().open_receiver(&pipe).unwrap());
        assert_eq!(reload_in_time(&world).await.status, StatusCode::OK);
        let asked = got(world.request(Method::GET, &conversation_path("c-1"), REPORTING)).await;
        assert_eq!(asked.status, 404);
        let mut line = String::new();
        let read = timeout(Duration::from_secs(10), reader.read_line(&mut line)).await;
        read.expect("the line is written").unwrap();
        assert!(line.contains("request_id"), "{line}");
    }
}

/// To open such a pipe is to wait for its writer.
#[tokio::test]
async fn a_pipe_in_place_of_a_file_is_a_fault_and_holds_up_no_reload() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = pipe(&folder, "pipe");
    let path = pipe.display().to_string();
    let world = world().await;
    let written = std::fs::read_to_string(&world.config_file).unwrap();
    let secret = format!("client_secret = {{ file = \"{path}\" }} #");
    for (key, changed) in [
        ("upstream.ca_file", format!("upstream.ca_file = \"{path}\"\n{written}")),
        ("server.tls.cert", format!("server.tls = {{ cert = \"{path}\", key = \"{path}\" }}\n{written}")),
        ("accounts[0].credentials[0].client_secret", written.replacen("client_secret = ", &secret, 1)),
    ] {
        change_config(&world, |_| changed);
        let refused = reload_in_time(&world).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{key}");
        let fault = &refused.json()["errors"][0];
        assert_eq!(fault["path"], key);
        assert!(fault["msg"].as_str().unwrap().contains("it is a pipe"), "{fault}");
    }
    std::fs::rename(pipe, &world.config_file).unwrap();
    let refused = reload_in_time(&world).await;
    assert!(refused.json()["errors"][0]["msg"].as_str().unwrap().contains("it is a pipe"));
}

#[tokio::test]
async fn admin_asks_for_the_ops_token_and_shows_no_secret() {
    let world = world().await;
    for token in ["", "ops-token-canarz", "ops-token-canary2"] {
        let answer = got(admin(&world, Method::GET, "/admin/config", token)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{token}");
    }
    let shown = got(admin(&world, Method::GET, "/admin/config", OPS_TOKEN)).await;
    let shown = String::from_utf8(shown.body.to_vec()).unwrap();
    assert!(shown.contains(EXAMPLE_ACCOUNT));
    for canary in [OPS_TOKEN, kore_standin::example_secret(), REPORTING] {
        assert!(!shown.contains(canary));
    }
}

#[tokio::test]
async fn changed_files_are_taken_up_by_themselves_once_they_stay_the_same() {
    let world = world().await;
    let watching = tokio::spawn(on_changed_files(world.app.clone()));
    let reloads = async |result: &str| {
        world.metric(&format!(r#"kore_gateway_config_reloads_total{{result="{result}"}}"#)).await
    };
    // One look sees the change, the next one that it stays.
    let until = async |result: &str, count: f64| {
        world.have_looked(CHECK_FILES_EVERY, 2).await;
        assert_eq!(reloads(result).await, count, "{result}");
    };
    change_config(&world, |written| written + &client("new", "kg_new").rate_limit("10/s").toml());
    until("success", 2.0).await;
    let path = conversation_path("c-2");
    assert_eq!(got(world.request(Method::GET, &path, "kg_new")).await.status, StatusCode::NOT_FOUND);

    change_config(&world, |written| written + "[[[");
    until("failure", 1.0).await;
    assert_eq!(world.metric("kore_gateway_config_last_reload_successful").await, 0.0);
    assert_eq!(got(world.request(Method::GET, &path, "kg_new")).await.status, StatusCode::NOT_FOUND);

    // What was refused is not tried again until it changes, and a reload by hand is not repeated.
    world.have_looked(CHECK_FILES_EVERY, 10).await;
    assert_eq!(reloads("failure").await, 1.0);
    change_config(&world, |written| written.replace("[[[", ""));
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    world.have_looked(CHECK_FILES_EVERY, 10).await;
    assert_eq!(reloads("success").await, 3.0);
    assert_eq!(world.metric("kore_gateway_config_last_reload_successful").await, 1.0);
    watching.abort();
}

/// Reloads that are asked for at the same time, while the file changes: the newest file is in effect as soon
/// as the reload that was asked for after it was written is answered, and a key it takes out is nobody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_reloads_at_the_same_time_the_newest_file_stays_in_effect() {
    let world = Arc::new(world().await);
    let stop = Arc::new(AtomicBool::new(false));
    let others = (0..3).map(|_| {
        let (world, stop) = (world.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(reload(&world).await.status, StatusCode::OK);
            }
        })
    });
    let others: Vec<_> = others.collect();
    let good = std::fs::read_to_string(&world.config_file).unwrap();
    // Swapped, as whoever writes a configuration should.
    let written = world.config_file.with_extension("new");
    let path = conversation_path(&Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY)).conversation_id);
    for n in 0..60 {
        let client = client("changing", &format!("kg_{n}")).toml();
        std::fs::write(&written, format!("{good}{client}")).unwrap();
        std::fs::rename(&written, &world.config_file).unwrap();
        assert_eq!(reload(&world).await.status, StatusCode::OK);
        if n > 0 {
            let revoked = got(world.request(Method::GET, &path, &format!("kg_{}", n - 1))).await;
            assert_eq!(revoked.status, StatusCode::UNAUTHORIZED, "{n}");
        }
        assert_ne!(got(world.request(Method::GET, &path, &format!("kg_{n}"))).await.status, 401, "{n}");
    }
    stop.store(true, Ordering::SeqCst);
    for other in others {
        other.await.unwrap();
    }
}

/// Every file that a configuration names belongs to it, and is looked at from the reload on that names it.
#[tokio::test]
async fn files_that_the_configuration_names_are_taken_up_when_they_change_and_only_then() {
    let world = world().await;
    let watching = tokio::spawn(on_changed_files(world.app.clone()));
    let reloads = async || world.metric(r#"kore_gateway_config_reloads_total{result="success"}"#).await;
    let file = |name: &str| world.secrets.path().join(name);
    let mut count = 1.0;
    for (section, key) in [("oidc", "ca_file"), ("tracing", "ca_file"), ("upstream", "ca_file")] {
        let authority = file(&format!("{section}.pem"));
        std::fs::write(&authority, authority_pem()).unwrap();
        change_config(&world, |written| format!("{section}.{key} = \"{}\"\n{written}", authority.display()));
        assert_eq!(reload(&world).await.status, StatusCode::OK);
        count += 1.0;
        world.have_looked(CHECK_FILES_EVERY, 5).await;
        assert_eq!(reloads().await, count, "a reload that names another file is not made again: {section}");
        std::fs::write(&authority, authority_pem()).unwrap();
        count += 1.0;
        world.have_looked(CHECK_FILES_EVERY, 2).await;
        assert_eq!(reloads().await, count, "{section}.{key} has changed");
        world.have_looked(CHECK_FILES_EVERY, 5).await;
        assert_eq!(reloads().await, count, "once: {section}.{key}");
    }
    watching.abort();
}

fn authority_pem() -> String {
    rcgen::generate_simple_self_signed(["authority".to_owned()]).unwrap().cert.pem()
}

/// The signal itself, and nothing that looks at files: a whole configuration, or none of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_takes_up_what_is_good_on_sighup_and_refuses_what_is_not() {
    let start = || Process::start_with(&[("RELOAD__CHECK_FILES_EVERY", "0s")]);
    let running = tokio::task::spawn_blocking(start).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let status = async |key: &str| {
        let path = "/agentassist/api/v1/public/st-1/conversations/c-1";
        let request = http.get(format!("http://{}{path}", running.address)).header("x-api-key", key);
        // Nobody listens behind it.
        match got(request).await.status {
            StatusCode::UNAUTHORIZED => "unknown",
            StatusCode::BAD_GATEWAY => "known",
            other => panic!("{other}"),
        }
    };
    let metric = async |series: &str| {
        let scrape = got(http.get(format!("http://{}/metrics", running.ops))).await;
        let scrape = String::from_utf8(scrape.body.to_vec()).unwrap();
        let line = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in {scrape}")).parse::<f64>().unwrap()
    };
    let reloads = async |result: &str| {
        metric(&format!(r#"kore_gateway_config_reloads_total{{result="{result}"}}"#)).await
    };
    let taken_up_at = "kore_gateway_config_last_reload_success_timestamp_seconds";
    // The words of its log, until one line has these.
    let told = |words: &str| {
        let mut told = String::new();
        while !told.contains(words) {
            told += &running.log.recv_timeout(Duration::from_secs(60)).expect(words);
        }
        told
    };
    let written = std::fs::read_to_string(&running.config).unwrap();
    let digest = |key: &str| hex::encode(key_digest(key.as_bytes()));
    let other = written.replace(&digest("kg_x"), &digest("kg_y")).replace("\"reporting\"", "\"renamed\"");
    assert_eq!((status("kg_x").await, status("kg_y").await), ("known", "unknown"));

    std::fs::write(&running.config, &other).unwrap();
    running.signal("HUP");
    told("the configuration was reloaded");
    assert_eq!((status("kg_x").await, status("kg_y").await), ("unknown", "known"));
    assert_eq!((reloads("success").await, reloads("failure").await), (2.0, 0.0));
    let since = metric(taken_up_at).await;

    // What is good about it is not taken up either.
    let bad = written.replace("id = \"a1\"", "id = 5").replace("[\"analytics\"]", "[\"everything\"]");
    std::fs::write(&running.config, bad).unwrap();
    running.signal("HUP");
    let faults = told("accounts[0].credentials[0].scopes: ");
    assert!(faults.contains("accounts[0].id: "), "{faults}");
    assert!(!faults.contains("clients[0]"), "{faults}");
    assert_eq!((status("kg_x").await, status("kg_y").await), ("unknown", "known"));
    assert_eq!((reloads("success").await, reloads("failure").await), (2.0, 1.0));
    assert_eq!(metric("kore_gateway_config_last_reload_successful").await, 0.0);
    assert_eq!(metric(taken_up_at).await, since);

    std::fs::write(&running.config, &written).unwrap();
    running.signal("HUP");
    told("the configuration was reloaded");
    assert_eq!((status("kg_x").await, status("kg_y").await), ("known", "unknown"));
    assert_eq!(metric("kore_gateway_config_last_reload_successful").await, 1.0);
    tokio::task::spawn_blocking(|| running.drain()).await.unwrap();
}

#[tokio::test]
async fn what_a_reload_takes_away_is_no_longer_among_the_metrics() {
    let world = world().await;
    let scraped = async || String::from_utf8(world.ops("/metrics").await.body.to_vec()).unwrap();
    let account = r#"
[[accounts]]
id = "a-gone"
contact_center_url = "http://127.77.0.1:1"
automation_url = "http://127.77.0.1:2"
bots = ["st-00000000-0000-0000-0000-00000000dead"]
[[accounts.credentials]]
client_id = "cs-gone"
client_secret = { file = "@file" }
scopes = ["analytics", "chat_history"]
"#;
    let file = world.secrets.path().join(EXAMPLE_CLIENT_ID).display().to_string();
    let issuer = "oidc = { issuer = \"https://gone.example\", audience = \"gone\", \
                  jwks_url = \"http://127.77.0.1:3/gone\" }\n";
    let before_it = std::fs::read_to_string(&world.config_file).unwrap();
    change_config(&world, |written| {
        let with_key = client("gone", "kg_gone").account("a-gone").rate_limit("10/s").toml();
        let with_token = client("gone-token", "kg_none").account("a-gone").rate_limit("10/s").toml();
        let (head, rest) = with_token.split_once("api_key_sha256").unwrap();
        let with_token = format!("{head}{issuer}{}", rest.split_once('\n').unwrap().1);
        written + &account.replace("@file", &file) + &with_key + &with_token
    });
    let reloaded = reload(&world).await;
    assert_eq!(reloaded.status, StatusCode::OK, "{}", String::from_utf8_lossy(&reloaded.body));
    let there = scraped().await;
    let gone = [
        r#"quota_available{account="a-gone""#,
        r#"quota_waiting{account="a-gone""#,
        r#"credential="cs-gone""#,
        r#"issuer="https://gone.example""#,
        r#"upstream="http://127.77.0.1:1""#,
        r#"upstream="http://127.77.0.1:2""#,
        r#"client="gone""#,
    ];
    for series in gone {
        assert!(there.contains(series), "{series} is not in {there}");
    }

    std::fs::write(&world.config_file, before_it).unwrap();
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    let left = scraped().await;
    let left: Vec<_> = left.lines().filter(|line| line.contains("gone") || line.contains("127.77")).collect();
    assert!(left.is_empty(), "{left:#?}");
    for series in
        ["breaker_state{", "quota_available{", "token_expiry_timestamp_seconds{", "rate_limited_total{"]
    {
        assert!(there.contains(series) && scraped().await.contains(series), "the others stay: {series}");
    }
}
