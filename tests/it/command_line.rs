//! The program as an operator runs it: exit codes, what it prints, signals.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::SystemTime;

use http::Method;
use kore_gateway::access::identify::key_digest;

use crate::process::{MINIMAL, as_nobody, with_key};
use crate::tls_listener::{self, Authority};
use crate::world::{DAY, REPORTING, World, got};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kore-gateway"))
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, name: &str) {
        // The shell's own: a minimal system has no other.
        let status = Command::new("bash").args(["-c", &format!("kill -{name} {}", self.0.id())]).status();
        assert!(status.unwrap().success());
    }
}

fn config_file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, with_key(text)).unwrap();
    let path = file.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn check_prints_what_is_in_effect_and_no_secret() {
    let (_folder, file) = config_file(MINIMAL);
    let output = program()
        .args(["check", "--config", &file])
        .env("TEST_SECRET", "hunter2-canary")
        .env("KORE_GATEWAY__CACHE__CAPACITY", "64MiB")
        .output()
        .unwrap();
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(printed.contains("capacity = \"64MiB\""), "{printed}");
    assert!(printed.contains("TEST_SECRET") && !printed.contains("hunter2"), "{printed}");
    assert!(!printed.contains(&hex::encode(key_digest(b"kg_x"))), "{printed}");
    // It is a configuration itself, but for what was cut short.
    assert!(printed.parse::<toml::Table>().is_ok());
}

