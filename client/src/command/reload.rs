//! `reload`: reads the manifest directories again. Exit 1 when a file is refused.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::report;
use crate::wire::{Diagnostic, ReloadReport};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

pub(crate) async fn run(context: &Context, _arguments: &Arguments) -> Result<Exit, Error> {
    let report: ReloadReport = context.daemon.post_empty("/reddwarf/v1/reload").await?;
    let refused =
        report.diagnostics.iter().any(Diagnostic::is_error) || report.objects.iter().any(|o| o.refusal().is_some());
    if !context.structured(&report)? {
        context.diagnostics(&report.diagnostics);
        if !context.quiet {
            context.print(&report::applied(context, &report.objects, false, false))?;
        }
        report::refusals(context, &report.objects);
        let what = if report.changed { "is new" } else { "stays" };
        context.say(&format!("generation {} {what}", report.generation))?;
    }
    Ok(if refused { Exit::Error } else { Exit::Ok })
}
