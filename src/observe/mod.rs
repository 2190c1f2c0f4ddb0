//! What operators see: metrics, lines and spans. Nothing here changes an answer, and no request waits for it, but
//! for the audit.

pub mod access_log;
pub mod audit;
pub(crate) mod lines;
pub mod logging;
pub mod metrics;
pub mod trace;
pub mod upstream_calls;
