//! The contract between the cache and the upstream, which never name one another: what an answer is, what the end of
//! a call means, who pays for it, and what is left of a limit.

pub mod answer;
pub mod ending;
pub mod limit_status;
pub mod payer;
