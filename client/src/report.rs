//! Texts shared by the commands that show what was or would be changed.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{Paint, Style, jsonpath};
use crate::wire::{AppliedObject, ApplyVerdict, FieldChange, PlanAction};
use serde_json::Value;

/// The mark of an action and its colour.
pub(crate) fn mark(action: PlanAction) -> (&'static str, Paint) {
    match action {
        PlanAction::Create => ("+", Paint::Good),
        PlanAction::Update | PlanAction::Restart => ("~", Paint::Warning),
        PlanAction::Recreate => ("-/+", Paint::Warning),
        PlanAction::Remove => ("-", Paint::Bad),
        PlanAction::Blocked => ("!", Paint::Bad),
        PlanAction::Unknown => ("?", Paint::Plain),
    }
}

/// `spec.containers[0].image: "a" → "b"`, one line a change.
pub(crate) fn changes(style: Style, changes: &[FieldChange], indent: &str) -> String {
    let line = |change: &FieldChange| {
        let text = match (&change.old, &change.new) {
            (None, Some(new)) => style.good(&format!("+ {}: {}", change.path, shown(new))),
            (Some(old), None) => style.bad(&format!("- {}: {}", change.path, shown(old))),
            (Some(old), Some(new)) => {
                format!("~ {}: {} → {}", change.path, style.bad(&shown(old)), style.good(&shown(new)))
            }
            (None, None) => format!("~ {}", change.path),
        };
        format!("{indent}{text}\n")
    };
    changes.iter().map(line).collect()
}

/// A value on one line: short texts in quotes, the rest as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text == "<redacted>" => text.clone(),
        other => crate::output::printable(&other.to_string()),
    }
}

/// `pod/web created`, its changes with `--diff`, warnings on standard error.
pub(crate) fn applied(context: &Context, objects: &[AppliedObject], dry_run: bool, diff: bool) -> String {
    let style = context.style;
    let mut text = String::new();
    for object in objects {
        let (word, paint) = match object.verdict {
            ApplyVerdict::Created => ("created", Paint::Good),
            ApplyVerdict::Configured => ("configured", Paint::Warning),
            ApplyVerdict::Unchanged => ("unchanged", Paint::Plain),
            ApplyVerdict::Refused => ("refused", Paint::Bad),
            ApplyVerdict::Pending => ("pending", Paint::Warning),
            ApplyVerdict::Deleted => ("deleted", Paint::Bad),
            ApplyVerdict::Unknown => ("handled", Paint::Plain),
        };
        for warning in &object.warnings {
            context.warn(&format!("{}: {warning}", object.short()));
        }
        let dry = if dry_run { " (dry run)" } else { "" };
        let name = crate::output::printable(&object.short());
        text.push_str(&format!("{name} {}{dry}", style.paint(paint, word)));
        if !object.message.is_empty() && object.verdict != ApplyVerdict::Refused {
            text.push_str(&format!(": {}", crate::output::printable(&object.message)));
        }
        text.push('\n');
        if diff {
            text.push_str(&changes(style, &object.changes, "    "));
        }
    }
    text
}

/// What was refused is an error too, so it is told where errors are told.
pub(crate) fn refusals(context: &Context, objects: &[AppliedObject]) {
    for object in objects {
        let help = match object.refusal() {
            None => continue,
            Some(Exit::Conflict) => "change the file that declares it, or give yours another name",
            Some(_) => "",
        };
        let what = format!("{} was not applied: {}", object.short(), object.message);
        context.fail(&Error::usage(what, help));
    }
}

/// Would this change anything?
pub(crate) fn is_change(verdict: ApplyVerdict) -> bool {
    !matches!(verdict, ApplyVerdict::Unchanged | ApplyVerdict::Refused)
}

/// `3 s`, `250 ms`.
pub(crate) fn milliseconds(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{} s", ms.div_ceil(1000)) }
}

/// A value as text, for tables.
pub(crate) fn cell(value: &Value) -> String {
    jsonpath::text(value)
}
