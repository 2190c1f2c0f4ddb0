//! `kore-gateway check`: by the same code as `serve`.

use super::Failure;
use crate::config::{self, Sources};

pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    let (written, _) = config::load(sources).map_err(|faults| Failure::faults(&faults))?;
    print!("{}", config::effective(written));
    Ok(())
}
