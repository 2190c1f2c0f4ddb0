//! `kore-gateway check`: by the same code as `serve`.

use std::io::Write;

use super::{Failure, print};
use crate::clock::Clock;
use crate::config::{self, Sources};

pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    let (written, config) = config::load(sources).map_err(|faults| Failure::faults(&faults))?;
    let now = Clock::system().now();
    let faults: Vec<_> = config.unwritable().into_iter().chain(config.expired_certificate(now)).collect();
    if !faults.is_empty() {
        return Err(Failure::faults(&faults));
    }
    for warning in config.warnings(now) {
        // Where standard error is gone, the configuration is good all the same.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    let effective =
        config::effective(written).map_err(|error| Failure::new("cannot write the configuration", error))?;
    print(&effective)
}
