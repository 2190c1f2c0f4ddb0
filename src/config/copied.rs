//! Files that repeat the defaults: somebody has copied the manual in place of writing down what differs.

use toml::{Table, Value};

use super::file::read_text;
use super::load::{Layer, Sources};
use super::{ConfigFault, DEFAULTS};

/// A file that sets more keys than this to their defaults has not chosen them one by one.
const MOST_CHOSEN: usize = 30;

/// The variable by which an image says where to listen, over all files.
const LISTEN: &str = "KORE_GATEWAY__SERVER__LISTEN";

impl Sources {
    /// A warning for each file that is a copy of the manual. Files that cannot be read have faults of their own.
    pub fn copies_of_the_manual(&self) -> Vec<ConfigFault> {
        let files = self.layers.iter().filter_map(|layer| match layer {
            Layer::File(file) => Some((file, read_text(file).ok()?)),
            Layer::Text(_) => None,
        });
        let listens = self.environment.iter().any(|(name, _)| name == LISTEN);
        files
            .filter_map(|(file, text)| {
                Some(ConfigFault { path: file.display().to_string(), problem: copied(&text, listens)? })
            })
            .collect()
    }
}

/// What is wrong with a file that repeats the defaults, if this one does. Where the environment says where to listen, what
/// the file says of it does no harm.
fn copied(text: &str, listens_elsewhere: bool) -> Option<String> {
    let (file, defaults) = (text.parse::<Table>().ok()?, DEFAULTS.parse::<Table>().ok()?);
    let count = repeated(&file, &defaults);
    if count <= MOST_CHOSEN {
        return None;
    }
    let mut problem = format!(
        "sets {count} keys to their defaults, as a copy of the manual does; keep only what differs, for a later \
         release may have better defaults"
    );
    let listens = |table: &Table| Some(table.get("server")?.get("listen")?.as_str()?.to_owned());
    let copied_listen = listens(&file).filter(|listen| Some(listen) == listens(&defaults).as_ref());
    if let Some(listen) = copied_listen.filter(|_| !listens_elsewhere) {
        problem.push_str(&format!(
            "; `server.listen` is among them, and {listen} is reached from this machine or container alone"
        ));
    }
    Some(problem)
}

/// The keys of `over` whose value is the one that `under` has.
fn repeated(over: &Table, under: &Table) -> usize {
    let same = |(key, value): (&String, &Value)| match (value, under.get(key)) {
        (Value::Table(over), Some(Value::Table(under))) => repeated(over, under),
        (value, Some(default)) => usize::from(value == default),
        (_, None) => 0,
    };
    over.iter().map(same).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_manual_is_told_from_a_few_chosen_keys() {
        assert_eq!(
            copied("[server]\nlisten = \"127.0.0.1:8080\"\n[cache]\ncapacity = \"512MiB\"\n", false),
            None
        );
        let whole = copied(DEFAULTS, false).unwrap_or_default();
        assert!(whole.contains("`server.listen` is among them, and 127.0.0.1:8080"), "{whole}");
        let listening = DEFAULTS.replacen("listen = \"127.0.0.1:8080\"", "listen = \"0.0.0.0:8080\"", 1);
        let elsewhere = copied(&listening, false).unwrap_or_default();
        let by_the_image = copied(DEFAULTS, true).unwrap_or_default();
        for told in [elsewhere, by_the_image] {
            assert!(!told.is_empty() && !told.contains("server.listen"), "{told}");
        }
    }
}
