//! A caching API gateway for Kore.ai's conversation APIs: the upstream's own three routes at one
//! stable URL, with the upstream's secret, its quota and its closed conversations kept here.
//!
//! The path of a request: [`server`] takes it in and leads it through the typed stages: [`access`]
//! says whose it is and whether it may be, [`routes`] checks it and makes it canonical, [`cache`]
//! answers it or has [`upstream`] fetch the answer, [`phase`] says how long that may be kept, and
//! [`reply`] writes it out. The map with its reasons is docs/ARCHITECTURE.md.

#![forbid(unsafe_code)]

pub mod cli;

pub mod app;
pub mod reload;
pub mod server;
pub mod watch;

pub mod access;
pub mod cache;
pub mod reply;
pub mod routes;
pub mod upstream;

pub mod accept;
pub mod access_log;
pub mod answer;
pub mod audit;
pub mod body;
pub mod cause;
pub mod phase;
pub mod request_id;
pub mod seen;
pub mod spender;
pub mod standing;

pub mod clock;
pub mod config;
mod digest;
pub mod error;
mod field;
mod in_flight;
mod json;
mod lines;
pub mod metrics;
pub mod telemetry;
pub mod trace;
mod waiting;

#[cfg(test)]
#[path = "../tests/it/cases.rs"]
mod cases;
