//! `why`: the chain of causes, from the line of a file to the last error.

use crate::context::Context;
use crate::daemon::encode;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{Style, printable};
use crate::target;
use crate::wire::WhyReport;
use chrono::{DateTime, Utc};
use reddwarf_objects::print;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The object: `pod/web`, or `web` for a pod
    object: String,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let (kind, name) = target::one(&arguments.object)?;
    let namespace = if kind.namespaced { context.namespace() } else { "-" };
    let path = format!("/reddwarf/v1/why/{}/{}/{}", kind.group_resource(), encode(namespace), encode(&name));
    let report: WhyReport = context.daemon.get(&path).await?;
    if !context.structured(&report)? {
        context.print(&render(&report, context.style, context.now()))?;
    }
    Ok(if report.ok { Exit::Ok } else { Exit::Degraded })
}

fn render(report: &WhyReport, style: Style, now: DateTime<Utc>) -> String {
    let state = if report.ok { style.good("as asked") } else { style.bad("not as asked") };
    let mut text = format!("{} is {state}: {}\n", printable(&report.object), printable(&report.summary));
    for link in &report.chain {
        let since = link.since.map(|t| format!(" ({} ago)", print::age(Some(t), now))).unwrap_or_default();
        let body = link.text.trim_end().lines().map(printable).collect::<Vec<_>>().join("\n               ");
        text.push_str(&format!("  {:<10} {}{since}\n", link.kind, body));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_chain_reads_from_the_outside_in() {
        let report: WhyReport = serde_json::from_value(json!({
            "object": "pods/default/bad", "ok": false, "summary": "container main ends soon after its start",
            "chain": [
                {"kind": "source", "text": "/etc/reddwarf.d/bad.yaml:1"},
                {"kind": "container", "text": "main: exit code 3", "since": "2026-01-01T00:00:00Z"},
            ],
        }))
        .unwrap();
        assert_eq!(
            render(&report, Style::default(), "2026-01-01T00:00:20Z".parse().unwrap()),
            "pods/default/bad is not as asked: container main ends soon after its start\n  \
             source     /etc/reddwarf.d/bad.yaml:1\n  \
             container  main: exit code 3 (20s ago)\n"
        );
    }
}
