//! Puts the configuration together as it is written: defaults, then files, then the environment.

use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::fault::{ConfigFault, Faults};
use super::file::read_file;
use super::fingerprint::{self, Fingerprint, Named};
use super::locations::Locations;
use super::section::Section;
use super::setting::describe;
use super::{Config, DEFAULTS};
use crate::routes::RequestLimits;

/// The prefix of environment variables that lay over the files; `__` parts the keys of the path.
pub const ENVIRONMENT_PREFIX: &str = "KORE_GATEWAY__";

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Laid over one another in this order.
    pub layers: Vec<Layer>,
    /// Laid over the files: names and values as in the environment.
    pub environment: Vec<(String, String)>,
}

/// One layer of a configuration.
#[derive(Clone, Debug)]
pub enum Layer {
    File(PathBuf),
    /// TOML that is at hand; the demo's, for example.
    Text(String),
}

impl Sources {
    /// These files and this process's environment.
    pub fn with_environment(files: Vec<PathBuf>) -> Self {
        // Only ours are looked at: another variable may hold anything, even what is no text.
        let ours = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX));
        Self { layers: files.into_iter().map(Layer::File).collect(), environment: ours.collect() }
    }
}

/// Reads and resolves a configuration; all faults of all files at once.
pub fn load(sources: &Sources) -> Result<(Table, Config), Vec<ConfigFault>> {
    load_noting(sources, &mut Fingerprint::default())
}

/// The same; what was in its files is noted in `fingerprint`, faults or not.
pub fn load_noting(
    sources: &Sources,
    fingerprint: &mut Fingerprint,
) -> Result<(Table, Config), Vec<ConfigFault>> {
    let (table, locations) = as_written(sources, &mut |path| {
        let read = read_file(path);
        fingerprint.note(Named { path: path.to_owned(), has_own_watch: false }, &read);
        read
    })?;
    // Before they are read for what they hold: a change meanwhile is a change.
    for file in fingerprint::named(&table) {
        let read = read_file(&file.path);
        fingerprint.note(file, &read);
    }
    let config = Config::resolve(table.clone()).map_err(|faults| locations.complete(faults))?;
    Ok((table, config))
}

/// The limits of the routes alone, of a configuration that need not be whole.
pub fn limits(sources: &Sources) -> Result<RequestLimits, Vec<ConfigFault>> {
    let (mut written, locations) = as_written(sources, &mut read_file)?;
    let faults = Faults::default();
    // Of the other keys, those that are wrong are `check`'s affair.
    let mut section = |key: &str, setting: &'static str| {
        let table = match written.remove(key) {
            Some(Value::Table(table)) => table,
            _ => Table::new(),
        };
        Section::below(key, table, &faults).required::<u64>(setting)
    };
    let conversation_details_limit = section("limits", "conversation_details_limit");
    let max_json_depth = usize::try_from(section("server", "max_json_depth")).unwrap_or(usize::MAX);
    match faults.into_vec() {
        faults if faults.is_empty() => Ok(RequestLimits { conversation_details_limit, max_json_depth }),
        faults => Err(locations.complete(faults)),
    }
}

fn as_written(
    sources: &Sources,
    read: &mut dyn FnMut(&Path) -> io::Result<Vec<u8>>,
) -> Result<(Table, Locations), Vec<ConfigFault>> {
    let (mut faults, mut locations) = (Vec::new(), Locations::default());
    let mut written = DEFAULTS.parse().unwrap_or_else(|error: toml::de::Error| {
        faults.push(ConfigFault { path: "defaults".to_owned(), problem: error.to_string() });
        Table::new()
    });
    for layer in &sources.layers {
        let (path, text) = match layer {
            Layer::File(file) => {
                let text = read(file)
                    .and_then(|bytes| String::from_utf8(bytes).map_err(|_| not_utf8()))
                    .map_err(|error| format!("cannot be read: {error}"));
                (file.display().to_string(), text)
            }
            Layer::Text(text) => ("text".to_owned(), Ok(text.clone())),
        };
        if let Ok(text) = &text {
            locations.add_text(&path, text);
        }
        let table = text.and_then(|text| text.parse::<Table>().map_err(|error| not_toml(&text, &error)));
        match table {
            Ok(table) => lay_over(&mut written, table),
            Err(problem) => faults.push(ConfigFault { path, problem }),
        }
    }
    for (name, text) in &sources.environment {
        let Some(path) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        let keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        match set(&mut written, &keys, text) {
            Ok(()) => locations.add_variable(&keys, name),
            Err(problem) => faults.push(ConfigFault { path: name.clone(), problem }),
        }
    }
    if faults.is_empty() { Ok((written, locations)) } else { Err(faults) }
}

