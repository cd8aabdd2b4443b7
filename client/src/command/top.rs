//! `top`: what the node and its pods use just now.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::kube::{self, Query};
use crate::output::table::{Cell, Table};
use reddwarf_objects::{Kind, Quantity, kinds};
use serde_json::{Value, json};
use std::str::FromStr;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only the node, or only pods; both when left out
    #[arg(value_enum)]
    what: Option<What>,
    /// Only this one
    #[arg(requires = "what")]
    name: Option<String>,
    /// Pods of all namespaces (also without `node` and `pod`)
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// A row for each container
    #[arg(long)]
    containers: bool,
    /// Only what has these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    selector: String,
    /// Most of it first
    #[arg(long, value_enum, default_value = "cpu")]
    sort_by: By,
    /// Print no header
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    #[value(aliases = ["nodes", "no"])]
    Node,
    #[value(aliases = ["pods", "po"])]
    Pod,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Cpu,
    Memory,
    Name,
}

/// What something uses, in thousandths of a processor and in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    cpu_millis: u64,
    memory_bytes: u64,
}

impl Used {
    fn of(usage: &Value) -> Self {
        let quantity = |field: &str| Quantity::from_str(kube::text(usage, field)).ok();
        let positive = |n: i64| u64::try_from(n).unwrap_or_default();
        Self {
            cpu_millis: quantity("/cpu").map_or(0, |q| positive(q.millis())),
            memory_bytes: quantity("/memory").map_or(0, |q| positive(q.units())),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    fn cells(self) -> [Cell; 2] {
        [format!("{}m", self.cpu_millis).into(), format!("{}Mi", self.memory_bytes >> 20).into()]
    }
}

/// One line about pods.
struct Row {
    namespace: String,
    pod: String,
    container: Option<String>,
    used: Used,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let (nodes, pods) = (kind("nodes")?, kind("pods")?);
    let mut report = serde_json::Map::new();
    let mut text = String::new();
    if arguments.what != Some(What::Pod) {
        let name = arguments.name.as_deref().filter(|_| arguments.what == Some(What::Node));
        let items = fetch(context, arguments, nodes, name).await?;
        text.push_str(&node_table(context, arguments, &items).await?);
        report.insert("nodes".into(), items.into());
    }
    if arguments.what != Some(What::Node) {
        let name = arguments.name.as_deref();
        let items = fetch(context, arguments, pods, name).await?;
        let rows = rows(&items, arguments);
        if !rows.is_empty() {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&pod_table(context, arguments, rows));
        } else if arguments.what == Some(What::Pod) {
            context.note("No resources found.");
        }
        report.insert("pods".into(), items.into());
    }
    if !context.structured(&json!(report))? {
        context.print(&text)?;
    }
    Ok(Exit::Ok)
}

fn kind(plural: &str) -> Result<&'static Kind, Error> {
    let found = kinds().by_group_resource("metrics.k8s.io", plural);
    found.ok_or_else(|| Error::usage("this reddwarfctl knows no metrics", "install another version"))
}

async fn fetch(context: &Context, arguments: &Arguments, kind: &Kind, name: Option<&str>) -> Result<Vec<Value>, Error> {
    if let Some(name) = name {
        return Ok(vec![kube::get(&context.daemon, kind, context.namespace(), name).await?]);
    }
    let everywhere = arguments.all_namespaces || arguments.what.is_none();
    let query = Query { labels: if kind.namespaced { &arguments.selector } else { "" }, ..Query::default() };
    let namespace = (!everywhere).then(|| context.namespace());
    Ok(kube::list(&context.daemon, kind, namespace, &query).await?.items)
}

async fn node_table(context: &Context, arguments: &Arguments, items: &[Value]) -> Result<String, Error> {
    let mut table = Table::new(["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]);
    let core = kinds().by_group_resource("", "nodes");
    for item in items {
        let name = kube::text(item, "/metadata/name");
        let node = match core {
            Some(core) => kube::get(&context.daemon, core, "", name).await?,
            None => Value::Null,
        };
        let all = node.pointer("/status/allocatable").map(Used::of).unwrap_or_default();
        let used = item.get("usage").map(Used::of).unwrap_or_default();
        let [cpu, memory] = used.cells();
        let (of_cpu, of_memory) =
            (percent(used.cpu_millis, all.cpu_millis), percent(used.memory_bytes, all.memory_bytes));
        table.push(vec![name.into(), cpu, of_cpu.into(), memory, of_memory.into()]);
    }
    Ok(rendered(context, arguments, &table))
}

fn percent(part: u64, of: u64) -> String {
    part.saturating_mul(100).checked_div(of).map_or_else(|| "<unknown>".into(), |percent| format!("{percent}%"))
}

fn rows(items: &[Value], arguments: &Arguments) -> Vec<Row> {
    let mut rows = Vec::new();
    for item in items {
        let text = |pointer: &str| kube::text(item, pointer).to_owned();
        let (namespace, pod) = (text("/metadata/namespace"), text("/metadata/name"));
        let containers = item.get("containers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let used = |container: &Value| container.get("usage").map(Used::of).unwrap_or_default();
        if arguments.containers {
            rows.extend(containers.iter().map(|c| Row {
                namespace: namespace.clone(),
                pod: pod.clone(),
                container: Some(kube::text(c, "/name").to_owned()),
                used: used(c),
            }));
        } else {
            let used = containers.iter().map(used).fold(Used::default(), Used::plus);
            rows.push(Row { namespace, pod, container: None, used });
        }
    }
    rows.sort_by(|a, b| {
        let by_name = || (&a.namespace, &a.pod, &a.container).cmp(&(&b.namespace, &b.pod, &b.container));
        match arguments.sort_by {
            By::Cpu => b.used.cpu_millis.cmp(&a.used.cpu_millis).then_with(by_name),
            By::Memory => b.used.memory_bytes.cmp(&a.used.memory_bytes).then_with(by_name),
            By::Name => by_name(),
        }
    });
    rows
}

fn pod_table(context: &Context, arguments: &Arguments, rows: Vec<Row>) -> String {
    let namespaces = arguments.all_namespaces || arguments.what.is_none();
    let head = namespaces.then_some("NAMESPACE").into_iter();
    let head = head.chain([if arguments.containers { "POD" } else { "NAME" }]);
    let head = head.chain(arguments.containers.then_some("NAME"));
    let mut table = Table::new(head.chain(["CPU(cores)", "MEMORY(bytes)"]));
    for row in rows {
        let mut cells: Vec<Cell> = Vec::new();
        if namespaces {
            cells.push(row.namespace.into());
        }
        cells.push(row.pod.into());
        cells.extend(row.container.map(Cell::from));
        cells.extend(row.used.cells());
        table.push(cells);
    }
    rendered(context, arguments, &table)
}

fn rendered(context: &Context, arguments: &Arguments, table: &Table) -> String {
    let widths = table.widths(&[]);
    let header = if arguments.no_headers { String::new() } else { table.header_line(context.style, &widths) };
    header + &table.lines(context.style, &widths, context.width)
}
