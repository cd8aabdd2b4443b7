//! `get`: objects as tables, JSON, YAML, names or a template's text; `-w` goes on with what changes.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::kube::{self, Query, Watch};
use crate::output::Output;
use crate::output::table::{Cell, Table};
use crate::pod_reason;
use crate::target::{self, Target};
use reddwarf_objects::{Kind, Object, print};
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kinds and names: `pods`, `pods web db`, `pods,svc`, `pod/web cm/site`, `all`
    #[arg(required = true, value_name = "KIND[/NAME] | KIND NAME...")]
    pub(crate) what: Vec<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels: `app=web,tier!=db,env in (a, b)`
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    selector: String,
    /// Only objects with these fields: `status.phase=Running`
    #[arg(long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    field_selector: String,
    /// Go on and print what changes
    #[arg(short, long)]
    watch: bool,
    /// With -o json and yaml: also who owns which field, which is left out else
    #[arg(long)]
    show_managed_fields: bool,
    /// Print no header
    #[arg(long)]
    no_headers: bool,
    /// Objects that do not exist are no error
    #[arg(long)]
    ignore_not_found: bool,
}

impl Arguments {
    /// An object as it is printed: without its managedFields, as kubectl shows it.
    fn shown(&self, output: &Output, mut object: Value) -> Value {
        if !self.show_managed_fields
            && matches!(output, Output::Json | Output::Yaml)
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("managedFields");
        }
        object
    }
}

/// Objects of one kind as they were asked for.
struct Found {
    kind: &'static Kind,
    items: Vec<Value>,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let targets = target::targets(&arguments.what)?;
    if arguments.watch {
        return watch(context, arguments, &targets).await;
    }
    let mut exit = Exit::Ok;
    let mut found: Vec<Found> = Vec::new();
    for target in &targets {
        match fetch(context, arguments, target).await {
            Ok(fetched) => merge(&mut found, fetched),
            Err(e) if e.is_not_found() && target.name.is_some() => {
                if !arguments.ignore_not_found {
                    exit = context.fail(&e);
                }
            }
            Err(e) => return Err(e),
        }
    }
    let one = targets.len() == 1 && targets[0].name.is_some();
    match &context.output {
        None | Some(Output::Wide) => tables(context, arguments, &found, targets.len() > 1)?,
        Some(Output::Name) => {
            for group in &found {
                for item in &group.items {
                    context.print(&format!("{}\n", Target::short(group.kind, kube::text(item, "/metadata/name"))))?;
                }
            }
        }
        Some(output) => {
            let items = found.into_iter().flat_map(|group| group.items);
            let mut items: Vec<Value> = items.map(|item| arguments.shown(output, item)).collect();
            match (one, items.pop()) {
                (true, Some(item)) => context.print_value(output, &item)?,
                (true, None) => {}
                (false, last) => {
                    items.extend(last);
                    context.print_value(output, &kube::list_of(items))?;
                }
            }
        }
    }
    Ok(exit)
}

async fn fetch(context: &Context, arguments: &Arguments, target: &Target) -> Result<Found, Error> {
    let kind = target.kind;
    if let Some(name) = &target.name {
        if arguments.all_namespaces && kind.namespaced {
            let help = "leave out the name, or -A; `--field-selector metadata.name=NAME` finds a name everywhere";
            return Err(Error::usage("a name can't be looked up in all namespaces", help));
        }
        let item = kube::get(&context.daemon, kind, context.namespace(), name).await?;
        return Ok(Found { kind, items: vec![item] });
    }
    let list = kube::list(&context.daemon, kind, namespace(context, arguments), &query(arguments)).await?;
    Ok(Found { kind, items: list.items })
}

fn namespace<'a>(context: &'a Context, arguments: &Arguments) -> Option<&'a str> {
    (!arguments.all_namespaces).then(|| context.namespace())
}

fn query(arguments: &Arguments) -> Query<'_> {
    Query { labels: &arguments.selector, fields: &arguments.field_selector }
}

/// Objects of one kind that were named one by one stand in one table.
fn merge(found: &mut Vec<Found>, fetched: Found) {
    match found.last_mut() {
        Some(last) if std::ptr::eq(last.kind, fetched.kind) => last.items.extend(fetched.items),
        _ => found.push(fetched),
    }
}

fn tables(context: &Context, arguments: &Arguments, found: &[Found], several: bool) -> Result<(), Error> {
    let shown: Vec<&Found> = found.iter().filter(|group| !group.items.is_empty()).collect();
    if shown.is_empty() {
        let place = match namespace(context, arguments) {
            Some(namespace) if found.iter().any(|group| group.kind.namespaced) => format!(" in namespace {namespace}"),
            _ => String::new(),
        };
        if !found.is_empty() {
            context.note(&format!("No resources found{place}."));
        }
        return Ok(());
    }
    let mixed = several && shown.len() > 1;
    for (index, group) in shown.iter().enumerate() {
        let table = table(context, arguments, group.kind, &group.items, mixed);
        let widths = table.widths(&[]);
        let mut text = if index > 0 { "\n".to_owned() } else { String::new() };
        if !arguments.no_headers {
            text.push_str(&table.header_line(context.style, &widths));
        }
        text.push_str(&table.lines(context.style, &widths, context.width));
        context.print(&text)?;
    }
    Ok(())
}

