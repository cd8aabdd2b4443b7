//! `restore`: puts a backup in the place of the database. Running pods are adopted, not restarted.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::wire::{Done, RestoreRequest};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A file on the daemon's host that `backup` wrote
    file: PathBuf,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let request = RestoreRequest { path: files::absolute(&arguments.file)? };
    let done: Done = context.daemon.post("/reddwarf/v1/restore", &request).await?;
    context.done(&done)?;
    Ok(Exit::Ok)
}
