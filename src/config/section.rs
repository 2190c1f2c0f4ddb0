//! Reads typed values out of a TOML table and keeps every fault, with its path, instead of
//! stopping at the first.
//!
//! A key that cannot be read leaves a fault and a placeholder. Placeholders go nowhere: a
//! configuration with a fault is never handed out. Whoever holds one key against another asks first
//! whether they are known.

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
    /// Keys that were reported as missing, and those that could have been there in their place.
    missing: Vec<Missing>,
    faults: &'a Faults,
}

/// The key that was reported, and all that would have done.
type Missing = (&'static str, &'static [&'static str]);

impl<'a> Section<'a> {
    pub fn root(table: toml::Table, faults: &'a Faults) -> Self {
        Self::new(String::new(), table, faults)
    }

    fn new(path: String, table: toml::Table, faults: &'a Faults) -> Self {
        Self { path, table, known: Vec::new(), missing: Vec::new(), faults }
    }

    /// One table of the top level.
    pub fn below(key: &str, table: toml::Table, faults: &'a Faults) -> Self {
        Self::new(key.to_owned(), table, faults)
    }

    /// Where `key` is, from the top of the configuration. It is one of ours, or a path of such keys.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub fn report(&self, key: &str, problem: impl Into<String>) {
        self.faults.report(self.path_of(key), problem);
    }

    /// The same of several problems of one key.
    pub fn report_all(&self, key: &str, problems: &[String]) {
        if !problems.is_empty() {
            self.report(key, problems.join("; "));
        }
    }

    /// Reports that `key` is missing, and so are all that could be there in its place.
    pub fn report_missing(
        &mut self,
        key: &'static str,
        others: &'static [&'static str],
        problem: impl Into<String>,
    ) {
        self.report(key, problem);
        self.missing.push((key, others));
    }

    /// Whether the value of a key, or that it is left out, can be held against others: it has no fault.
    pub fn is_known(&self, key: &str) -> bool {
        !self.faults.cover(&self.path_of(key))
    }

    /// Whether nothing that was read of this table so far has a fault.
    pub fn is_good(&self) -> bool {
        !self.faults.touch(&self.path)
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
                self.report_missing(key, &[], format!("is missing; it is {}", T::EXPECTED));
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
        let duration = self.required(key);
        self.check_positive(key, duration)
    }

    /// The same, or `default` if it is left out.
    pub fn positive_or(&mut self, key: &'static str, default: Duration) -> Duration {
        let duration = self.or(key, default);
        self.check_positive(key, duration)
    }

    fn check_positive(&self, key: &'static str, duration: Duration) -> Duration {
        if duration.is_zero() {
            self.report(key, "is zero; it is longer than that");
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
                let names = names.join(", ");
                match found {
                    Some(_) => self.report(key, format!("is none of {names}")),
                    None => self.report_missing(key, &[], format!("is missing; it is one of {names}")),
                }
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
        Section::new(self.path_of(key), table, self.faults)
    }

    /// A table below this one, if it is there.
    pub fn optional_section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let is_there = self.table.contains_key(key);
        let section = self.section(key);
        is_there.then_some(section)
    }

    /// The tables of a list of tables (`[[key]]`). What is none is an empty one: it has its fault, and keeps its
    /// place.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let items = match self.take(key) {
            None => Vec::new(),
            Some(toml::Value::Array(items)) => items,
            Some(other) => {
                self.report(key, format!("is {}; write it as [[{key}]]", describe(&other)));
                Vec::new()
            }
        };
        let path = self.path_of(key);
        let items = items.into_iter().enumerate();
        items.map(|(index, item)| self.of_item(format!("{path}[{index}]"), item)).collect()
    }

    /// The tables below this one, by their names; for names that are the operator's own.
    pub fn named_sections(mut self) -> Vec<(String, Self)> {
        let table = std::mem::take(&mut self.table);
        let path = |name: &str| join(&self.path, name);
        table.into_iter().map(|(name, value)| (name.clone(), self.of_item(path(&name), value))).collect()
    }

    fn of_item(&self, path: String, item: toml::Value) -> Self {
        let table = match item {
            toml::Value::Table(table) => table,
            other => {
                self.faults.report(path.clone(), format!("is {}; it is a table", describe(&other)));
                toml::Table::new()
            }
        };
        Self::new(path, table, self.faults)
    }

    /// Reports what nobody asked for. A key that is missing because it is misspelled is one fault.
    pub fn close(self) {
        for key in self.table.keys() {
            let nearest =
                self.known.iter().map(|known| (strsim::damerau_levenshtein(key, known), known)).min();
            let hint = match nearest {
                Some((distance, known)) if distance <= 2 => {
                    self.explain(known);
                    format!("unknown key; did you mean `{known}`?")
                }
                _ => format!("unknown key; known here: {}", self.known.join(", ")),
            };
            self.faults.report(join(&self.path, key), hint);
        }
    }

    /// `meant` is not missing, but misspelled.
    fn explain(&self, meant: &str) {
        let missing = self.missing.iter().filter(|(key, others)| *key == meant || others.contains(&meant));
        missing.for_each(|(key, _)| self.faults.explain(&self.path_of(key)));
    }
}
