//! `reddwarfd`: arguments, wiring, signals, readiness. How anything is done is in the crates below.
//!
//! | task | does |
//! |---|---|
//! | `directory` | files → objects (`reddwarf-controllers`) |
//! | `node` | objects → processes, and their status back (`reddwarf-node`) |
//! | `api` | socket and TCP (`reddwarf-api`) |
//! | `dns` | names of services and pods (`reddwarf-network`); its queries have threads of their own |
//! | `signals` (thread) | TERM, INT, HUP → [`signals::Asked`] |
//!
//! The same program is also the helpers of its hosts (Linux: `__shim`, `__exec`, `__unpack`; illumos: `__zone-…`): they are
//! told apart before anything else happens, because they must stay small and single-threaded. Zones of the brand `reddwarf` have
//! it as their init, under that name.

mod build;
mod chain;
mod check;
mod cli;
mod daemon;
mod directory;
mod dns;
mod host;
mod logging;
mod node;
mod oversize;
mod pods;
mod service;
mod services;
mod signals;
mod storage;
mod supervise;
mod tokens;
mod volumes;
mod why;
mod workers;

use clap::{CommandFactory, Parser};
use cli::Arguments;
use reddwarf_config::{Diagnostic, Settings};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = reddwarf_illumos::as_init() {
        return code;
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = helper(&arguments).or_else(|| packaging(&arguments)) {
        return code;
    }
    let arguments = Arguments::parse();
    if !arguments.check {
        host::keep_memory_small();
    }
    let settings = match Settings::load(&arguments.settings) {
        Ok((settings, warnings)) => {
            for warning in warnings {
                eprint!("{}", warning.render(false));
            }
            settings
        }
        Err(error) => {
            for finding in &error.0 {
                eprint!("{}", finding.render(false));
            }
            eprintln!("reddwarfd: these settings can't be used; nothing was started");
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        let findings = check::files(&settings);
        for finding in &findings {
            eprint!("{}", finding.render(false));
        }
        if findings.iter().any(Diagnostic::is_error) {
            eprintln!("reddwarfd: these settings can't be used");
            return ExitCode::from(2);
        }
        println!("settings are valid");
        return ExitCode::SUCCESS;
    }
    let handed_over = host::inherited_sockets();
    logging::start(&settings);
    match daemon::run(arguments.settings, arguments.mode, settings, handed_over) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            eprintln!("reddwarfd: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Hosts' own helpers, by their first argument.
fn helper(arguments: &[OsString]) -> Option<ExitCode> {
    let (first, rest) = arguments.split_first()?;
    let name = first.to_str()?;
    #[cfg(target_os = "linux")]
    if let Some(code) = reddwarf_linux::helper(name, rest) {
        return Some(code);
    }
    reddwarf_illumos::helper(name, rest)
}

/// Small tasks of packaging and tests: `__man DIR`, `__instance RUN_DIR`.
fn packaging(arguments: &[OsString]) -> Option<ExitCode> {
    let [task, path] = arguments else { return None };
    match task.to_str()? {
        "__man" => Some(man(Path::new(path))),
        "__instance" => Some(instance(Path::new(path))),
        _ => None,
    }
}

fn man(directory: &Path) -> ExitCode {
    // Daemons' pages are in section 8.
    match clap_mangen::Man::new(Arguments::command()).section("8").generate_to(directory) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reddwarfd: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn instance(run: &Path) -> ExitCode {
    println!("{}", reddwarf_linux::options::instance_name(run));
    ExitCode::SUCCESS
}

#[cfg(not(target_os = "linux"))]
fn instance(_run: &Path) -> ExitCode {
    println!("reddwarf");
    ExitCode::SUCCESS
}
