//! The Kubernetes-style routes: get, list, watch and delete of objects of any kind.

use crate::daemon::{Daemon, Stream, encode, with_query};
use crate::error::Error;
use crate::wire::Status;
use reddwarf_objects::Kind;
use serde::Deserialize;
use serde_json::{Value, json};

/// Objects fetched with one request.
const PAGE: &str = "500";

/// What narrows a list or a watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query<'a> {
    /// Label selector; empty for all.
    pub(crate) labels: &'a str,
    /// Field selector; empty for all.
    pub(crate) fields: &'a str,
}

/// A list of objects, each with its apiVersion and kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    pub(crate) items: Vec<Value>,
    /// Watch from here to miss nothing.
    pub(crate) resource_version: String,
}

/// `/api/v1/namespaces/default/pods`, `/apis/apps/v1/deployments`.
pub(crate) fn collection(kind: &Kind, namespace: Option<&str>) -> String {
    let root =
        if kind.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}/{}", kind.group, kind.version) };
    match namespace.filter(|_| kind.namespaced) {
        Some(namespace) => format!("{root}/namespaces/{}/{}", encode(namespace), kind.plural),
        None => format!("{root}/{}", kind.plural),
    }
}

/// The path of one object.
pub(crate) fn object(kind: &Kind, namespace: &str, name: &str) -> String {
    format!("{}/{}", collection(kind, Some(namespace)), encode(name))
}

/// One object.
pub(crate) async fn get(daemon: &Daemon, kind: &Kind, namespace: &str, name: &str) -> Result<Value, Error> {
    let mut value: Value = daemon.get(&object(kind, namespace, name)).await?;
    complete(kind, &mut value);
    Ok(value)
}

/// All objects of a kind, `None` for all namespaces, page by page.
pub(crate) async fn list(
    daemon: &Daemon,
    kind: &Kind,
    namespace: Option<&str>,
    query: &Query<'_>,
) -> Result<List, Error> {
    let path = collection(kind, namespace);
    let mut list = List::default();
    let mut token = String::new();
    loop {
        let path = with_query(
            &path,
            &[("labelSelector", query.labels), ("fieldSelector", query.fields), ("limit", PAGE), ("continue", &token)],
        );
        let page: Value = daemon.get(&path).await?;
        let text = |pointer: &str| page.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        list.resource_version = text("/metadata/resourceVersion");
        token = text("/metadata/continue");
        if let Some(Value::Array(items)) = page.get("items") {
            list.items.extend(items.iter().cloned().map(|mut item| {
                complete(kind, &mut item);
                item
            }));
        }
        if token.is_empty() {
            return Ok(list);
        }
    }
}

/// apiVersion and kind, which items of a list lack.
fn complete(kind: &Kind, value: &mut Value) {
    if let Value::Object(map) = value {
        map.entry("apiVersion").or_insert_with(|| kind.api_version().into());
        map.entry("kind").or_insert_with(|| kind.kind.into());
    }
}

/// What a watch tells.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) object: Value,
}

impl Event {
    /// Was it deleted?
    pub(crate) fn is_deletion(&self) -> bool {
        self.kind == "DELETED"
    }
}

/// Changes as they come.
pub(crate) struct Watch<'a> {
    stream: Stream,
    kind: &'a Kind,
}

/// Watches from a list's resource version.
pub(crate) async fn watch<'a>(
    daemon: &Daemon,
    kind: &'a Kind,
    namespace: Option<&str>,
    query: &Query<'_>,
    from: &str,
) -> Result<Watch<'a>, Error> {
    let path = with_query(
        &collection(kind, namespace),
        &[
            ("watch", "true"),
            ("labelSelector", query.labels),
            ("fieldSelector", query.fields),
            ("resourceVersion", from),
        ],
    );
    Ok(Watch { stream: daemon.stream(&path).await?, kind })
}

impl Watch<'_> {
    /// The next change; `None` when the daemon ended the watch.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            let Some(mut event) = self.stream.json::<Event>().await? else { return Ok(None) };
            match event.kind.as_str() {
                "BOOKMARK" => {}
                "ERROR" => {
                    let text = event.object.to_string();
                    let code = event.object.get("code").and_then(Value::as_u64).and_then(|c| u16::try_from(c).ok());
                    let status = Box::new(Status::parse(code.unwrap_or(500), text.as_bytes()));
                    return Err(Error::Refused { status });
                }
                _ => {
                    complete(self.kind, &mut event.object);
                    return Ok(Some(event));
                }
            }
        }
    }
}

/// Deletes one object. `grace` in seconds; `None` for the object's own.
pub(crate) async fn delete(
    daemon: &Daemon,
    kind: &Kind,
    namespace: &str,
    name: &str,
    grace: Option<u64>,
) -> Result<Value, Error> {
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
    if let (Some(grace), Some(map)) = (grace, options.as_object_mut()) {
        map.insert("gracePeriodSeconds".into(), grace.into());
    }
    daemon.delete(&object(kind, namespace, name), &options).await
}

/// A `v1` `List` of objects, as `get -o json` prints several.
pub(crate) fn list_of(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

/// The text at a JSON pointer; empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The array at a JSON pointer; empty when there is none.
pub(crate) fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Is a condition of this type `True`?
pub(crate) fn condition<'a>(value: &'a Value, kind: &str) -> Option<&'a Value> {
    array(value, "/status/conditions").iter().find(|c| text(c, "/type").eq_ignore_ascii_case(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_objects::kinds;

    #[test]
    fn paths_follow_group_and_scope() {
        let kind = |alias: &str| kinds().by_alias(alias).unwrap();
        assert_eq!(collection(kind("po"), Some("a")), "/api/v1/namespaces/a/pods");
        assert_eq!(collection(kind("po"), None), "/api/v1/pods");
        assert_eq!(object(kind("deploy"), "a", "b"), "/apis/apps/v1/namespaces/a/deployments/b");
        assert_eq!(object(kind("no"), "a", "n"), "/api/v1/nodes/n");
    }
}
