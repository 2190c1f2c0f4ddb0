//! `kore-gateway check`: by the same code as `serve`.

use super::{Failure, print};
use crate::config::{self, Sources};

pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    let (written, _) = config::load(sources).map_err(|faults| Failure::faults(&faults))?;
    let effective =
        config::effective(written).map_err(|error| Failure::new("cannot write the configuration", error))?;
    print(&effective)
}
