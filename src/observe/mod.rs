//! What operators see: numbers, lines and spans. Nothing here changes an answer, and no request waits for it.

pub mod access_log;
pub mod audit;
pub(crate) mod lines;
pub mod logging;
pub mod metrics;
pub mod trace;