fn not_utf8() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")
}

/// The place and the parser's words, without the line itself: it may hold what should be a secret.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .map_or(1, |span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
    format!("is not TOML, line {line}: {}", error.message().replace('\n', ", "))
}

/// Tables are merged, everything else (lists too) is replaced.
fn lay_over(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => lay_over(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Sets one key from the environment; a number in the path is a place in a list.
fn set(table: &mut Table, keys: &[String], text: &str) -> Result<(), String> {
    let Some((first, rest)) = keys.split_first() else { return Ok(()) };
    if first.is_empty() {
        return Err("has an empty part in its path".to_owned());
    }
    let slot = table.entry(first.clone()).or_insert_with(|| {
        let in_a_list = rest.first().is_some_and(|next| next.parse::<usize>().is_ok());
        match rest {
            [] => Value::String(String::new()),
            _ if in_a_list => Value::Array(Vec::new()),
            _ => Value::Table(Table::new()),
        }
    });
    set_in(slot, rest, text)
}

fn set_in(slot: &mut Value, keys: &[String], text: &str) -> Result<(), String> {
    match (slot, keys) {
        (slot, []) => {
            *slot = typed(slot, text);
            Ok(())
        }
        (Value::Table(table), keys) => set(table, keys, text),
        (Value::Array(items), [index, rest @ ..]) => {
            let index: usize = index.parse().map_err(|_| format!("`{index}` is no place in a list"))?;
            // One place more than there are is a new item; a gap would be a guess.
            if index == items.len() {
                items.push(if rest.is_empty() { Value::String(String::new()) } else { Table::new().into() });
            }
            let count = items.len();
            let item =
                items.get_mut(index).ok_or_else(|| format!("there are only {count} items before it"))?;
            set_in(item, rest, text)
        }
        (other, [key, ..]) => Err(format!("`{key}` is below {}", describe(other))),
    }
}

/// The text as TOML where it is TOML and the place does not hold a string already.
fn typed(current: &Value, text: &str) -> Value {
    let as_toml = format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    match (current, as_toml) {
        (Value::String(held), Some(value)) if held.is_empty() || value.is_str() => value,
        (Value::String(_), _) | (_, None) => Value::String(text.to_owned()),
        (_, Some(value)) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(environment: &[(&str, &str)]) -> Table {
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        as_written(&Sources { environment, ..Sources::default() }, &mut read_file).expect("no faults").0
    }

    #[test]
    fn the_environment_reaches_sections_numbers_and_lists() {
        let written = with(&[
            ("KORE_GATEWAY__CACHE__CAPACITY", "1GiB"),
            ("KORE_GATEWAY__SERVER__MAX_CONNECTIONS", "7"),
            ("KORE_GATEWAY__ACCOUNTS__0__ID", "a1"),
            ("KORE_GATEWAY__ACCOUNTS__0__BOTS", r#"["*"]"#),
            ("UNRELATED", "x"),
        ]);
        assert_eq!(written["cache"]["capacity"].as_str(), Some("1GiB"));
        assert_eq!(written["server"]["max_connections"].as_integer(), Some(7));
        assert_eq!(written["accounts"][0]["id"].as_str(), Some("a1"));
        assert_eq!(written["accounts"][0]["bots"][0].as_str(), Some("*"));
    }

    #[test]
    fn tables_merge_and_lists_are_replaced() {
        let mut under: Table = "a = 1\nlist = [1, 2]\n[t]\nx = 1\ny = 1".parse().expect("TOML");
        lay_over(&mut under, "list = [3]\n[t]\ny = 2".parse().expect("TOML"));
        assert_eq!(under, "a = 1\nlist = [3]\n[t]\nx = 1\ny = 2".parse().expect("TOML"));
    }

    #[test]
    fn a_gap_in_a_list_is_a_fault() {
        let environment = vec![("KORE_GATEWAY__ACCOUNTS__3__ID".to_owned(), "a".to_owned())];
        let faults = as_written(&Sources { environment, ..Sources::default() }, &mut read_file)
            .map(|_| ())
            .expect_err("a fault");
        assert_eq!(faults.len(), 1);
    }
}
