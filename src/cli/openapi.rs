//! `kore-gateway openapi`: what `GET /openapi.json` answers, without a gateway that runs.

use super::{Failure, print};
use crate::config::{self, Sources};
use crate::observe::metrics::VERSION;
use crate::routes::openapi;

/// Needs neither accounts nor secrets, so it can be run anywhere.
pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    let limits = config::limits(sources).map_err(|faults| Failure::faults(&faults))?;
    let document = openapi::document(limits, VERSION);
    print(&format!("{document:#}\n"))
}
