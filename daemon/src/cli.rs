//! The command line of `reddwarfd`.

use clap::Parser;
use reddwarf_config::Cli;
use std::path::PathBuf;

/// Version, commit, compiler and target on several lines.
pub const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("REDDWARF_COMMIT"),
    "\ncompiler: ",
    env!("REDDWARF_RUSTC"),
    "\ntarget: ",
    env!("REDDWARF_TARGET"),
);

/// The declarative host daemon: makes this host match the pod and service files of a directory.
#[derive(Debug, Parser)]
#[command(name = "reddwarfd", version, long_version = LONG_VERSION, after_help = AFTER_HELP)]
pub struct Arguments {
    /// Settings given as flags.
    #[command(flatten)]
    pub settings: Cli,
    /// Check the settings and leave.
    #[arg(long)]
    pub check: bool,
    /// What else the program can be told to do.
    #[command(subcommand)]
    pub task: Option<Task>,
}

const AFTER_HELP: &str = "Signals: HUP reads settings and manifests again; TERM and INT stop the daemon and leave pods running.\n\
    Every flag can be set in the settings file and as REDDWARF_… in the environment: flags win over the environment, \
    the environment over the file.";

/// Small tasks of packaging and tests.
#[derive(Debug, clap::Subcommand)]
pub enum Task {
    /// Write reddwarfd.8 into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
    /// Print the instance name that a run directory gives: root of our cgroups, part of our marks
    #[command(name = "__instance", hide = true)]
    Instance {
        /// The run directory
        run: PathBuf,
    },
}
