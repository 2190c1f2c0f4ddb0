//! The rooms of the crate and the arrows between them (docs/ARCHITECTURE.md). An arrow is a path that begins with
//! `crate::`, in a `use` or anywhere else in the code; the parser finds them, so that neither a line break nor a
//! comment deceives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// From the ground up. A room names rooms of the floors below its own, and no other.
const FLOORS: [&[&str]; 13] = [
    &["clock", "digest", "json"],
    &["error"],
    &["lifecycle"],
    &["overload"],
    &["routes"],
    &["http"],
    &["config"],
    &["fetch", "observe"],
    &["access", "cache", "upstream"],
    &["reply"],
    &["app"],
    &["server"],
    &["cli"],
];

/// Arrows that the floors would allow and that there are to be none of.
const FORBIDDEN: [(&str, &str); 4] = [
    // What is stored is the same for everyone: the cache knows no client and no setting.
    ("cache", "config"),
    // The contracts of the routes need neither.
    ("http", "routes"),
    ("lifecycle", "error"),
    ("config", "error"),
];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn sources(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect()
}

/// The rooms that a file names.
#[derive(Default)]
struct Named {
    rooms: BTreeSet<String>,
    /// Without its own name in front of it, as `use crate::{a, b}` or in a glob, an arrow cannot be seen.
    unreadable: Vec<String>,
}

impl Named {
    fn below_crate(&mut self, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => drop(self.rooms.insert(path.ident.to_string())),
            syn::UseTree::Name(name) => drop(self.rooms.insert(name.ident.to_string())),
            syn::UseTree::Rename(rename) => drop(self.rooms.insert(rename.ident.to_string())),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.below_crate(tree)),
            syn::UseTree::Glob(_) => self.unreadable.push("use crate::*".to_owned()),
        }
    }
}

impl<'a> Visit<'a> for Named {
    fn visit_use_tree(&mut self, tree: &'a syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) if path.ident == "crate" => self.below_crate(&path.tree),
            syn::UseTree::Path(path) => self.visit_use_tree(&path.tree),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.visit_use_tree(tree)),
            _ => {}
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let mut segments = path.segments.iter().map(|segment| segment.ident.to_string());
        if segments.next().as_deref() == Some("crate")
            && let Some(room) = segments.next()
        {
            self.rooms.insert(room);
        }
        syn::visit::visit_path(self, path);
    }

    /// Macros are read as the tokens that they are: `crate :: room`.
    fn visit_macro(&mut self, called: &'a syn::Macro) {
        let text = called.tokens.to_string();
        for (at, found) in text.match_indices("crate :: ") {
            let rest = &text[at + found.len()..];
            self.rooms.extend(rest.split(' ').next().map(str::to_owned));
        }
        syn::visit::visit_macro(self, called);
    }

    /// Tests may name what they test with.
    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        if !module.attrs.iter().any(is_for_tests) {
            syn::visit::visit_item_mod(self, module);
        }
    }
}

fn is_for_tests(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
}

fn arrows() -> BTreeMap<String, BTreeMap<String, PathBuf>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut arrows = BTreeMap::<_, BTreeMap<_, _>>::new();
    for file in sources(&root) {
        let inside = file.strip_prefix(&root).unwrap();
        let Some(room) = inside.components().next() else { continue };
        let room = room.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&&*room) || inside.file_name().unwrap() == "tests.rs" {
            continue;
        }
        let mut named = Named::default();
        named.visit_file(&syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap());
        assert!(named.unreadable.is_empty(), "{}: {:?}", file.display(), named.unreadable);
        let all = arrows.entry(room.clone()).or_default();
        for other in named.rooms.into_iter().filter(|other| *other != room) {
            all.entry(other).or_insert_with(|| inside.to_owned());
        }
    }
    arrows
}

#[test]
fn every_room_has_its_floor() {
    let rooms: BTreeSet<_> = arrows().into_keys().collect();
    let known = FLOORS.iter().flat_map(|rooms| rooms.iter()).map(|&room| room.to_owned()).collect();
    assert_eq!(rooms, known);
}

#[test]
fn arrows_point_downwards_only() {
    let mut wrong = Vec::new();
    for (room, others) in arrows() {
        for (other, file) in others {
            if floor(&other) >= floor(&room) || FORBIDDEN.contains(&(&room, &other)) {
                wrong.push(format!("{room} names {other}: {}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Lines of one reading.
const MOST_LINES: usize = 400;

#[test]
fn no_file_is_longer_than_one_reading() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().count();
    let is_long = |path: &PathBuf| !path.ends_with("tests.rs") && lines(path) > MOST_LINES;
    let long: Vec<_> = sources(&root).into_iter().filter(is_long).collect();
    assert!(long.is_empty(), "{long:#?}");
}
