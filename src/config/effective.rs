//! The configuration in effect, for a person to read.

use toml::{Table, Value};

/// What the members of the lists mean where they leave something out. A test holds it to what is
/// done in fact.
const ITEM_DEFAULTS: &str = r#"
[account.quota]
account = ["60/min"]
bot = ["60/min", "1800/h"]

[credential]
bots = ["*"]
lifetime = "1h"
jti = false

[client]
rate_limit = "600/min"
lane = "interactive"
weight = 1
filter_rows = false
may_refresh = false
origins = []
redact = []
"#;

/// The configuration as TOML, defaults filled in. Secrets are references (`{ env = … }`) and stay
/// so; digests of keys are cut short.
pub fn effective(written: Table) -> Result<String, toml::ser::Error> {
    let mut filled = filled(written);
    for client in items(&mut filled, "clients") {
        client.get_mut("api_key_sha256").map(cut_short);
        items(client, "api_keys").filter_map(|key| key.get_mut("sha256")).for_each(cut_short);
    }
    toml::to_string(&filled)
}

/// The same configuration with nothing left out.
pub fn filled(mut written: Table) -> Table {
    let defaults: Table = ITEM_DEFAULTS.parse().unwrap_or_default();
    let of = |name: &str| defaults.get(name).and_then(Value::as_table).cloned().unwrap_or_default();
    for account in items(&mut written, "accounts") {
        lay_under(account, &of("account"));
        for credential in items(account, "credentials") {
            lay_under(credential, &of("credential"));
        }
    }
    for client in items(&mut written, "clients") {
        lay_under(client, &of("client"));
    }
    written
}

fn items<'a>(table: &'a mut Table, list: &str) -> impl Iterator<Item = &'a mut Table> {
    let items = table.get_mut(list).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_table_mut)
}

fn lay_under(table: &mut Table, defaults: &Table) {
    for (key, value) in defaults {
        match (table.get_mut(key), value) {
            (None, _) => {
                table.insert(key.clone(), value.clone());
            }
            (Some(Value::Table(table)), Value::Table(defaults)) => lay_under(table, defaults),
            (Some(_), _) => {}
        }
    }
}

fn cut_short(digest: &mut Value) {
    if let Value::String(text) = digest {
        *text = text.chars().take(8).chain("…".chars()).collect();
    }
}
