//! What is handed out to run it with: the image, the compose file, the unit.

use std::collections::BTreeMap;
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::process::{MINIMAL, as_nobody, with_key};

const UNIT: &str = include_str!("../../deploy/kore-gateway.service");
const COMPOSE: &str = include_str!("../../deploy/compose.yaml");
const PROMETHEUS: &str = include_str!("../../deploy/prometheus/prometheus.yml");
const DOCKERFILE: &str = include_str!("../../Dockerfile");

/// The pairs of one of the Dockerfile's instructions.
fn pairs(instruction: &str) -> BTreeMap<String, String> {
    let whole = DOCKERFILE.replace("\\\n", " ");
    let lines = whole.lines().filter_map(|line| line.strip_prefix(instruction));
    lines
        .flat_map(str::split_whitespace)
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn unit_and_compose_file_agree_with_the_image() {
    assert!(DOCKERFILE.contains("ENTRYPOINT [\"/usr/local/bin/kore-gateway\"]"));
    assert!(
        UNIT.contains("ExecStart=/usr/local/bin/kore-gateway serve --config /etc/kore-gateway/gateway.toml")
    );
    assert!(DOCKERFILE.contains("CMD [\"serve\", \"--config\", \"/etc/kore-gateway/gateway.toml\"]"));
    assert!(COMPOSE.contains("./gateway:/etc/kore-gateway:ro"));
    assert!(DOCKERFILE.contains("EXPOSE 8080") && COMPOSE.contains("127.0.0.1:8080:8080"));
    // The name by which Prometheus asks is one that the gateway knows.
    assert!(PROMETHEUS.contains("\"gateway:9090\""));
    assert!(COMPOSE.contains("KORE_GATEWAY__OPS__HOSTS: '[\"gateway\"]'"));
}

#[test]
fn the_label_of_the_image_has_the_version() {
    let labels = pairs("LABEL ");
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(labels["org.opencontainers.image.revision"], "$COMMIT");
}

/// A file that says `127.0.0.1`, as a copy of the manual does, would hide the gateway in its container.
#[test]
fn in_the_image_no_file_decides_where_it_listens() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, with_key(MINIMAL)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kore-gateway"))
        .args(["check", "--config"])
        .arg(&file)
        .env("TEST_SECRET", "a-secret-of-a-test")
        .envs(pairs("ENV "))
        .env("KORE_GATEWAY__OPS__HOSTS", "[\"gateway\"]")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let effective: toml::Table = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    assert_eq!(effective["server"]["listen"].as_str(), Some("0.0.0.0:8080"));
    assert_eq!(effective["ops"]["listen"].as_str(), Some("0.0.0.0:9090"));
    assert_eq!(effective["ops"]["hosts"][0].as_str(), Some("gateway"));
}

#[test]
fn whoever_may_not_read_a_secret_is_told_who_runs_and_whose_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open(folder.path(), 0o755);
    let secrets = folder.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    let secret = secrets.join("kore");
    std::fs::write(&secret, "hunter2-canary").unwrap();
    let file = folder.path().join("gateway.toml");
    let place = format!("{{ file = \"{}\" }}", secret.display());
    std::fs::write(&file, with_key(&MINIMAL.replace("{ env = \"TEST_SECRET\" }", &place))).unwrap();

    let check = || as_nobody(folder.path()).args(["check", "--config"]).arg(&file).output().unwrap();
    let owner = rustix::process::geteuid().as_raw();
    let runs = if owner == 0 { 65534 } else { owner };
    for (path, mode, verb) in [(&secret, 0o000, "read"), (&secrets, 0o600, "enter")] {
        open(path, mode);
        let output = check();
        let said = said(&output);
        let at = path.display();
        let told = format!(
            "this process is user {runs} and may not {verb} {at}, which belongs to user {owner} with mode {mode:04o}: \
             chown {runs} {at}"
        );
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&told) && said.lines().count() == 1, "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        open(path, 0o755);
    }
    assert_eq!(check().status.code(), Some(0));
}
