//! `describe`: objects in words, with their events. Values of Secrets are never shown.

use super::{describe_pod, events};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::kube::{self, Query};
use crate::output::printable;
use crate::target;
use reddwarf_objects::{Kind, SOURCE_ANNOTATION};
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kinds and names: `pod/web`, `pods web db`, `node`
    #[arg(required = true, value_name = "KIND[/NAME]")]
    what: Vec<String>,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    selector: String,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let mut exit = Exit::Ok;
    let mut first = true;
    for target in target::targets(&arguments.what)? {
        let objects = match &target.name {
            Some(name) => match kube::get(&context.daemon, target.kind, context.namespace(), name).await {
                Ok(object) => vec![object],
                Err(e) if e.is_not_found() => {
                    exit = context.fail(&e);
                    continue;
                }
                Err(e) => return Err(e),
            },
            None => {
                let namespace = (!arguments.all_namespaces).then(|| context.namespace());
                let query = Query { labels: &arguments.selector, fields: "" };
                kube::list(&context.daemon, target.kind, namespace, &query).await?.items
            }
        };
        for object in objects {
            let events = events_of(context, target.kind, &object).await;
            let separator = if first { "" } else { "\n\n" };
            first = false;
            context.print(&format!("{separator}{}", text(context, target.kind, object, &events)))?;
        }
    }
    Ok(exit)
}

async fn events_of(context: &Context, kind: &Kind, object: &Value) -> Vec<Value> {
    let Ok(events) = target::kind("events") else { return Vec::new() };
    let fields =
        format!("involvedObject.kind={},involvedObject.name={}", kind.kind, kube::text(object, "/metadata/name"));
    let namespace = Some(kube::text(object, "/metadata/namespace")).filter(|n| !n.is_empty());
    // A description without events is better than none.
    let list = kube::list(&context.daemon, events, namespace, &Query { labels: "", fields: &fields }).await;
    let mut items = list.map(|l| l.items).unwrap_or_default();
    items.sort_by_key(events::order);
    items
}

fn text(context: &Context, kind: &Kind, object: Value, events: &[Value]) -> String {
    let mut text = head(&object);
    if kind.is_core("Pod") {
        text.push_str(&describe_pod::body(&object, context.now()));
    } else {
        text.push_str(&body(kind, object));
    }
    if events.is_empty() {
        text.push_str("Events:        none\n");
    } else {
        let table = events::table(events, context.now()).render(context.style, context.width);
        text.push_str("Events:\n");
        text.push_str(&indented(&table, "  "));
    }
    text
}

/// A line of `describe`: the label padded to one column.
pub(crate) fn field(label: &str, value: &str) -> String {
    format!("{:<14} {}\n", format!("{label}:"), printable(value)).trim_end().to_owned() + "\n"
}

/// Name, namespace, declaring file, labels and annotations.
fn head(object: &Value) -> String {
    let meta = |name: &str| kube::text(object, &format!("/metadata/{name}")).to_owned();
    let mut text = field("Name", &meta("name"));
    if !meta("namespace").is_empty() {
        text.push_str(&field("Namespace", &meta("namespace")));
    }
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    let source = annotations.and_then(|a| a.get(SOURCE_ANNOTATION)).and_then(Value::as_str);
    text.push_str(&field("Declared in", source.unwrap_or("the API")));
    text.push_str(&field("Created", &meta("creationTimestamp")));
    if !meta("deletionTimestamp").is_empty() {
        text.push_str(&field("Deleted since", &meta("deletionTimestamp")));
    }
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let pairs = |map: &serde_json::Map<String, Value>, skip: &[&str]| -> Vec<String> {
        let shown = map.iter().filter(|(key, _)| !skip.contains(&key.as_str()));
        shown.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect()
    };
    for (label, map) in [("Labels", labels), ("Annotations", annotations)] {
        // kubectl's copy of what was applied may hold a Secret's values.
        let skip = [SOURCE_ANNOTATION, "kubectl.kubernetes.io/last-applied-configuration"];
        let pairs = map.map(|m| pairs(m, &skip)).unwrap_or_default();
        for (index, pair) in pairs.iter().enumerate() {
            text.push_str(&if index == 0 { field(label, pair) } else { format!("{:15}{}\n", "", printable(pair)) });
        }
    }
    text
}

/// Everything but metadata, as YAML; of Secrets only the keys and sizes.
fn body(kind: &Kind, mut object: Value) -> String {
    if kind.is_core("Secret") {
        redact(&mut object);
    }
    if let Value::Object(map) = &mut object {
        for known in ["apiVersion", "kind", "metadata"] {
            map.remove(known);
        }
        if map.is_empty() {
            return String::new();
        }
    }
    reddwarf_config::emit_yaml(&object)
}

fn redact(secret: &mut Value) {
    for field in ["data", "stringData"] {
        let Some(map) = secret.get_mut(field).and_then(Value::as_object_mut) else { continue };
        for value in map.values_mut() {
            let encoded = value.as_str().unwrap_or_default();
            let bytes = if field == "data" {
                let padding = encoded.bytes().rev().take_while(|b| *b == b'=').count();
                (encoded.len() / 4 * 3).saturating_sub(padding)
            } else {
                encoded.len()
            };
            *value = format!("{bytes} bytes").into();
        }
    }
}

/// Every line behind `indent`.
pub(crate) fn indented(text: &str, indent: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{indent}{line}\n") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_secrets_are_not_shown() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"word": "aHVzaA==", "x": ""},
            "metadata": {"name": "key", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"},
                "annotations": {"reddwarf.io/source": "/etc/reddwarf.d/key.yaml",
                    "kubectl.kubernetes.io/last-applied-configuration": "aHVzaA=="}}});
        let text = head(&secret) + &body(target::kind("secret").unwrap(), secret);
        assert_eq!(
            text,
            "Name:          key\nNamespace:     default\nDeclared in:   /etc/reddwarf.d/key.yaml\n\
             Created:       2026-01-01T00:00:00Z\nLabels:        a=b\n\
             data:\n  word: \"4 bytes\"\n  x: \"0 bytes\"\ntype: Opaque\n"
        );
    }
}
