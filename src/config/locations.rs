//! Where each key of a configuration was written: the file and its line, or the variable.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{ConfigFault, is_below, join};

/// Locations by path. A later layer's take the place of those that its values replace.
#[derive(Default)]
pub struct Locations(BTreeMap<String, String>);

impl Locations {
    /// Notes the keys of a file that is TOML.
    pub fn add_text(&mut self, source: &str, text: &str) {
        let Ok(table) = DeTable::parse(text) else { return };
        let starts: Vec<usize> = memchr::memchr_iter(b'\n', text.as_bytes()).collect();
        let line = |offset: usize| starts.partition_point(|end| *end < offset) + 1;
        self.table("", table.get_ref(), &|offset| format!("{source}, line {}", line(offset)));
    }

    /// Notes a key that a variable of the environment has set.
    pub fn add_variable(&mut self, keys: &[String], name: &str) {
        let path = keys.iter().fold(String::new(), |path, key| match key.parse::<usize>() {
            Ok(index) => format!("{path}[{index}]"),
            Err(_) => join(&path, key),
        });
        self.replace(path, format!("variable {name}"));
    }

    /// Adds to each fault where its key was written, or the table that the key is missing from.
    pub fn complete(&self, mut faults: Vec<ConfigFault>) -> Vec<ConfigFault> {
        for fault in &mut faults {
            if let Some(location) = self.of(&fault.path) {
                fault.problem = format!("{} ({location})", fault.problem);
            }
        }
        faults
    }

    fn of(&self, mut path: &str) -> Option<&str> {
        loop {
            if let Some(location) = self.0.get(path) {
                return Some(location);
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }

    fn table(&mut self, path: &str, table: &DeTable<'_>, location: &dyn Fn(usize) -> String) {
        for (key, value) in table {
            self.value(join(path, key.get_ref()), key.span().start, value, location);
        }
    }

    fn value(
        &mut self,
        path: String,
        start: usize,
        value: &Spanned<DeValue<'_>>,
        location: &dyn Fn(usize) -> String,
    ) {
        match value.get_ref() {
            DeValue::Table(table) => {
                self.0.insert(path.clone(), location(start));
                self.table(&path, table, location);
            }
            DeValue::Array(items) => {
                self.replace(path.clone(), location(start));
                for (index, item) in items.iter().enumerate() {
                    self.value(format!("{path}[{index}]"), item.span().start, item, location);
                }
            }
            _ => self.replace(path, location(start)),
        }
    }

    /// Of what lay below the path before, nothing is left.
    fn replace(&mut self, path: String, location: String) {
        self.0.retain(|other, _| !is_below(other, &path));
        self.0.insert(path, location);
    }
}
