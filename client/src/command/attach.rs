//! `attach`: the standard streams of a container's own program, from now on.

use super::session::{self, Streams};
use crate::context::Context;
use crate::daemon::{encode, with_query};
use crate::error::Error;
use crate::exit::Exit;
use crate::kube;
use crate::target;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pod: `web` or `pod/web`
    pod: String,
    /// The container, where the pod has several
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    container: String,
    /// Pass standard input on, to a container with `stdin: true`
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Use the container's terminal, where it has one
    #[arg(short = 't', long)]
    tty: bool,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let pod = target::pod(&arguments.pod)?;
    let streams = Streams { stdin: arguments.stdin, tty: arguments.tty };
    let pods = kube::collection(target::kind("pods")?, Some(context.namespace()));
    let mut query = vec![("container", arguments.container.as_str())];
    query.extend(streams.query());
    let outcome =
        session::run(context, &with_query(&format!("{pods}/{}/attach", encode(&pod)), &query), streams).await?;
    if kube::text(&outcome, "/status") == "Success" {
        return Ok(Exit::Ok);
    }
    context.fail(&Error::usage(format!("the attachment ended: {}", kube::text(&outcome, "/message")), ""));
    Ok(Exit::Error)
}
