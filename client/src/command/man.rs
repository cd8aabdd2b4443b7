//! `man`: writes reddwarfctl.1 and a page for every verb, for packagers.

use crate::error::Error;
use crate::exit::Exit;
use clap::CommandFactory;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// An existing directory
    directory: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Error> {
    let command = crate::cli::Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &arguments.directory).map_err(|source| failed(&arguments.directory, source))?;
    Ok(Exit::Ok)
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.to_owned(), doing: "written", source }
}
