//! `delete`: objects that belong to the API; what files declare goes with its file.

use super::wait::{Goal, Wish, duration};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::kube::{self, Query};
use crate::target::{self, Target};
use reddwarf_config::{Limits, check, parse_file};
use reddwarf_objects::Kind;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kinds and names: `pod web`, `pod/web cm/site`, or a kind with -l or --all
    #[arg(value_name = "KIND[/NAME]", required_unless_present = "files")]
    what: Vec<String>,
    /// The objects of a file, a directory or `-`
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", conflicts_with = "what")]
    files: Vec<PathBuf>,
    /// All objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    selector: String,
    /// All objects of the kind
    #[arg(long)]
    all: bool,
    /// Seconds between TERM and KILL, in place of the pod's own
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u64>,
    /// Kill at once: the same as --grace-period 0
    #[arg(long)]
    force: bool,
    /// Objects that do not exist are no error
    #[arg(long)]
    ignore_not_found: bool,
    /// Return when they are gone, rather than when their deletion has begun
    #[arg(long, value_name = "BOOL", default_value = "true", default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
}

/// One object to delete.
struct Victim {
    kind: &'static Kind,
    namespace: String,
    name: String,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let deadline = Instant::now() + arguments.timeout;
    let victims =
        if arguments.files.is_empty() { named(context, arguments).await? } else { declared(context, arguments)? };
    let grace = if arguments.force { Some(0) } else { arguments.grace_period };
    let mut exit = Exit::Ok;
    let mut going = Vec::new();
    for victim in victims {
        match kube::delete(&context.daemon, victim.kind, &victim.namespace, &victim.name, grace).await {
            Ok(_) => going.push(victim),
            Err(e) if e.is_not_found() && arguments.ignore_not_found => {}
            Err(e @ Error::Refused { .. }) => exit = context.fail(&e),
            Err(e) => return Err(e),
        }
    }
    for victim in going {
        if arguments.wait {
            let wish = Wish { kind: victim.kind, namespace: &victim.namespace, name: &victim.name, goal: &Goal::Gone };
            wish.wait(context, deadline).await?;
        }
        let word = if arguments.wait { "deleted" } else { "is being deleted" };
        context.say(&format!("{} {word}", Target::short(victim.kind, &victim.name)))?;
    }
    Ok(exit)
}

async fn named(context: &Context, arguments: &Arguments) -> Result<Vec<Victim>, Error> {
    let namespace = context.namespace().to_owned();
    let mut victims = Vec::new();
    for target in target::targets(&arguments.what)? {
        match target.name {
            Some(name) => victims.push(Victim { kind: target.kind, namespace: namespace.clone(), name }),
            None if arguments.all || !arguments.selector.is_empty() => {
                let query = Query { labels: &arguments.selector, fields: "" };
                let list = kube::list(&context.daemon, target.kind, Some(&namespace), &query).await?;
                victims.extend(list.items.iter().map(|item| Victim {
                    kind: target.kind,
                    namespace: namespace.clone(),
                    name: kube::text(item, "/metadata/name").to_owned(),
                }));
            }
            None => {
                let help = "name objects, or give -l SELECTOR or --all";
                return Err(Error::usage(format!("which {} to delete is not said", target.kind.plural), help));
            }
        }
    }
    Ok(victims)
}

/// The objects that files declare; a file with an error deletes nothing.
fn declared(context: &Context, arguments: &Arguments) -> Result<Vec<Victim>, Error> {
    let mut documents = Vec::new();
    let mut findings = Vec::new();
    for file in files::read(&arguments.files)?.files {
        let name = if file.name == "-" { "stdin.yaml" } else { &file.name };
        let (read, found) = parse_file(name, file.text.as_bytes(), &Limits::default());
        documents.extend(read);
        findings.extend(found);
    }
    let checked = check(documents);
    findings.extend(checked.diagnostics);
    for finding in &findings {
        context.tell(&finding.render(false));
    }
    if findings.iter().any(reddwarf_config::Diagnostic::is_error) {
        return Err(Error::usage("nothing was deleted: a file has errors", "mend it, or name the objects"));
    }
    // Where a document names no namespace, the check filled in `default`; `-n` means another.
    let namespace = |given: &str| match &context.namespace {
        Some(wanted) if given == "default" => wanted.clone(),
        _ => given.to_owned(),
    };
    let victim = |d: &std::sync::Arc<reddwarf_config::Declared>| Victim {
        kind: d.kind,
        namespace: namespace(d.key.namespace.as_deref().unwrap_or_default()),
        name: d.key.name.clone(),
    };
    Ok(checked.declared.iter().map(victim).collect())
}
