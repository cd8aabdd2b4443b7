//! `events`: what happened lately, oldest first; in all namespaces unless one is named.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::kube::{self, Query};
use crate::output::table::{Cell, Table};
use crate::target;
use chrono::{DateTime, Utc};
use reddwarf_objects::print;
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only of this object: `pod/web`
    #[arg(long = "for", value_name = "KIND/NAME")]
    object: Option<String>,
    /// In all namespaces (as without -n)
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Go on and print what happens
    #[arg(short, long)]
    watch: bool,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let kind = target::kind("events")?;
    let fields = match &arguments.object {
        Some(object) => {
            let (kind, name) = target::one(object)?;
            format!("involvedObject.kind={},involvedObject.name={name}", kind.kind)
        }
        None => String::new(),
    };
    let query = Query { labels: "", fields: &fields };
    let namespace = context.namespace.as_deref().filter(|_| !arguments.all_namespaces);
    let mut list = kube::list(&context.daemon, kind, namespace, &query).await?;
    list.items.sort_by_key(order);
    show(context, &list.items, true)?;
    if !arguments.watch {
        return Ok(Exit::Ok);
    }
    let mut watch = kube::watch(&context.daemon, kind, namespace, &query, &list.resource_version).await?;
    while let Some(event) = watch.next().await? {
        if !event.is_deletion() {
            show(context, &[event.object], false)?;
        }
    }
    Ok(Exit::Ok)
}

fn show(context: &Context, events: &[Value], first: bool) -> Result<(), Error> {
    if context.structured(&kube::list_of(events.to_vec()))? {
        return Ok(());
    }
    if events.is_empty() {
        context.note("No events.");
        return Ok(());
    }
    let table = table(events, context.now());
    if first {
        context.print(&table.render(context.style, context.width))
    } else {
        context.print(&table.lines(context.style, &table.widths(&[]), context.width))
    }
}

/// Events of any objects as a table.
pub(crate) fn table(events: &[Value], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    for event in events {
        let namespace = kube::text(event, "/involvedObject/namespace");
        let kind = kube::text(event, "/involvedObject/kind").to_lowercase();
        let name = kube::text(event, "/involvedObject/name");
        let object = if namespace.is_empty() || namespace == "default" {
            format!("{kind}/{name}")
        } else {
            format!("{kind}/{namespace}/{name}")
        };
        let count = event.get("count").and_then(Value::as_u64).unwrap_or(1);
        let mut age = print::age(last_seen(event), now);
        if count > 1 {
            age = format!("{age} (x{count})");
        }
        let message = kube::text(event, "/message").split_whitespace().collect::<Vec<_>>().join(" ");
        let kind = kube::text(event, "/type");
        let kind = if kind == "Warning" { Cell::status("Failed").with_text(kind) } else { kind.into() };
        table.push(vec![age.into(), kind, kube::text(event, "/reason").into(), object.into(), message.into()]);
    }
    table
}

/// Oldest first; within a second by revision.
pub(crate) fn order(event: &Value) -> (Option<DateTime<Utc>>, u64) {
    (last_seen(event), kube::text(event, "/metadata/resourceVersion").parse().unwrap_or(0))
}

/// When it was seen last.
fn last_seen(event: &Value) -> Option<DateTime<Utc>> {
    let pointers =
        ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/firstTimestamp", "/metadata/creationTimestamp"];
    pointers.iter().find_map(|p| DateTime::parse_from_rfc3339(kube::text(event, p)).ok()).map(|t| t.with_timezone(&Utc))
}
