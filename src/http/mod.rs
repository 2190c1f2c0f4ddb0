//! HTTP as callers see it: header fields, request ids, content negotiation, bodies and problem documents.

pub mod accept;
pub mod body;
pub(crate) mod field;
pub mod problem;
pub mod request_id;
