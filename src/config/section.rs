//! Reads typed values out of a TOML table and keeps every fault, with its path, instead of
//! stopping at the first.
//!
//! A key that cannot be read leaves a fault and a placeholder. Placeholders go nowhere: a
//! configuration with a fault is never handed out.

use std::time::Duration;

use super::fault::{Faults, join};
use super::setting::{Setting, describe};
use super::value::Size;

/// One table of the configuration. A key that was read is gone from it; what is left when the
/// section is closed is unknown.
pub struct Section<'a> {
    path: String,
    table: toml::Table,
    known: Vec<&'static str>,
    faults: &'a Faults,
}

impl<'a> Section<'a> {
    pub fn root(table: toml::Table, faults: &'a Faults) -> Self {
        Self { path: String::new(), table, known: Vec::new(), faults }
    }

    /// One table of the top level.
    pub fn below(key: &str, table: toml::Table, faults: &'a Faults) -> Self {
        Self { path: key.to_owned(), table, known: Vec::new(), faults }
    }

    /// Where `key` is, from the top of the configuration. It is one of ours, or a path of such keys.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub fn report(&self, key: &str, problem: impl Into<String>) {
        self.faults.report(self.path_of(key), problem);
    }

    fn take(&mut self, key: &'static str) -> Option<toml::Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value of a key that must be there.
    pub fn required<T: Setting>(&mut self, key: &'static str) -> T {
        match self.optional(key) {
            Some(value) => value,
            None => {
                self.report(key, format!("is missing; it is {}", T::EXPECTED));
                T::placeholder()
            }
        }
    }

    /// The value of a key, or `default` if it is left out.
    pub fn or<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The value of a key that may be left out and then means nothing.
    pub fn optional<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let value = self.take(key)?;
        Some(T::read(value).unwrap_or_else(|problem| {
            self.report(key, problem);
            T::placeholder()
        }))
    }

    /// A count that has to fit the machine's words.
    pub fn count(&mut self, key: &'static str) -> usize {
        usize::try_from(self.required::<u64>(key)).unwrap_or(usize::MAX)
    }

    /// The same, of bytes.
    pub fn bytes(&mut self, key: &'static str) -> usize {
        usize::try_from(self.required::<Size>(key).0).unwrap_or(usize::MAX)
    }

    /// A duration that makes no sense at zero.
    pub fn positive(&mut self, key: &'static str) -> Duration {
        let duration: Duration = self.required(key);
        if duration.is_zero() {
            self.report(key, "is zero or no duration; it is longer than that");
        }
        duration
    }

    /// One of a few words. Without a default, the key must be there.
    pub fn one_of<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)], default: Option<T>) -> T {
        let found = self.take(key);
        let word = found.as_ref().and_then(toml::Value::as_str);
        match (words.iter().find(|(name, _)| Some(*name) == word), default) {
            (Some((_, meaning)), _) => *meaning,
            (None, Some(default)) if found.is_none() => default,
            _ => {
                let names: Vec<_> = words.iter().map(|(name, _)| format!("{name:?}")).collect();
                self.report(key, format!("is none of {}", names.join(", ")));
                words[0].1
            }
        }
    }

    /// A table below this one; empty if it is left out, so that its required keys are missed by name.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        let table = match self.take(key) {
            None => toml::Table::new(),
            Some(toml::Value::Table(table)) => table,
            Some(other) => {
                self.report(key, format!("is {}; it is a table", describe(&other)));
                toml::Table::new()
            }
        };
        Section { path: self.path_of(key), table, known: Vec::new(), faults: self.faults }
    }

    /// A table below this one, if it is there.
    pub fn optional_section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let is_there = self.table.contains_key(key);
        let section = self.section(key);
        is_there.then_some(section)
    }

    /// The tables of a list of tables (`[[key]]`).
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let items = match self.take(key) {
            None => Vec::new(),
            Some(toml::Value::Array(items)) => items,
            Some(other) => {
                self.report(key, format!("is {}; write it as [[{key}]]", describe(&other)));
                Vec::new()
            }
        };
        let mut sections = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(key));
            match item {
                toml::Value::Table(table) => {
                    sections.push(Section { path, table, known: Vec::new(), faults: self.faults });
                }
                other => self.faults.report(path, format!("is {}; it is a table", describe(&other))),
            }
        }
        sections
    }

    /// The tables below this one, by their names; for names that are the operator's own.
    pub fn named_sections(self) -> Vec<(String, Self)> {
        let mut sections = Vec::with_capacity(self.table.len());
        for (name, value) in self.table {
            let path = join(&self.path, &name);
            match value {
                toml::Value::Table(table) => {
                    sections.push((name, Self { path, table, known: Vec::new(), faults: self.faults }));
                }
                other => self.faults.report(path, format!("is {}; it is a table", describe(&other))),
            }
        }
        sections
    }

    /// Reports what nobody asked for.
    pub fn close(self) {
        for key in self.table.keys() {
            let nearest =
                self.known.iter().map(|known| (strsim::damerau_levenshtein(key, known), known)).min();
            let hint = match nearest {
                Some((distance, known)) if distance <= 2 => format!("unknown key; did you mean `{known}`?"),
                _ => format!("unknown key; known here: {}", self.known.join(", ")),
            };
            self.faults.report(join(&self.path, key), hint);
        }
    }
}
