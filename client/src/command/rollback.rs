//! `rollback`: puts an earlier generation in force again.

use crate::context::Context;
use crate::daemon::with_query;
use crate::error::Error;
use crate::exit::Exit;
use crate::report;
use crate::wire::{AppliedObject, RollbackReport};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The generation to go back to; `reddwarfctl generations` lists them
    number: u64,
    /// Also write its files into the manifest directory
    #[arg(long)]
    write: bool,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let write = if arguments.write { "true" } else { "" };
    let path = with_query(&format!("/reddwarf/v1/generations/{}/rollback", arguments.number), &[("write", write)]);
    let report: RollbackReport = context.daemon.post_empty(&path).await?;
    if !context.structured(&report)? {
        if !context.quiet {
            context.print(&report::applied(context, &report.objects, false, false))?;
        }
        report::refusals(context, &report.objects);
        for file in &report.files_written {
            context.say(&format!("wrote {}", crate::output::printable(file)))?;
        }
        context.say(&format!("generation {} is in force", report.generation))?;
        if !report.message.is_empty() {
            context.note(&report.message);
        }
    }
    Ok(report.objects.iter().find_map(AppliedObject::refusal).unwrap_or(Exit::Ok))
}
