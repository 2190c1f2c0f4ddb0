//! The `kore-gateway` program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use kore_gateway::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
