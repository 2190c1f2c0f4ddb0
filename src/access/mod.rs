//! Who is asking, what they may see, and how often.

pub mod identify;
pub mod permit;
pub mod rate_limit;
