//! The arrows between the parts point downwards only (docs/ARCHITECTURE.md).

use std::fs;
use std::path::{Path, PathBuf};

/// A part, and the parts it must not name.
const FORBIDDEN: [(&str, &[&str]); 15] = [
    ("access", &["cache", "upstream", "server", "cli", "app", "reply"]),
    ("cache", &["access", "upstream", "server", "cli", "app", "reply", "config"]),
    ("upstream", &["access", "cache", "server", "cli", "app", "reply"]),
    ("routes", &["access", "cache", "upstream", "server", "cli", "app", "reply", "config", "metrics"]),
    ("phase.rs", &["access", "cache", "upstream", "server", "cli", "app", "routes", "config"]),
    ("standing.rs", &["access", "cache", "upstream", "server", "cli", "app", "reply", "routes"]),
    ("seen.rs", &["access", "cache", "upstream", "server", "cli", "app", "routes", "config"]),
    ("audit.rs", &["access", "cache", "upstream", "server", "cli", "app", "reply", "routes"]),
    ("reply", &["access", "upstream", "server", "cli", "app"]),
    ("config", &["access", "cache", "upstream", "server", "cli", "app", "reply"]),
    ("error.rs", &["access", "cache", "upstream", "server", "cli", "app", "routes", "config"]),
    (
        "clock.rs",
        &["access", "cache", "upstream", "server", "cli", "app", "routes", "config", "standin", "error"],
    ),
    ("trace", &["access", "cache", "upstream", "server", "cli", "app", "reply", "routes"]),
    ("watch.rs", &["access", "cache", "upstream", "server", "cli", "reply", "routes"]),
    ("server", &["cli"]),
];

fn sources(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_dir() || path.extension().is_some_and(|end| end == "rs"))
        .flat_map(|path| sources(&path))
        .collect()
}

#[test]
fn no_part_names_what_is_above_or_beside_it() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (part, forbidden) in FORBIDDEN {
        let files = sources(&root.join(part));
        assert!(!files.is_empty(), "{part} is gone");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for other in forbidden {
                // `crate::other` and nothing that only begins so; in documentation too.
                let named = text.match_indices(&format!("crate::{other}")).any(|(at, found)| {
                    !text[at + found.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
                });
                if named {
                    wrong.push(format!("{} names {other}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
