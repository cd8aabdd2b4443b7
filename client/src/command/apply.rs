//! `apply`: creates or changes the objects of files through the API. What manifest files own stays theirs.

use super::wait::{Goal, Wish, duration};
use crate::context::Context;
use crate::daemon::with_query;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::report;
use crate::rollout::{self, Standing};
use crate::wire::{AppliedObject, ApplyReport, ApplyVerdict, Diagnostic};
use futures_util::stream::{self, StreamExt as _};
use reddwarf_objects::kinds;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// Objects that are waited for at one time: each takes a connection.
const AT_ONCE: usize = 64;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A file, a directory of manifests, or `-`; may be given several times
    #[arg(short, long = "filename", required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Wait until what has pods is up: pods ready (or succeeded), workloads rolled out, jobs complete
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,
    /// Only tell what would happen; exit 2 when something would
    #[arg(long)]
    dry_run: bool,
    /// Show every changed field with its old and new value
    #[arg(long)]
    diff: bool,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let deadline = Instant::now() + arguments.timeout;
    let files = files::read(&arguments.files)?;
    let dry_run = if arguments.dry_run { "true" } else { "" };
    let namespace = context.namespace.as_deref().unwrap_or_default();
    let path = with_query("/reddwarf/v1/apply", &[("dryRun", dry_run), ("namespace", namespace)]);
    let report: ApplyReport = context.daemon.post(&path, &files).await?;
    if !context.structured(&report)? {
        context.diagnostics(&report.diagnostics);
        let text = report::applied(context, &report.objects, arguments.dry_run, arguments.diff);
        if !context.quiet {
            context.print(&text)?;
        }
        report::refusals(context, &report.objects);
    }
    let exit = verdict(&report, arguments.dry_run);
    if arguments.wait && exit == Exit::Ok {
        return wait(context, &report, deadline).await;
    }
    Ok(exit)
}

fn verdict(report: &ApplyReport, dry_run: bool) -> Exit {
    if report.diagnostics.iter().any(Diagnostic::is_error) {
        return Exit::Error;
    }
    if let Some(refused) = report.objects.iter().find_map(AppliedObject::refusal) {
        return refused;
    }
    if dry_run && report.objects.iter().any(|o| report::is_change(o.verdict)) {
        return Exit::Changes;
    }
    Exit::Ok
}

/// Until all of it is up. What is not up in time is named, each with its reason; what fails ends the waiting.
async fn wait(context: &Context, report: &ApplyReport, deadline: Instant) -> Result<Exit, Error> {
    let applied = report.objects.iter().filter(|o| o.verdict != ApplyVerdict::Deleted);
    let kind_of = |o: &AppliedObject| kinds().by_gvk(&o.api_version, &o.kind).filter(|kind| rollout::has_pods(kind));
    let waits = applied.filter_map(|object| Some((object, kind_of(object)?))).map(|(object, kind)| async move {
        let wish = Wish { kind, namespace: &object.namespace, name: &object.name, goal: &Goal::Up };
        (object, kind, wish.wait(context, deadline).await)
    });
    let mut waits = stream::iter(waits).buffer_unordered(AT_ONCE);
    let mut exit = Exit::Ok;
    while let Some((object, kind, waited)) = waits.next().await {
        match waited {
            Ok(found) => {
                if let Some(Standing::Up(words)) = found.map(|found| rollout::standing(kind, &found)) {
                    context.say(&format!("{} {words}", object.short()))?;
                }
            }
            Err(late @ Error::TimedOut { .. }) => exit = context.fail(&late),
            Err(error) => return Err(error),
        }
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn exit_codes_of_verdicts() {
        let of = |verdicts: &[&str], dry_run| {
            let objects: Vec<_> = verdicts.iter().map(|v| json!({"kind": "Pod", "name": "a", "verdict": v})).collect();
            verdict(&serde_json::from_value(json!({"objects": objects})).unwrap(), dry_run)
        };
        assert_eq!(of(&["unchanged"], true), Exit::Ok);
        assert_eq!(of(&["unchanged", "created"], true), Exit::Changes);
        assert_eq!(of(&["created", "configured"], false), Exit::Ok);
        assert_eq!(of(&["created", "refused"], false), Exit::Conflict);
        assert_eq!(of(&["refused"], true), Exit::Conflict);
        let invalid = json!({"objects": [{"kind": "Pod", "name": "a", "verdict": "refused", "code": 422}]});
        assert_eq!(verdict(&serde_json::from_value(invalid).unwrap(), false), Exit::Error);
    }
}
