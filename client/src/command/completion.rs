//! `completion`: the completion script of a shell.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use clap::CommandFactory;
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// bash, elvish, fish, powershell or zsh
    shell: Shell,
}

pub(crate) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::cli::Cli::command(), "reddwarfctl", &mut script);
    context.write(&script)?;
    Ok(Exit::Ok)
}
