//! The command line of `reddwarfd`.

use clap::{Parser, ValueEnum};
use reddwarf_config::Cli;

/// Version, commit, compiler and target on several lines.
pub(crate) const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("REDDWARF_COMMIT"),
    "\ncompiler: ",
    env!("REDDWARF_RUSTC"),
    "\ntarget: ",
    env!("REDDWARF_TARGET"),
);

const AFTER_HELP: &str = "Signals: HUP reads settings and manifests again; TERM and INT stop the daemon and leave pods running.\n\
    Every flag can be set in the settings file and as REDDWARF_… in the environment: flags win over the environment, \
    the environment over the file.";

/// The declarative host daemon: makes this host match the pod and service files of a directory.
#[derive(Debug, Parser)]
#[command(name = "reddwarfd", version, long_version = LONG_VERSION, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// What to run
    #[arg(value_enum, default_value_t = Mode::Agent)]
    pub mode: Mode,
    /// Settings given as flags.
    #[command(flatten)]
    pub settings: Cli,
    /// Check the settings and leave.
    #[arg(long)]
    pub check: bool,
}

/// How much of the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// The whole node: API, manifests, pods
    Agent,
    /// API and manifests only: the host is never touched, pods stay Pending
    Serve,
}
