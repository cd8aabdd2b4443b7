//! `exec`: a program in a container.

use super::session::{self, Streams};
use crate::context::Context;
use crate::daemon::{encode, with_query};
use crate::error::Error;
use crate::exit::Exit;
use crate::kube;
use crate::target;
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pod: `web` or `pod/web`
    pod: String,
    /// The container, where the pod has several
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    container: String,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the program a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let pod = target::pod(&arguments.pod)?;
    let streams = Streams { stdin: arguments.stdin, tty: arguments.tty };
    let outcome = session::run(context, &path(context, arguments, streams, &pod)?, streams).await?;
    finish(context, &arguments.program, &outcome)
}

fn path(context: &Context, arguments: &Arguments, streams: Streams, pod: &str) -> Result<String, Error> {
    let base = format!("{}/{}/exec", kube::collection(target::kind("pods")?, Some(context.namespace())), encode(pod));
    let mut query = vec![("container", arguments.container.as_str())];
    query.extend(streams.query());
    let path = with_query(&base, &query);
    // By hand: an empty argument of the program still counts.
    let words: String = arguments.program.iter().map(|word| format!("&command={}", encode(word))).collect();
    Ok(path + &words)
}

/// The program's exit code, or why it never ran.
fn finish(context: &Context, program: &[String], outcome: &Value) -> Result<Exit, Error> {
    if kube::text(outcome, "/status") == "Success" {
        return Ok(Exit::Ok);
    }
    if kube::text(outcome, "/reason") == "NonZeroExitCode" {
        let causes = kube::array(outcome, "/details/causes");
        let code = causes.iter().find(|c| kube::text(c, "/reason") == "ExitCode");
        let code = code.and_then(|c| kube::text(c, "/message").parse::<i32>().ok()).unwrap_or(1);
        return Ok(Exit::Program(u8::try_from(code & 0xff).unwrap_or(1)));
    }
    let why = kube::text(outcome, "/message");
    let error = Error::usage(
        format!(
            "{:?} can't be run: {}",
            program.first().map_or("", String::as_str),
            if why.is_empty() { "unknown" } else { why }
        ),
        "the program must exist in the container; `-c` picks another container",
    );
    context.fail(&error);
    Ok(Exit::Error)
}
