//! `plan`: what would be done. This program holds no command runner, and the daemon only computes.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::files;
use crate::output::{Paint, Style, printable};
use crate::report;
use crate::wire::{Diagnostic, PlanAction, PlanReport, PlanStep};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// As if these files, directories or `-` were in the manifest directory; without any: what is left to do now
    files: Vec<PathBuf>,
    /// Show every changed field with its old and new value
    #[arg(long)]
    diff: bool,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let files = files::read(&arguments.files)?;
    let report: PlanReport = context.daemon.post("/reddwarf/v1/plan", &files).await?;
    let refused = report.diagnostics.iter().any(Diagnostic::is_error);
    if !context.structured(&report)? {
        context.diagnostics(&report.diagnostics);
        context.print(&render(&report, context.style, arguments.diff))?;
    }
    Ok(match (refused, report.steps.is_empty()) {
        (true, _) => Exit::Error,
        (false, true) => Exit::Ok,
        (false, false) => Exit::Changes,
    })
}

fn render(report: &PlanReport, style: Style, diff: bool) -> String {
    let mut text = String::new();
    for step in &report.steps {
        text.push_str(&line(step, style));
        text.push_str(&cause(step, style, diff));
    }
    for unknown in &report.unknown {
        text.push_str(&format!(
            "{} not observed, so the plan may be incomplete: {}\n",
            style.warning("?"),
            printable(unknown)
        ));
    }
    if report.steps.is_empty() {
        text.push_str("Nothing to do; no command has been executed.\n");
    } else {
        text.push_str(&format!("\n{}; no command has been executed.\n", counts(&report.steps)));
    }
    text
}

/// `-/+ re-create pods/default/web: start it anew (restarts web, ~3 s)`.
fn line(step: &PlanStep, style: Style) -> String {
    let (mark, paint) = report::mark(step.action);
    let word = match step.action {
        PlanAction::Create => "create",
        PlanAction::Update => "in-place",
        PlanAction::Restart => "restart",
        PlanAction::Recreate => "re-create",
        PlanAction::Remove => "remove",
        PlanAction::Blocked => "blocked",
        PlanAction::Unknown => "change",
    };
    let mut text =
        format!("{} {} {}", style.paint(paint, mark), word, style.paint(Paint::Bold, &printable(&step.object)));
    if !step.what.is_empty() {
        text.push_str(&format!(": {}", printable(&step.what)));
    }
    let name = step.object.rsplit('/').next().unwrap_or_default();
    match (step.action, step.interruption_ms) {
        (PlanAction::Restart | PlanAction::Recreate, 0) => text.push_str(&format!(" (restarts {name})")),
        (_, 0) => {}
        (_, ms) => text.push_str(&format!(" (restarts {name}, ~{})", report::milliseconds(ms))),
    }
    text.push('\n');
    text
}

/// Where it was asked for, the fields that caused it, and the reason.
fn cause(step: &PlanStep, style: Style, diff: bool) -> String {
    let mut text = String::new();
    let mut parts = Vec::new();
    if !step.source.is_empty() {
        parts.push(printable(&step.source));
    }
    if !step.changes.is_empty() && !diff {
        parts.push(step.changes.iter().map(|c| c.path.as_str()).collect::<Vec<_>>().join(", "));
    }
    if !step.reason.is_empty() {
        parts.push(printable(&step.reason));
    }
    if !parts.is_empty() {
        text.push_str(&format!("      {}\n", parts.join(": ")));
    }
    if diff {
        text.push_str(&report::changes(style, &step.changes, "      "));
    }
    text
}

fn counts(steps: &[PlanStep]) -> String {
    let kinds = [
        (PlanAction::Create, "to create"),
        (PlanAction::Update, "in place"),
        (PlanAction::Restart, "to restart"),
        (PlanAction::Recreate, "to re-create"),
        (PlanAction::Remove, "to remove"),
        (PlanAction::Blocked, "blocked"),
        (PlanAction::Unknown, "other"),
    ];
    let counted = kinds.into_iter().filter_map(|(action, word)| {
        let count = steps.iter().filter(|s| s.action == action).count();
        (count > 0).then(|| format!("{count} {word}"))
    });
    counted.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> PlanReport {
        serde_json::from_value(json!({"steps": [
            {"action": "create", "object": "pods/default/new", "what": "start container main", "reason": "it is declared",
             "source": "/etc/reddwarf.d/new.yaml:1"},
            {"action": "update", "object": "pods/default/web", "what": "set the memory limit", "reason": "limits change in place",
             "source": "/etc/reddwarf.d/web.yaml:14",
             "changes": [{"path": "spec.containers[0].resources.limits.memory", "old": "64Mi", "new": "128Mi"}]},
            {"action": "recreate", "object": "pods/default/db", "what": "make the sandbox anew", "reason": "the host name changed",
             "source": "/etc/reddwarf.d/db.yaml:6", "interruptionMs": 3000,
             "changes": [{"path": "spec.hostname", "new": "db1"}]},
            {"action": "restart", "object": "pods/default/api", "what": "restart container main", "reason": "asked for"},
            {"action": "remove", "object": "pods/default/old", "what": "stop it", "reason": "no file declares it any more"},
            {"action": "blocked", "object": "pods/default/bad", "what": "create container main", "reason": "secret key is missing"},
            {"action": "update", "object": "secrets/default/key", "what": "", "reason": "",
             "changes": [{"path": "data.word", "old": "<redacted>", "new": "<redacted>"}]},
        ], "unknown": ["images: the store is locked"]}))
        .unwrap()
    }

    #[test]
    fn every_action_has_its_mark_source_and_cause() {
        assert_eq!(
            render(&report(), Style::default(), false),
            "+ create pods/default/new: start container main\n      \
             /etc/reddwarf.d/new.yaml:1: it is declared\n\
             ~ in-place pods/default/web: set the memory limit\n      \
             /etc/reddwarf.d/web.yaml:14: spec.containers[0].resources.limits.memory: limits change in place\n\
             -/+ re-create pods/default/db: make the sandbox anew (restarts db, ~3 s)\n      \
             /etc/reddwarf.d/db.yaml:6: spec.hostname: the host name changed\n\
             ~ restart pods/default/api: restart container main (restarts api)\n      asked for\n\
             - remove pods/default/old: stop it\n      no file declares it any more\n\
             ! blocked pods/default/bad: create container main\n      secret key is missing\n\
             ~ in-place secrets/default/key\n      data.word\n\
             ? not observed, so the plan may be incomplete: images: the store is locked\n\
             \n1 to create, 2 in place, 1 to restart, 1 to re-create, 1 to remove, 1 blocked; no command has been executed.\n"
        );
    }

    #[test]
    fn a_diff_shows_old_and_new_and_nothing_is_said_of_nothing() {
        let text = render(&report(), Style::default(), true);
        assert!(text.contains("      ~ spec.containers[0].resources.limits.memory: \"64Mi\" → \"128Mi\"\n"), "{text}");
        assert!(
            text.contains("      + spec.hostname: \"db1\"\n")
                && text.contains("~ data.word: <redacted> → <redacted>\n")
        );
        let nothing = render(&PlanReport::default(), Style::default(), true);
        assert_eq!(nothing, "Nothing to do; no command has been executed.\n");
    }
}
