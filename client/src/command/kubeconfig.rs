//! `kubeconfig`: the admin's, for kubectl and every other Kubernetes client.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::wire::Kubeconfig;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print where the daemon keeps it instead of its text
    #[arg(long)]
    path: bool,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let found: Kubeconfig = context.daemon.get("/reddwarf/v1/kubeconfig").await?;
    if arguments.path {
        context.print(&format!("{}\n", found.path))?;
    } else if !context.structured(&found)? {
        context.print(&found.kubeconfig)?;
    }
    Ok(Exit::Ok)
}
