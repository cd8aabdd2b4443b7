//! `reconcile`: compares everything with the host now, rather than at the next periodic pass.

use crate::context::Context;
use crate::daemon::with_query;
use crate::error::Error;
use crate::exit::Exit;
use crate::wire::Done;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Delete what the manifest directories no longer declare even when it is most of it
    #[arg(long)]
    allow_prune: bool,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let allow = if arguments.allow_prune { "true" } else { "" };
    let done: Done = context.daemon.post_empty(&with_query("/reddwarf/v1/reconcile", &[("allowPrune", allow)])).await?;
    context.done(&done)?;
    Ok(Exit::Ok)
}
