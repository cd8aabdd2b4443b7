//! `restart`: a pod's containers, once.

use crate::context::Context;
use crate::daemon::{encode, with_query};
use crate::error::Error;
use crate::exit::Exit;
use crate::target;
use crate::wire::Done;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pod: `web` or `pod/web`
    pod: String,
    /// Only this container
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    container: String,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let pod = target::pod(&arguments.pod)?;
    let path = format!("/reddwarf/v1/restart/{}/{}", encode(context.namespace()), encode(&pod));
    let done: Done = context.daemon.post_empty(&with_query(&path, &[("container", &arguments.container)])).await?;
    context.done(&done)?;
    Ok(Exit::Ok)
}
