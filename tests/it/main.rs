//! The gateway from outside: real sockets, a stand-in for the upstream, a clock that tests move.
//! One file per behaviour; each begins with the rule it holds the gateway to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

mod access;
mod architecture;
mod audit;
mod browser;
mod canaries;
mod canonical;
mod coalescing;
mod command_line;
mod conditional;
mod configuration;
mod cors;
mod forged_tokens;
mod freshness;
mod issuer;
mod keys;
mod limits;
mod oidc;
mod ops;
mod policy;
mod rate_limit;
mod redaction;
mod refresh;
mod reload;
mod samples;
mod standin;
mod upstream_requests;
mod validation;
