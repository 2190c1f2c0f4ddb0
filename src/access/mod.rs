//! Who is asking, what they may see, from which pages, and how often.

pub mod cache_control;
pub mod cors;
pub mod forwarded;
pub mod identify;
pub mod leaked;
pub mod oidc;
pub mod permit;
pub mod rate_limit;
pub mod redact;
