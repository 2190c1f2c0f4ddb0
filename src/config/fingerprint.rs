//! What was in a configuration's files when they were read: whether a reload would read anything new.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use toml::{Table, Value};

use super::{Config, Fault, Sources};

/// Files of a configuration, and what was in them when they were read.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Fingerprint(Vec<File>);

#[derive(Clone, PartialEq, Eq)]
struct File {
    path: PathBuf,
    /// A digest of what it held, or of why it could not be read: gone is another state than empty.
    state: [u8; 32],
    /// It is taken up without a reload.
    has_own_watch: bool,
}

/// Reads a configuration, and says what was in its files.
pub fn read(sources: &Sources) -> (Fingerprint, Result<(Table, Config), Vec<Fault>>) {
    let mut read = Fingerprint::default();
    let written = super::written(sources, &mut |path| read.read(path, false));
    let loaded = written.and_then(|written| {
        // Before they are read for what they hold: a change meanwhile is a change.
        named(&written.table, &mut |path, has_own_watch| drop(read.read(path, has_own_watch)));
        written.resolve()
    });
    (read, loaded)
}

impl Fingerprint {
    fn read(&mut self, path: &Path, has_own_watch: bool) -> io::Result<Vec<u8>> {
        let read = std::fs::read(path);
        let state = match &read {
            Ok(bytes) => digest::digest(&digest::SHA256, bytes),
            Err(error) => digest::digest(&digest::SHA256, error.to_string().as_bytes()),
        };
        let mut file = File { path: path.to_owned(), state: [0; 32], has_own_watch };
        file.state.copy_from_slice(state.as_ref());
        self.0.push(file);
        read
    }

    /// What is in these files now.
    pub fn again(&self) -> Self {
        let mut now = Self::default();
        for file in &self.0 {
            drop(now.read(&file.path, file.has_own_watch));
        }
        now
    }

    /// The configuration is in effect: what is taken up without a reload need not set one off. Until then
    /// it does, for it may be what was wrong.
    pub fn in_effect(mut self) -> Self {
        self.0.retain(|file| !file.has_own_watch);
        self
    }
}

/// The files that a configuration names, and whether each has a watch of its own: the upstream's secrets
/// (`upstream::token`) and the certificate shown to callers (`server::certificates`) have.
fn named(written: &Table, found: &mut dyn FnMut(&Path, bool)) {
    for (section, value) in written {
        walk(section, value, section == "accounts" || section == "server", found);
    }
}

fn walk(key: &str, value: &Value, has_own_watch: bool, found: &mut dyn FnMut(&Path, bool)) {
    match value {
        Value::Table(table) => {
            table.iter().for_each(|(key, value)| walk(key, value, has_own_watch, found));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(key, item, has_own_watch, found)),
        Value::String(path) if ["file", "ca_file", "client_ca", "cert", "key"].contains(&key) => {
            found(Path::new(path), has_own_watch);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_a_configuration_names_is_found() {
        let written = r#"
            server.tls = { cert = "/cert", key = "/key", client_ca = "/callers" }
            ops.token = { file = "/token" }
            upstream.ca_file = "/upstream"
            oidc.ca_file = "/oidc"
            tracing.ca_file = "/tracing"
            [[accounts]]
            [[accounts.credentials]]
            client_secret = { file = "/secret" }
        "#;
        let mut files = Vec::new();
        named(&written.parse().expect("TOML"), &mut |path, own| files.push((path.to_owned(), own)));
        files.sort();
        let expected = [
            ("/callers", true),
            ("/cert", true),
            ("/key", true),
            ("/oidc", false),
            ("/secret", true),
            ("/token", false),
            ("/tracing", false),
            ("/upstream", false),
        ];
        assert_eq!(files, expected.map(|(path, own)| (PathBuf::from(path), own)));
    }
}
