//! `kore-gateway check`: by the same code as `serve`.

use std::io::Write;

use super::{Failure, print, runtime};
use crate::app::Snapshot;
use crate::clock::Clock;
use crate::config::{self, Sources};

pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    let (written, config) = config::load(sources).map_err(|faults| Failure::faults(&faults))?;
    // Entered, and never run: what is started for a look does nothing.
    let runtime = runtime(Some(1))?;
    let _entered = runtime.enter();
    let clock = Clock::system();
    let now = clock.now();
    let mut faults = config.unwritable();
    faults.extend(Snapshot::refusals(&config, &clock));
    faults.extend(config.expired_certificate(now));
    if !faults.is_empty() {
        return Err(Failure::faults(&faults));
    }
    for warning in sources.copies_of_the_manual().into_iter().chain(config.warnings(now)) {
        // Where standard error is gone, the configuration is good all the same.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    let effective =
        config::effective(written).map_err(|error| Failure::new("cannot write the configuration", error))?;
    print(&effective)
}
