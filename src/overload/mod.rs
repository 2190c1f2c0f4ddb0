//! What keeps too much at once from being too much for the process: requests that wait, bytes that are held.

pub(crate) mod in_flight;
pub(crate) mod shares;
pub(crate) mod waiting;