/// Rows of objects of one kind, with NAMESPACE in front for all namespaces, and REASON at the end for pods.
fn table(context: &Context, arguments: &Arguments, kind: &Kind, items: &[Value], qualified: bool) -> Table {
    let wide = context.output == Some(Output::Wide);
    let namespaces = arguments.all_namespaces && kind.namespaced;
    let pods = kind.is_core("Pod");
    let shown: Vec<usize> = (0..kind.columns.len()).filter(|i| wide || !kind.columns[*i].wide).collect();
    let mut header: Vec<String> = Vec::new();
    if namespaces {
        header.push("NAMESPACE".into());
    }
    header.extend(shown.iter().map(|i| print::header(kind.columns[*i].name)));
    if pods {
        header.push("REASON".into());
    }
    let mut table = Table::new(header);
    for item in items {
        let Ok(object) = Object::from_value(item.clone()) else { continue };
        let cells = print::row(kind, &object, context.now());
        let mut row: Vec<Cell> = Vec::new();
        if namespaces {
            row.push(object.namespace().unwrap_or_default().into());
        }
        for index in &shown {
            let text = cells.get(*index).map(print::cell_text).unwrap_or_default();
            row.push(match kind.columns[*index].name {
                "Name" if qualified => Target::short(kind, &text).into(),
                "Status" | "Type" => Cell::status(&text),
                _ => text.into(),
            });
        }
        if pods {
            row.push(pod_reason::reason(item).into());
        }
        table.push(row);
    }
    table
}

/// First what is there, then every change, until interrupted.
async fn watch(context: &Context, arguments: &Arguments, targets: &[Target]) -> Result<Exit, Error> {
    let [target] = targets else {
        return Err(Error::usage(
            "only one kind, or one object, can be watched",
            "name one, and use -l to pick several",
        ));
    };
    let by_name;
    let mut query = query(arguments);
    if let Some(name) = &target.name {
        by_name = format!("metadata.name={name}");
        query.fields = &by_name;
    }
    let namespace = namespace(context, arguments);
    let mut widths: Vec<usize> = Vec::new();
    let mut seen = String::new();
    let mut first = true;
    loop {
        let list = kube::list(&context.daemon, target.kind, namespace, &query).await?;
        // After a watch that the daemon ended, only what changed meanwhile is news.
        let news: Vec<Value> = list.items.into_iter().filter(|item| newer(item, &seen)).collect();
        show_changes(context, arguments, target.kind, &news, &mut widths, first)?;
        first = false;
        seen = list.resource_version;
        let mut watch = kube::watch(&context.daemon, target.kind, namespace, &query, &seen).await?;
        follow(context, arguments, target.kind, &mut watch, &mut widths, &mut seen).await?;
    }
}

fn newer(item: &Value, seen: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    number(kube::text(item, "/metadata/resourceVersion")) > number(seen) || seen.is_empty()
}

async fn follow(
    context: &Context,
    arguments: &Arguments,
    kind: &'static Kind,
    watch: &mut Watch<'_>,
    widths: &mut Vec<usize>,
    seen: &mut String,
) -> Result<(), Error> {
    loop {
        match watch.next().await {
            Ok(Some(event)) => {
                *seen = kube::text(&event.object, "/metadata/resourceVersion").to_owned();
                show_changes(context, arguments, kind, &[event.object], widths, false)?;
            }
            Ok(None) => return Ok(()),
            // Too old to go on from: the list tells what is there now.
            Err(Error::Refused { status }) if status.code == 410 => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

fn show_changes(
    context: &Context,
    arguments: &Arguments,
    kind: &'static Kind,
    items: &[Value],
    widths: &mut Vec<usize>,
    header: bool,
) -> Result<(), Error> {
    match &context.output {
        None | Some(Output::Wide) => {
            let table = table(context, arguments, kind, items, false);
            *widths = table.widths(widths);
            let head =
                if header && !arguments.no_headers { table.header_line(context.style, widths) } else { String::new() };
            context.print(&(head + &table.lines(context.style, widths, context.width)))
        }
        Some(Output::Name) => {
            let lines = items.iter().map(|i| format!("{}\n", Target::short(kind, kube::text(i, "/metadata/name"))));
            context.print(&lines.collect::<String>())
        }
        Some(output) => items.iter().try_for_each(|item| {
            if *output == Output::Yaml {
                context.print("---\n")?;
            }
            context.print_value(output, &arguments.shown(output, item.clone()))
        }),
    }
}
