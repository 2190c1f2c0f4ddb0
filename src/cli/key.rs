//! `kore-gateway key`: a new API key. The gateway keeps its digest only, so it is shown once.

use super::{Failure, print};
use crate::access::identify::key_digest;
use crate::config::KEY_PREFIX;

/// Bytes of randomness in a key.
const RANDOM_BYTES: usize = 32;

/// A key that nobody has: `kg_` and 256 random bits in hexadecimal.
pub(super) fn new_key() -> Result<String, Failure> {
    let mut random = [0; RANDOM_BYTES];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|error| Failure::new("the machine has no random numbers", error))?;
    Ok(format!("{KEY_PREFIX}{}", hex::encode(random)))
}

pub(super) fn run(name: &str) -> Result<(), Failure> {
    let key = new_key()?;
    let digest = hex::encode(key_digest(key.as_bytes()));
    let name = toml::Value::from(name);
    print(&format!(
        "\
# The key; it is shown this once. Give it to the client, keep it nowhere else:
# {key}

[[clients]]
name = {name}
api_key_sha256 = \"{digest}\"
accounts = []  # the ids of its accounts
bots = [\"*\"]
routes = [\"conversation\", \"interaction_details\", \"conversation_details\"]
rate_limit = \"600/min\"
"
    ))
}
