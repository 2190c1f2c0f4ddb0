//! The configuration in effect, for a person to read.

use toml::{Table, Value};

/// The configuration as TOML, defaults filled in. Secrets are references (`{ env = … }`) and stay
/// so; digests of keys are cut short.
pub fn effective(mut written: Table) -> String {
    if let Some(Value::Array(clients)) = written.get_mut("clients") {
        for digest in clients.iter_mut().filter_map(|client| client.get_mut("api_key_sha256")) {
            if let Value::String(text) = digest {
                *text = text.chars().take(8).chain("…".chars()).collect();
            }
        }
    }
    toml::to_string(&written).unwrap_or_default()
}
