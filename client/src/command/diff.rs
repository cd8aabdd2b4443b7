//! `diff`: what differs between two generations. Exit 2 when something does.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{Style, printable};
use crate::report;
use crate::wire::GenerationDiff;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// From this generation
    from: u64,
    /// To this one
    to: u64,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let path = format!("/reddwarf/v1/generations/{}/diff/{}", arguments.from, arguments.to);
    let diff: GenerationDiff = context.daemon.get(&path).await?;
    if !context.structured(&diff)? {
        context.print(&render(&diff, context.style))?;
    }
    Ok(if diff.objects.is_empty() && diff.files.is_empty() { Exit::Ok } else { Exit::Changes })
}

fn render(diff: &GenerationDiff, style: Style) -> String {
    if diff.objects.is_empty() && diff.files.is_empty() {
        return format!("Generations {} and {} are equal.\n", diff.from, diff.to);
    }
    let mut text = String::new();
    for file in &diff.files {
        text.push_str(&format!("file {}\n", printable(file)));
    }
    for object in &diff.objects {
        let (mark, paint) = report::mark(object.action);
        text.push_str(&format!("{} {}\n", style.paint(paint, mark), style.bold(&printable(&object.object))));
        text.push_str(&report::changes(style, &object.changes, "    "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn old_and_new_values_are_shown() {
        let diff: GenerationDiff = serde_json::from_value(json!({
            "from": 1, "to": 2, "files": ["~ c.yaml", "+ d.yaml"],
            "objects": [
                {"object": "configmaps/default/c", "action": "update", "changes": [{"path": "data.value", "old": "one", "new": "two"}]},
                {"object": "pods/default/d", "action": "create"},
            ],
        }))
        .unwrap();
        assert_eq!(
            render(&diff, Style::default()),
            "file ~ c.yaml\nfile + d.yaml\n~ configmaps/default/c\n    ~ data.value: \"one\" → \"two\"\n+ pods/default/d\n"
        );
    }
}
