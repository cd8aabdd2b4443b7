//! `shutdown`: ends the daemon, with or without its pods.

use crate::context::Context;
use crate::daemon::with_query;
use crate::error::Error;
use crate::exit::Exit;
use crate::wire::Done;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Stop every pod first; without it pods keep running and a new daemon finds them again
    #[arg(long)]
    stop_pods: bool,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let stop = if arguments.stop_pods { "true" } else { "" };
    let done: Done = context.daemon.post_empty(&with_query("/reddwarf/v1/shutdown", &[("stopPods", stop)])).await?;
    context.done(&done)?;
    Ok(Exit::Ok)
}
