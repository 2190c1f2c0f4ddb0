//! The contract between the cache and the upstream, which never name one another: what an answer is, who pays for
//! the call, and what is left of a limit.

pub mod answer;
pub mod limit_status;
pub mod payer;