#[test]
fn check_and_serve_print_every_fault_on_a_line_and_exit_1() {
    let (_folder, file) =
        config_file(&MINIMAL.replace("id = \"a1\"", "id = 5").replace("\"conversation\"", "\"x\""));
    for command in ["check", "serve"] {
        let output = run(&[command, "--config", &file]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let printed = text(&output.stderr);
        for path in ["accounts[0].id: ", "accounts[0].credentials[0].client_secret: ", "clients[0].routes: "]
        {
            assert!(printed.lines().any(|line| line.starts_with(path)), "{command}: no {path} in {printed}");
        }
    }
}

#[test]
fn bad_usage_exits_2() {
    for arguments in [&["serve", "--colour"][..], &["dance"], &[], &["demo", "--port", "99999"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn key_prints_a_new_key_each_time_and_a_block_that_fits_it() {
    let keys: Vec<String> = (0..2)
        .map(|_| {
            let printed = text(&run(&["key", "report \"ing\""]).stdout);
            let key = printed.lines().find_map(|line| line.strip_prefix("# kg_")).unwrap();
            let digest = hex::encode(key_digest(format!("kg_{key}").as_bytes()));
            let block: toml::Table = printed.parse().unwrap();
            assert_eq!(block["clients"][0]["api_key_sha256"].as_str(), Some(digest.as_str()));
            assert_eq!(block["clients"][0]["name"].as_str(), Some("report \"ing\""));
            key.to_owned()
        })
        .collect();
    assert_ne!(keys[0], keys[1]);
    assert_eq!(keys[0].len(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_exits_0_when_ready_and_1_when_not() {
    let mut world = World::new().await;
    let url = format!("http://{}", world.ops);
    let check =
        |url: String| tokio::task::spawn_blocking(move || run(&["healthcheck", "--url", &url]).status.code());
    assert_eq!(check(url.clone()).await.unwrap(), Some(0));
    assert_eq!(check(format!("{url}/")).await.unwrap(), Some(0));
    world.stop();
    (&mut world.running).await.unwrap();
    assert_eq!(check(url).await.unwrap(), Some(1));
}

#[test]
fn serve_logs_one_json_line_a_request_and_stops_on_sigterm() {
    let (_folder, file) = config_file(MINIMAL);
    let mut child = program()
        .args(["serve", "--config", &file])
        .env("TEST_SECRET", "hunter2-canary")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut running = Running(child);
    let serving: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let address = serving["listen"].as_str().unwrap().to_owned();
    let ask = move |key: &str| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let request = format!(
            "GET /agentassist/api/v1/public/st-1/conversations/c-1?x=canary-query HTTP/1.1\r\nHost: x\r\n\
             Authorization: Bearer {key}\r\nX-Request-Id: r-1\r\nConnection: close\r\n\r\n"
        );
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    // Nobody listens behind it.
    assert!(ask("kg_x").starts_with("HTTP/1.1 502"));
    let line = lines.next().unwrap().unwrap();
    for canary in ["kg_x", "canary-query", "hunter2", "c-1"] {
        assert!(!line.contains(canary), "{line}");
    }
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["request_id"], "r-1");
    assert_eq!((&line["route"], &line["client"]), (&"conversation".into(), &"reporting".into()));
    assert_eq!((&line["status"], &line["error"]), (&502.into(), &"upstream-unreachable".into()));
    assert!(line["duration_ms"].as_f64().is_some());
    assert!(ask("kg_y").starts_with("HTTP/1.1 401"));
    let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(line["error"], "unauthenticated");

    running.signal("TERM");
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

/// Pastes what the demo prints, line by line, and looks at what each line says it shows.
#[test]
fn the_lines_that_demo_prints_show_what_they_say() {
    let mut child = program().args(["demo", "--port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let (send, receive) = mpsc::channel();
    let printed = BufReader::new(child.stdout.take().unwrap()).lines();
    std::thread::spawn(move || printed.map_while(Result::ok).try_for_each(|line| send.send(line)));
    let running = Running(child);
    let mut shown: Vec<(String, String)> = Vec::new();
    let mut title = String::new();
    for line in &receive {
        if let Some(words) = line.strip_prefix("# ") {
            words.clone_into(&mut title);
        } else if line.starts_with("curl ") {
            let output = Command::new("bash").args(["-c", &line]).output().unwrap();
            shown.push((title.clone(), text(&output.stdout)));
            if title == "the metrics" {
                break;
            }
        }
    }
    let of = |words: &str| {
        let found = shown.iter().find(|(title, _)| title.contains(words));
        found.map(|(_, output)| output.as_str()).unwrap_or_else(|| panic!("no {words} in {shown:?}"))
    };
    assert!(of("a miss").contains("cache-status: kore-gateway; fwd=uri-miss; fwd-status=200; stored"));
    assert!(of("is a hit").contains("cache-status: kore-gateway; hit; ttl="));
    assert!(of("a 304").starts_with("HTTP/1.1 304"));
    assert!(of("a live conversation").contains("stored=?0; detail=live"));
    assert!(of("the transcript").contains("fwd-status=200; stored"));
    assert!(of("of a week").starts_with(r#"{"numResults":5,"#));
    assert!(of("a refused range").contains("at most seven days"));
    assert!(of("a 403").contains(r#""status":403"#));
    assert!(
        of("the metrics")
            .contains(r#"kore_gateway_cache_requests_total{route="conversation",outcome="hit"}"#)
    );
    drop(running);
}

#[tokio::test]
async fn an_unknown_key_costs_the_upstream_nothing() {
    let world = World::new().await;
    got(world.request(Method::GET, "/agentassist/api/v1/public/st-1/conversations/c-1", "kg_none")).await;
    got(world.request(Method::GET, "/", REPORTING)).await;
    assert_eq!(world.standin.count(), 0);
}

/// What was to be written and was not is a failure, and no panic.
#[test]
fn output_that_cannot_be_written_is_a_failure_with_its_reason() {
    let (_folder, file) = config_file(MINIMAL);
    let commands: [&[&str]; 6] = [
        &["key"],
        &["check", "--config", &file],
        &["openapi"],
        &["demo", "--port", "0"],
        &["--help"],
        &["--version"],
    ];
    for command in commands {
        for (closed, reason) in [(true, "Broken pipe"), (false, "No space left on device")] {
            let stdout = if closed {
                let (reader, writer) = std::io::pipe().unwrap();
                drop(reader);
                Stdio::from(writer)
            } else {
                Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
            };
            let child =
                program().args(command).env("TEST_SECRET", "x").stdout(stdout).stderr(Stdio::piped()).spawn();
            let output = child.unwrap().wait_with_output().unwrap();
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
            assert!(said.contains(reason) && !said.contains("panicked"), "{command:?}: {said}");
        }
    }
}

#[test]
fn healthcheck_says_in_words_why_a_gateway_is_not_ready() {
    let answering = |answer: &'static str| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
        });
        address
    };
    let draining = answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\ndraining");
    let plain = answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, reason) in [
        (format!("http://{nobody}"), "Connection refused"),
        ("http://no-such-host.invalid:9090".to_owned(), "lookup"),
        ("127.0.0.1:9090".to_owned(), "http://127.0.0.1:9090"),
        ("localhost:9090".to_owned(), "neither http:// nor https://"),
        (format!("https://{plain}"), "InvalidContentType"),
        (format!("http://{draining}"), "503 Service Unavailable: draining"),
    ] {
        let output = run(&["healthcheck", "--url", &url]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{url}: {said}");
        assert!(said.contains(reason), "{url}: {said}");
    }
}

/// The process's memory holds secrets. That nobody else of its user looks into it either is tested beside
/// the code: root, as which tests may run, always may.
#[test]
fn a_gateway_that_serves_leaves_no_core_file() {
    let running = crate::process::Process::start(&[]);
    let of = |name: &str| format!("/proc/{}/{name}", running.id());
    let limits = std::fs::read_to_string(of("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    running.drain();
}

fn check_of(file: &str) -> Output {
    program().args(["check", "--config", file]).env("TEST_SECRET", "hunter2-canary").output().unwrap()
}

#[test]
fn check_refuses_files_that_serve_cannot_write() {
    let (folder, _) = config_file(MINIMAL);
    let missing = folder.path().join("missing/lines");
    for (key, path) in [("log.access_to", &missing), ("audit.to", &missing)] {
        let (_folder, file) = config_file(&format!("{key} = \"{}\"\n{MINIMAL}", path.display()));
        let serve = program()
            .args(["serve", "--config", &file])
            .env("TEST_SECRET", "hunter2-canary")
            .output()
            .unwrap();
        for (command, output) in [("serve", serve), ("check", check_of(&file))] {
            assert_eq!(output.status.code(), Some(1), "{command} {key}");
            let printed = text(&output.stderr);
            assert!(printed.starts_with(&format!("{key}: ")), "{command}: {printed}");
        }
    }
    // What `serve` would make, `check` does not.
    let file = folder.path().join("lines");
    let (_folder, configured) = config_file(&format!("audit.to = \"{}\"\n{MINIMAL}", file.display()));
    assert_eq!(check_of(&configured).status.code(), Some(0));
    assert!(!file.exists());
}

/// In a pipeline an expired certificate costs nobody anything; a gateway that must start again serves with it
/// whom it can.
#[test]
fn an_expired_certificate_is_a_fault_of_check_and_one_that_expires_soon_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = tls_listener::files(folder.path());
    let tls = format!("server.tls = {{ cert = \"{}\", key = \"{}\" }}\n", cert.display(), key.display());
    let (_folder, file) = config_file(&(tls + MINIMAL));
    let now = SystemTime::now();
    for (not_after, code, said) in [
        (now - DAY, 1, "server.tls.cert: has expired at 20"),
        (now + DAY * 13, 0, "warning: server.tls.cert: expires at 20"),
        (now + DAY * 15, 0, ""),
    ] {
        Authority::new().issue_until(not_after).write(folder.path());
        let output = check_of(&file);
        let printed = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}: {printed}");
        assert!(printed.starts_with(said) && printed.is_empty() == said.is_empty(), "{said}: {printed}");
    }
    Authority::new().issue_until(now - DAY).write(folder.path());
    let mut serve = program();
    serve.args(["serve", "--config", &file]).env("TEST_SECRET", "x").stdout(Stdio::piped());
    let mut serve = Running(serve.spawn().unwrap());
    let mut lines = BufReader::new(serve.0.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    let (warning, serving) = (line(), line());
    assert!(warning.contains("server.tls.cert: has expired") && serving.contains("\"serving\""), "{warning}");
}

/// A machine without certificates to trust: whatever is https cannot be spoken to.
#[test]
fn check_refuses_whatever_serve_would_for_want_of_certificates_to_trust() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("none.pem");
    std::fs::write(&nothing, "").unwrap();
    let https = MINIMAL.replace("http://127.0.0.1:9", "https://127.0.0.1:9");
    let tracing = format!("tracing.endpoint = \"https://127.0.0.1:9\"\n{MINIMAL}");
    let oidc = format!(
        "{MINIMAL}oidc = {{ issuer = \"i\", audience = \"a\", jwks_url = \"https://127.0.0.1:9/jwks\" }}\n"
    );
    let ended = |command: &str, file: &str| {
        let mut program = program();
        program.args([command, "--config", file]).env("TEST_SECRET", "hunter2-canary");
        // Should it serve, it would serve for ever.
        let program = program.env("SSL_CERT_FILE", &nothing).env("SSL_CERT_DIR", folder.path());
        let child = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut child = Running(child);
        let mut said = String::new();
        for _ in 0..600 {
            if child.0.try_wait().unwrap().is_some() {
                child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                return (child.0.wait().unwrap().code(), said);
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{command} goes on");
    };
    for (key, written) in [("upstream", &https), ("tracing.endpoint", &tracing), ("oidc", &oidc)] {
        let (_folder, file) = config_file(written);
        for command in ["serve", "check"] {
            let (code, said) = ended(command, &file);
            assert_eq!(code, Some(1), "{command} {key}: {said}");
            let expected = format!("{key}: cannot make https connections: ");
            assert!(said.starts_with(&expected) && said.lines().count() == 1, "{command}: {said}");
        }
    }
    let all = format!("tracing.endpoint = \"https://127.0.0.1:9\"\n{https}");
    let (_folder, file) = config_file(&all);
    let (code, said) = ended("check", &file);
    assert_eq!((code, said.lines().count()), (Some(1), 2), "{said}");
    // Of plain http nobody has to be trusted.
    let (_folder, file) = config_file(MINIMAL);
    assert_eq!(ended("check", &file), (Some(0), String::new()));
}

/// Also where it is made by nobody yet, and as a user who may not make it.
#[test]
fn check_refuses_a_folder_that_serve_may_not_write_to() {
    let (folder, _) = config_file(MINIMAL);
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    let lines = folder.path().join("lines");
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, with_key(&format!("audit.to = \"{}\"\n{MINIMAL}", lines.display()))).unwrap();
    for command in ["serve", "check"] {
        let mut program = as_nobody(folder.path());
        program.args([command, "--config"]).arg(&file).env("TEST_SECRET", "hunter2-canary");
        open(folder.path(), 0o555);
        let output = program.output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(said.starts_with("audit.to: cannot be written: Permission denied"), "{command}: {said}");
        open(folder.path(), 0o755);
    }
}

#[test]
fn check_warns_of_what_only_looks_wrong() {
    let expired = "api_keys = [{ sha256 = \"@digest\", expires = \"2020-01-01T00:00:00Z\" }]";
    let path = MINIMAL.replacen("http://127.0.0.1:9", "http://127.0.0.1:9/some/path", 1);
    let cases = [
        ("clients[0].api_keys: ", MINIMAL.replace("api_key_sha256 = \"@digest\"", expired)),
        ("accounts[0].contact_center_url: ", path),
    ];
    for (warning, written) in cases {
        let (_folder, file) = config_file(&written);
        let output = check_of(&file);
        let printed = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{printed}");
        assert_eq!(printed.lines().count(), 1, "{printed}");
        assert!(printed.starts_with(&format!("warning: {warning}")), "{printed}");
    }
    let (_folder, file) = config_file(MINIMAL);
    assert_eq!(text(&check_of(&file).stderr), "");
}
