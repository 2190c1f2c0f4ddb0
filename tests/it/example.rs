//! What an operator begins with is right: the example and the README's few lines pass `check`, and a copy of the manual is
//! warned of.

use std::path::Path;
use std::process::{Command, Output};

use kore_gateway::access::identify::key_digest;

const EXAMPLE: &str = include_str!("../../config/example.toml");
const MANUAL: &str = include_str!("../../config/gateway.toml");
const DEPLOYED: &str = include_str!("../../deploy/gateway/gateway.toml");
const README: &str = include_str!("../../README.md");

/// The README's smallest configuration.
fn smallest() -> &'static str {
    let (_, rest) = README.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0
}

/// Asks `check` about a configuration. Its paths lie below `folder`.
fn check(folder: &Path, text: &str) -> Output {
    let file = folder.join("gateway.toml");
    std::fs::write(&file, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_kore-gateway"))
        .args(["check", "--config", file.to_str().unwrap()])
        .output()
        .unwrap()
}

fn printed(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// A configuration with the operator's own part done: paths in `folder`, secrets and certificate there, keys made.
fn completed(folder: &Path, text: &str) -> String {
    let certified = rcgen::generate_simple_self_signed(["gateway.example.com".to_owned()]).unwrap();
    for (name, content) in [
        ("tls.crt", certified.cert.pem()),
        ("tls.key", certified.signing_key.serialize_pem()),
        ("ops-token", "an-ops-token-of-a-test".to_owned()),
        ("kore", "a-secret-of-a-test".to_owned()),
    ] {
        std::fs::write(folder.join(name), content).unwrap();
    }
    let at = folder.display();
    let mut text = text.to_owned();
    for place in
        ["/etc/kore-gateway/secrets/", "/etc/kore-gateway/", "/var/log/kore-gateway/", "/run/secrets/"]
    {
        text = text.replace(place, &format!("{at}/"));
    }
    let with_keys = text.lines().enumerate().map(|(number, line)| {
        if line.starts_with("api_key_sha256 = ") {
            let digest = key_digest(format!("kg_{number}").as_bytes());
            format!("api_key_sha256 = \"{}\"\n", hex::encode(digest))
        } else {
            format!("{line}\n")
        }
    });
    with_keys.collect()
}

#[test]
fn the_example_passes_check_without_a_warning_once_its_files_and_keys_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let output = check(folder.path(), &completed(folder.path(), EXAMPLE));
    let (effective, told) = printed(&output);
    assert_eq!((output.status.code(), told.as_str()), (Some(0), ""), "{effective}");
    for part in ["[server.tls]", "reporting", "nightly-export", "agent-desk", "no-contact-data", "50/min"] {
        assert!(effective.contains(part), "no {part} in {effective}");
    }
}

#[test]
fn the_example_as_it_is_lacks_what_only_its_operator_has_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere/").display().to_string();
    let text = EXAMPLE.replace("/etc/kore-gateway/", &nowhere).replace("/var/log/", &nowhere);
    let output = check(folder.path(), &text);
    let (_, told) = printed(&output);
    let mut faulty: Vec<_> = told.lines().map(|line| line.split(": ").next().unwrap()).collect();
    faulty.sort_unstable();
    let lacking = [
        "accounts[0].credentials[0].client_secret",
        "clients[0].api_key_sha256",
        "clients[1].api_key_sha256",
        "ops.token",
        "server.tls.cert",
    ];
    assert_eq!((output.status.code(), faulty.as_slice()), (Some(1), &lacking[..]), "{told}");
}

#[test]
fn the_readmes_smallest_configuration_and_the_compose_files_are_enough() {
    for text in [smallest(), DEPLOYED] {
        let folder = tempfile::tempdir().unwrap();
        let output = check(folder.path(), &completed(folder.path(), text));
        let (_, told) = printed(&output);
        assert_eq!((output.status.code(), told.as_str()), (Some(0), ""), "{text}");
    }
}

#[test]
fn a_copy_of_the_manual_is_warned_of_and_works() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{MANUAL}\n{}", completed(folder.path(), smallest()));
    let output = check(folder.path(), &text);
    let (_, told) = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let file = folder.path().join("gateway.toml").display().to_string();
    assert!(told.starts_with(&format!("warning: {file}: sets ")) && told.lines().count() == 1, "{told}");
    assert!(told.contains("127.0.0.1:8080 is reached from this machine or container alone"), "{told}");
}
