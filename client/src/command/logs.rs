//! `logs`: what a container wrote.

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
    /// Go on with what it writes
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Only what is younger: `30s`, `5m`, `2h`
    #[arg(long, value_name = "DURATION", value_parser = super::wait::duration)]
    since: Option<std::time::Duration>,
    /// Of the run before the last restart
    #[arg(short, long)]
    previous: bool,
    /// Each line with its time
    #[arg(long)]
    timestamps: bool,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let pod = target::pod(&arguments.pod)?;
    let path = format!("{}/{}/log", kube::collection(target::kind("pods")?, Some(context.namespace())), encode(&pod));
    let flag = |on: bool| if on { "true" } else { "" };
    let tail = arguments.tail.map(|lines| lines.to_string()).unwrap_or_default();
    // The API counts whole seconds and refuses zero.
    let since = arguments.since.map(|d| d.as_secs().max(1).to_string()).unwrap_or_default();
    let path = with_query(
        &path,
        &[
            ("container", &arguments.container),
            ("follow", flag(arguments.follow)),
            ("previous", flag(arguments.previous)),
            ("timestamps", flag(arguments.timestamps)),
            ("tailLines", &tail),
            ("sinceSeconds", &since),
        ],
    );
    let mut stream = context.daemon.stream(&path).await?;
    while let Some(bytes) = stream.chunk().await? {
        context.write(&bytes)?;
    }
    Ok(Exit::Ok)
}
