//! The `kore-gateway` program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use kore_gateway::cli::{self, Cli};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
