//! The command line.

mod check;
mod demo;
mod healthcheck;
mod key;
mod openapi;
mod serve;

use std::io::Write;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigFault, Sources};

/// A caching API gateway for Kore.ai's conversation APIs.
#[derive(Debug, Parser)]
#[command(name = "kore-gateway", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(Files),
    /// List every fault of the configuration, or print what is in effect
    Check(Files),
    /// Run the gateway in front of a built-in stand-in upstream, and print lines to paste
    Demo {
        /// The main listener's port; the ops listener takes the one after it. 0: any free ports
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// Make an API key, and print the `[[clients]]` block with its digest
    Key {
        /// The client's name
        #[arg(default_value = "my-client")]
        name: String,
    },
    /// Print the OpenAPI document: under the limits of these files, or of the manual
    Openapi(Files),
    /// Exit 0 if a running gateway is ready
    Healthcheck {
        /// The ops listener's base URL
        #[arg(long, default_value = "http://127.0.0.1:9090")]
        url: String,
    },
}

#[derive(Debug, Args)]
struct Files {
    /// A configuration file; later ones lay over earlier ones, the environment over all
    #[arg(long = "config", value_name = "FILE")]
    config: Vec<PathBuf>,
}

impl Files {
    fn sources(self) -> Sources {
        Sources::with_environment(self.config)
    }
}

/// Runs what the command line says. Wrong usage ends with 2.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(cli),
        // Help and version are output like any other.
        Err(asked) if !asked.use_stderr() => ended(print(&asked.render().to_string())),
        Err(wrong) => wrong.exit(),
    }
}

/// Runs a command. Exit codes: 0, 1 for a fault in the configuration or at run time; wrong usage
/// ends the process with 2 before this is reached.
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Serve(files) => serve::run(&files.sources()),
        Command::Check(files) => check::run(&files.sources()),
        Command::Demo { port } => demo::run(port),
        Command::Key { name } => key::run(&name),
        Command::Openapi(files) => openapi::run(&files.sources()),
        Command::Healthcheck { url } => healthcheck::run(&url),
    };
    ended(done)
}

fn ended(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where standard error is gone too, the code has to tell.
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Writes all of a command's output, or says why that failed: a full disk, or a pipe that is closed.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::new("cannot write the output", error))
}

/// What a command failed with, for a person to read.
#[derive(Debug)]
struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure {
    /// A few words about what was tried, and why it failed.
    fn new(what: &str, why: impl std::fmt::Display) -> Self {
        Self(format!("kore-gateway: {what}: {why}"))
    }

    /// One fault a line.
    fn faults(faults: &[ConfigFault]) -> Self {
        let lines: Vec<_> = faults.iter().map(ConfigFault::to_string).collect();
        Self(lines.join("\n"))
    }
}

/// A runtime of so many threads; `None` is one for each core. One alone needs nothing that several
/// share, which a hit is a sixth cheaper without (docs/PERFORMANCE.md).
fn runtime(workers: Option<usize>) -> Result<tokio::runtime::Runtime, Failure> {
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut builder = match workers.unwrap_or_else(cores) {
        1 => tokio::runtime::Builder::new_current_thread(),
        several => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(several);
            builder
        }
    };
    builder.enable_all().build().map_err(|error| Failure::new("cannot start the runtime", error))
}
