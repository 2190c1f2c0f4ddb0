//! What was in a configuration's files when they were read: whether a reload would read anything new. Reads nothing
//! itself.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use toml::{Table, Value};

/// The keys whose values are files that are read.
const FILES: [&str; 5] = ["file", "ca_file", "client_ca", "cert", "key"];

/// Files of a configuration, and what was in them when they were read.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Fingerprint(Vec<File>);

#[derive(Clone, PartialEq, Eq)]
struct File {
    named: Named,
    /// A digest of what it held, or of why it could not be read: gone is another state than empty.
    state: [u8; 32],
}

/// A file that a configuration names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Named {
    pub path: PathBuf,
    /// It is taken up without a reload.
    pub has_own_watch: bool,
}

impl Fingerprint {
    /// Notes what reading a file came to.
    pub fn note(&mut self, named: Named, read: &io::Result<Vec<u8>>) {
        let state = match read {
            Ok(bytes) => digest::digest(&digest::SHA256, bytes),
            Err(error) => digest::digest(&digest::SHA256, error.to_string().as_bytes()),
        };
        let mut file = File { named, state: [0; 32] };
        file.state.copy_from_slice(state.as_ref());
        self.0.push(file);
    }

    /// What is in these files now, as `read` reads them.
    pub fn again(&self, mut read: impl FnMut(&Path) -> io::Result<Vec<u8>>) -> Self {
        let mut now = Self::default();
        for File { named, .. } in &self.0 {
            now.note(named.clone(), &read(&named.path));
        }
        now
    }

    /// The configuration is in effect: what is taken up without a reload need not set one off. Until then
    /// it does, for it may be what was wrong.
    pub fn in_effect(mut self) -> Self {
        self.0.retain(|file| !file.named.has_own_watch);
        self
    }
}

/// The files that a configuration names. The upstream's secrets (`upstream::token`) and the certificate shown to
/// callers (`server::certificates`) have a watch of their own.
pub fn named(written: &Table) -> Vec<Named> {
    let mut found = Vec::new();
    for (section, value) in written {
        walk(section, value, section == "accounts" || section == "server", &mut found);
    }
    found
}

fn walk(key: &str, value: &Value, has_own_watch: bool, found: &mut Vec<Named>) {
    match value {
        Value::Table(table) => {
            table.iter().for_each(|(key, value)| walk(key, value, has_own_watch, found));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(key, item, has_own_watch, found)),
        Value::String(path) if FILES.contains(&key) => {
            found.push(Named { path: path.into(), has_own_watch });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::DEFAULTS;
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
        let mut files = named(&written.parse().expect("TOML"));
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
        assert_eq!(files, expected.map(|(path, own)| Named { path: path.into(), has_own_watch: own }));
    }

    /// The manual shows every key. A path in it is a file that is read, one that is written, or a JSON pointer.
    #[test]
    fn every_path_in_the_manual_is_of_a_known_kind() {
        let others = ["access_to", "to", "remove", "mask", "show", "text"];
        let mut found = 0;
        for line in DEFAULTS.lines() {
            for (at, _) in line.match_indices("= \"/").chain(line.match_indices("= [\"/")) {
                let key = line[..at].trim_end().rsplit([' ', '{', '.']).next().unwrap_or_default();
                assert!(FILES.contains(&key) || others.contains(&key), "{key:?} in {line}");
                found += 1;
            }
        }
        assert!(found > 8, "{found}");
    }

    #[test]
    fn a_file_that_is_gone_is_another_than_an_empty_one_and_what_has_its_own_watch_counts_until_it_is_in_effect()
     {
        let gone = || io::Result::<Vec<u8>>::Err(io::ErrorKind::NotFound.into());
        let file = |path: &str, has_own_watch| Named { path: path.into(), has_own_watch };
        let mut before = Fingerprint::default();
        before.note(file("/a", false), &Ok(Vec::new()));
        before.note(file("/secret", true), &Ok(b"old".to_vec()));
        let now = |a: fn() -> io::Result<Vec<u8>>, secret: &str| {
            before.again(|path| if path == Path::new("/a") { a() } else { Ok(secret.as_bytes().to_vec()) })
        };
        let empty = || Ok(Vec::new());
        assert!(now(empty, "old") == before);
        assert!(now(gone, "old") != before);
        assert!(now(empty, "new") != before);
        assert!(now(empty, "new").in_effect() == before.clone().in_effect());
        assert!(now(gone, "old").in_effect() != before.clone().in_effect());
    }
}
