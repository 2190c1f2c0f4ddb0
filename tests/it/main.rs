//! The gateway from outside: real sockets, a stand-in for the upstream, a clock that tests move.
//! One file per behaviour; each begins with the rule it holds the gateway to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod process;
mod world;

mod access;
mod architecture;
mod attempts;
mod audit;
mod browser;
mod cache_admission;
mod cache_back_off;
mod cache_bounds;
mod cache_canary;
mod cache_clock;
mod cache_lifetimes;
mod cache_model;
mod cache_purge;
mod cache_query_method;
mod cache_stale;
mod cache_summary;
mod cache_variants;
mod canaries;
mod canonical;
mod coalescing;
mod command_line;
mod conditional;
mod configuration;
mod cors;
mod drain;
mod explain;
mod fairness;
mod floods;
mod forged_tokens;
mod forwarded;
mod freshness;
mod guard;
mod hostile_http1;
mod http2;
mod issuer;
mod keys;
mod late_body;
mod limits;
mod oidc;
mod oidc_fetch;
mod openapi;
mod operations;
mod ops;
mod overload;
mod policy;
mod quota;
mod rate_limit;
mod redaction;
mod redaction_sweep;
mod refresh;
mod reload;
mod samples;
mod standin;
mod tls;
mod tls_listener;
mod tokens;
mod upstream_faults;
mod upstream_requests;
mod validation;
