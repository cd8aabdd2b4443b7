//! `reddwarfctl`: the command-line client of reddwarfd.
//!
//! ```text
//! arguments ─ cli ─→ command/<verb> ─→ daemon (HTTP over the Unix socket) ─→ wire / kube ─→ output (table, YAML, JSON, jsonpath)
//!                        │                                                                     │
//!                        └── validate reads files only (reddwarf-config), no daemon            └─→ stdout; errors to stderr
//! ```
//!
//! | to do | look in |
//! |---|---|
//! | add a verb | a file in [`command`], a line in [`cli::Command`] |
//! | know the exit codes | [`exit`] |
//! | word an error | [`error`] |
//! | name objects on the command line | [`target`] |
//! | change how things look | [`output`] |
//!
//! Nothing here runs a command on the host: `plan` cannot execute what it shows.

mod cli;
mod command;
mod context;
mod daemon;
mod error;
mod exit;
mod files;
mod kube;
mod output;
mod pod_reason;
mod report;
mod rollout;
mod target;
mod terminal;
mod wire;

use clap::Parser;
use exit::Exit;

fn main() {
    let exit = match cli::Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(e) => usage(&e),
    };
    // Not a return: a thread may still be waiting for standard input.
    std::process::exit(exit.code());
}

fn run(cli: cli::Cli) -> Exit {
    let context = context::Context::new(&cli);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return context.fail(&error::Error::Runtime(e)),
    };
    match runtime.block_on(command::run(&context, cli.command)) {
        Ok(exit) => exit,
        Err(e) => context.fail(&e),
    }
}

/// clap's own exit code for a bad command line is 2, which means "changes pending" here.
fn usage(e: &clap::Error) -> Exit {
    // Nobody left to tell when even this can't be printed.
    let _ = e.print();
    if e.use_stderr() { Exit::Error } else { Exit::Ok }
}
