//! Whether a conversation is closed: what its own answer says ([`phase`]), and what other answers have said
//! ([`sightings`]).

pub mod phase;
pub mod sightings;
