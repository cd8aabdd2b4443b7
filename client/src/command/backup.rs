//! `backup`: copies the database while the daemon runs.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::wire::{BackupReport, BackupRequest};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A file on the daemon's host that does not exist yet
    file: PathBuf,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let request = BackupRequest { path: files::absolute(&arguments.file)? };
    let report: BackupReport = context.daemon.post("/reddwarf/v1/backup", &request).await?;
    if !context.structured(&report)? {
        context.say(&format!("{}: revision {}, {} bytes", report.path, report.revision, report.size_bytes))?;
    }
    Ok(Exit::Ok)
}
