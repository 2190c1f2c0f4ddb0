//! The configuration in effect, for a person to read.

use toml::{Table, Value};

/// The configuration as TOML, defaults filled in. Secrets are references (`{ env = … }`) and stay
/// so; digests of keys are cut short.
pub fn effective(mut written: Table) -> String {
    if let Some(Value::Array(clients)) = written.get_mut("clients") {
        for client in clients {
            client.get_mut("api_key_sha256").map(cut_short);
            let keys = client.get_mut("api_keys").and_then(Value::as_array_mut);
            keys.into_iter().flatten().filter_map(|key| key.get_mut("sha256")).for_each(cut_short);
        }
    }
    toml::to_string(&written).unwrap_or_default()
}

fn cut_short(digest: &mut Value) {
    if let Value::String(text) = digest {
        *text = text.chars().take(8).chain("…".chars()).collect();
    }
}
