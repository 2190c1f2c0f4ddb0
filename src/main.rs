//! The `kore-gateway` program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use kore_gateway::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
