//! A caching API gateway for Kore.ai's conversation APIs: the upstream's own three routes at one
//! stable URL, with the upstream's secret, its quota and its closed conversations kept here.
//!
//! The path of a request: [`server`] takes it in and leads it through the typed stages: [`access`]
//! says whose it is and whether it may be, [`routes`] checks it and makes it canonical, [`cache`]
//! answers it or has [`upstream`] fetch the answer, [`lifecycle`] says how long that may be kept, and
//! [`reply`] writes it out. The map with its reasons is docs/ARCHITECTURE.md.

#![forbid(unsafe_code)]

// From the top floor to the ground: a room names rooms below it and no other (tests/it/architecture.rs).
pub mod cli;

pub mod server;

pub mod app;

pub mod reply;

pub mod access;
pub mod cache;
pub mod upstream;

pub mod fetch;
pub mod observe;

pub mod config;

pub mod http;

pub mod routes;

pub mod overload;

pub mod lifecycle;

pub mod error;

pub mod clock;
mod digest;
mod json;

#[cfg(test)]
#[path = "../tests/it/cases.rs"]
mod cases;
