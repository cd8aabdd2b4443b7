//! Operations: what can be done at which path.

use super::Version;
use super::definitions::{Definitions, PATCH, group_version_kind};
use crate::kind::{Kind, bodies, subresource_verbs};
use serde_json::{Map, Value, json};

/// Media types of objects.
const MEDIA: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// What a list may be answered in besides.
const STREAMS: [&str; 1] = ["application/json;stream=watch"];
const PATCH_MEDIA: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// A parameter of the query: name, type, what it is for.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = ("dryRun", "string", "`All`: do everything but store the result.");
const FIELD_MANAGER: Parameter =
    ("fieldManager", "string", "Who makes this change: at most 128 printable characters. Required for apply patches.");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What becomes of unknown and duplicate fields: `Strict` refuses them, `Warn` (the default) drops them with a warning, `Ignore` drops them.",
);
const FORCE: Parameter = ("force", "boolean", "Take over fields that others own. For apply patches only.");
const WRITE: [Parameter; 3] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCHING: [Parameter; 4] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const DELETE: [Parameter; 5] = [
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "Seconds until the object is removed; 0: at once."),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "Delete what can't be read."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: `Orphan`, `Background` or `Foreground`."),
];
const LIST: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean", "The watch may send bookmarks."),
    ("continue", "string", "Where the page before ended."),
    ("fieldSelector", "string", "Only objects with such fields."),
    ("labelSelector", "string", "Only objects with such labels."),
    ("limit", "integer", "At most so many objects a page."),
    ("resourceVersion", "string", "The version that the answer must have, be newer than, or begin after."),
    ("resourceVersionMatch", "string", "`Exact` or `NotOlderThan`."),
    ("sendInitialEvents", "boolean", "The watch begins with the objects there are."),
    ("timeoutSeconds", "integer", "The watch ends after so many seconds."),
    ("watch", "boolean", "Follow changes instead of listing."),
];

/// One operation, before it is written as one OpenAPI or the other.
struct Operation {
    method: &'static str,
    /// `x-kubernetes-action`.
    action: &'static str,
    id: String,
    description: String,
    parameters: &'static [Parameter],
    body: Option<Body>,
    answer: Answer,
    codes: &'static [(&'static str, &'static str)],
}

enum Body {
    /// An object of this definition.
    Object(String),
    Patch,
}

enum Answer {
    /// An object of this definition.
    Object(String),
    /// Objects, which may be watched.
    List(String),
    /// Text or a stream of bytes.
    Text,
}

const OK: &[(&str, &str)] = &[("200", "OK")];
const CREATED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created"), ("202", "Accepted")];
const CHANGED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created")];
const DELETED: &[(&str, &str)] = &[("200", "OK"), ("202", "Accepted")];

/// The paths of a kind: each with what OpenAPI calls a path item.
pub(super) fn paths(kind: &'static Kind, version: Version, definitions: &mut Definitions) -> Vec<(String, Value)> {
    let root = if kind.group.is_empty() { "/api" } else { "/apis" };
    let base = format!("{root}/{}", kind.api_version());
    let collection = match kind.namespaced {
        true => format!("{base}/namespaces/{{namespace}}/{}", kind.plural),
        false => format!("{base}/{}", kind.plural),
    };
    let one = format!("{collection}/{{name}}");
    let writer = Writer { kind, version };
    let mut made = Vec::new();
    if kind.namespaced && kind.allows("list") {
        let everywhere = vec![list(kind, "ForAllNamespaces", definitions)];
        made.push((format!("{base}/{}", kind.plural), writer.item(everywhere, None, &[])));
    }
    let scope: &[&str] = if kind.namespaced { &["namespace"] } else { &[] };
    let scoped: &[&str] = if kind.namespaced { &["name", "namespace"] } else { &["name"] };
    made.push((collection, writer.item(of_collection(kind, definitions), None, scope)));
    made.push((one.clone(), writer.item(of_one(kind, definitions), None, scoped)));
    for subresource in &kind.subresources {
        let (operations, about) = of_subresource(kind, subresource, definitions);
        made.push((format!("{one}/{subresource}"), writer.item(operations, about, scoped)));
        if *subresource == "proxy" {
            let mut operations = streams(kind, subresource, subresource_verbs(subresource));
            operations.iter_mut().for_each(|operation| operation.id.push_str("WithPath"));
            made.push((format!("{one}/proxy/{{path}}"), writer.item(operations, None, scoped)));
        }
    }
    made.retain(|(_, item)| item.as_object().is_some_and(|map| map.keys().any(|key| key != "parameters")));
    made
}

/// `CoreV1NamespacedPod` and the like, as the ids of operations have them.
fn id(kind: &Kind) -> String {
    let scope = if kind.namespaced { "Namespaced" } else { "" };
    format!("{}{scope}{}", prefix(kind), kind.kind)
}

/// `CoreV1`.
fn prefix(kind: &Kind) -> String {
    let group = if kind.group.is_empty() { "core" } else { kind.group.trim_end_matches(".k8s.io") };
    let group: String = group.split('.').map(capital).collect();
    format!("{group}{}", capital(kind.version))
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn list(kind: &'static Kind, everywhere: &str, definitions: &mut Definitions) -> Operation {
    let id = match everywhere {
        "" => id(kind),
        _ => id(kind).replacen("Namespaced", "", 1),
    };
    Operation {
        method: "get",
        action: "list",
        id: format!("list{id}{everywhere}"),
        description: format!("list or watch objects of kind {}", kind.kind),
        parameters: &LIST,
        body: None,
        answer: Answer::List(definitions.list(kind)),
        codes: OK,
    }
}

fn of_collection(kind: &'static Kind, definitions: &mut Definitions) -> Vec<Operation> {
    let mut operations = Vec::new();
    if kind.allows("list") {
        operations.push(list(kind, "", definitions));
    }
    if kind.allows("create") {
        let object = definitions.kind(kind);
        operations.push(post(format!("create{}", id(kind)), format!("create a {}", kind.kind), object));
    }
    if kind.allows("deletecollection") {
        let scope = if kind.namespaced { "Namespaced" } else { "" };
        let id = format!("delete{}Collection{scope}{}", prefix(kind), kind.kind);
        let description = format!("delete collection of {}", kind.kind);
        operations.push(Operation { codes: OK, ..delete("deletecollection", id, description, definitions) });
    }
    operations
}

fn of_one(kind: &'static Kind, definitions: &mut Definitions) -> Vec<Operation> {
    let object = definitions.kind(kind);
    let mut operations = on_object(kind, &object, "", &kind.verbs, definitions);
    if kind.allows("delete") {
        operations.push(delete(
            "delete",
            format!("delete{}", id(kind)),
            format!("delete a {}", kind.kind),
            definitions,
        ));
    }
    operations
}

/// Making an object, or a part of one.
fn post(id: String, description: String, object: String) -> Operation {
    Operation {
        method: "post",
        action: "post",
        id,
        description,
        parameters: &WRITE,
        body: Some(Body::Object(object.clone())),
        answer: Answer::Object(object),
        codes: CREATED,
    }
}

/// Removing one object, or many.
fn delete(action: &'static str, id: String, description: String, definitions: &mut Definitions) -> Operation {
    Operation {
        method: "delete",
        action,
        id,
        description,
        parameters: &DELETE,
        body: Some(Body::Object(definitions.named("meta.DeleteOptions"))),
        answer: Answer::Object(definitions.named("meta.Status")),
        codes: DELETED,
    }
}

/// Reading and changing an object or a part of it.
fn on_object(kind: &Kind, object: &str, suffix: &str, verbs: &[&str], definitions: &mut Definitions) -> Vec<Operation> {
    let has = |verb: &str| verbs.contains(&verb);
    let part = if suffix.is_empty() { String::new() } else { format!("{} of ", suffix.to_lowercase()) };
    let operation = |method, action, word: &str, text: &str| Operation {
        method,
        action,
        id: format!("{word}{}{suffix}", id(kind)),
        description: format!("{text} {part}the specified {}", kind.kind),
        parameters: &[],
        body: None,
        answer: Answer::Object(object.to_owned()),
        codes: OK,
    };
    let mut operations = Vec::new();
    if has("get") {
        operations.push(operation("get", "get", "read", "read"));
    }
    if has("update") {
        let body = Some(Body::Object(object.to_owned()));
        let replace = operation("put", "put", "replace", "replace");
        operations.push(Operation { parameters: &WRITE, body, codes: CHANGED, ..replace });
    }
    if has("patch") {
        definitions.named(PATCH);
        let patch = operation("patch", "patch", "patch", "partially update");
        operations.push(Operation { parameters: &PATCHING, body: Some(Body::Patch), codes: CHANGED, ..patch });
    }
    operations
}

/// The operations of a subresource, and the kind of its bodies where that is another one.
fn of_subresource(
    kind: &'static Kind,
    subresource: &str,
    definitions: &mut Definitions,
) -> (Vec<Operation>, Option<&'static Kind>) {
    let verbs = subresource_verbs(subresource);
    let suffix = capital(subresource);
    let other = match subresource {
        "scale" => Some("Scale"),
        "eviction" => Some("Eviction"),
        "token" => Some("TokenRequest"),
        "binding" => Some("Binding"),
        _ => None,
    };
    let all = || bodies().iter().chain(crate::kind::kinds().iter());
    let other = other.and_then(|other| all().find(|k| k.kind == other));
    let object = definitions.kind(other.unwrap_or(kind));
    if matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy") {
        return (streams(kind, subresource, verbs), None);
    }
    let mut operations = on_object(kind, &object, &suffix, verbs, definitions);
    if verbs == ["create"] {
        let description = format!("create {subresource} of a {}", kind.kind);
        operations.push(post(format!("create{}{suffix}", id(kind)), description, object));
    }
    (operations, other)
}

/// Subresources whose answers are bytes.
fn streams(kind: &Kind, subresource: &str, verbs: &[&str]) -> Vec<Operation> {
    let methods = [("get", "get"), ("create", "post"), ("update", "put"), ("patch", "patch"), ("delete", "delete")];
    let log = subresource == "log";
    let made = methods.into_iter().filter(|(verb, _)| verbs.contains(verb)).map(|(_, method)| Operation {
        method,
        action: if log { "get" } else { "connect" },
        id: match log {
            true => format!("read{}Log", id(kind)),
            false => {
                let (id, prefix) = (id(kind), prefix(kind));
                let rest = id.strip_prefix(&prefix).unwrap_or(&id);
                format!("connect{prefix}{}{rest}{}", capital(method), capital(subresource))
            }
        },
        description: match log {
            true => format!("read log of the specified {}", kind.kind),
            false => format!("connect {} requests to {subresource} of {}", method.to_uppercase(), kind.kind),
        },
        parameters: &[],
        body: None,
        answer: Answer::Text,
        codes: OK,
    });
    made.collect()
}

/// Writes operations as OpenAPI has them.
struct Writer {
    kind: &'static Kind,
    version: Version,
}

impl Writer {
    /// A path item: operations, and the parameters of the path.
    fn item(&self, operations: Vec<Operation>, about: Option<&Kind>, names: &[&str]) -> Value {
        let mut item = Map::new();
        for operation in operations {
            item.insert(operation.method.to_owned(), self.operation(&operation, about));
        }
        let text = |name: &str| match name {
            "name" => format!("name of the {}", self.kind.kind),
            _ => "the namespace that the object is in".to_owned(),
        };
        let mut parameters: Vec<Value> =
            names.iter().map(|name| self.parameter("path", name, "string", &text(name))).collect();
        parameters.push(self.parameter("query", "pretty", "string", "`true`: indent the answer for people."));
        item.insert("parameters".to_owned(), Value::Array(parameters));
        Value::Object(item)
    }

    fn parameter(&self, place: &str, name: &str, kind: &str, text: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place, "description": text});
        if place == "path" {
            parameter["required"] = true.into();
        }
        match self.version {
            Version::V3 => parameter["schema"] = json!({"type": kind, "uniqueItems": true}),
            Version::V2 => {
                parameter["type"] = kind.into();
                parameter["uniqueItems"] = true.into();
            }
        }
        parameter
    }

    fn operation(&self, operation: &Operation, about: Option<&Kind>) -> Value {
        let kind = self.kind;
        let group = if kind.group.is_empty() { "core" } else { kind.group.trim_end_matches(".k8s.io") };
        let mut words = group.split('.');
        let first = words.next().unwrap_or_default().to_owned();
        let tag = words.fold(first, |tag, word| tag + &capital(word));
        let about = about.unwrap_or(kind);
        let mut out = json!({
            "description": operation.description,
            "operationId": operation.id,
            "tags": [format!("{tag}_{}", kind.version)],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": group_version_kind(about.group, about.version, about.kind),
        });
        let mut parameters: Vec<Value> =
            operation.parameters.iter().map(|(name, kind, text)| self.parameter("query", name, kind, text)).collect();
        match self.version {
            Version::V3 => self.bodies_of_v3(operation, &mut out),
            Version::V2 => self.bodies_of_v2(operation, &mut out, &mut parameters),
        }
        if !parameters.is_empty() {
            out["parameters"] = Value::Array(parameters);
        }
        out
    }

    fn bodies_of_v3(&self, operation: &Operation, out: &mut Value) {
        let with = |media: &[&str], name: &str| {
            let schema = json!({"schema": self.version.reference(name)});
            Value::Object(media.iter().map(|m| ((*m).to_owned(), schema.clone())).collect())
        };
        match &operation.body {
            Some(Body::Object(name)) => out["requestBody"] = json!({"content": with(&["*/*"], name)}),
            Some(Body::Patch) => out["requestBody"] = json!({"content": with(&PATCH_MEDIA, PATCH)}),
            None => {}
        }
        let content = match &operation.answer {
            Answer::Object(name) => with(&MEDIA, name),
            Answer::List(name) => with(&[&MEDIA[..], &STREAMS[..]].concat(), name),
            Answer::Text => json!({"*/*": {"schema": {"type": "string"}}}),
        };
        for (code, text) in operation.codes {
            out["responses"][*code] = json!({"description": text, "content": content.clone()});
        }
        out["responses"]["401"] = json!({"description": "Unauthorized"});
    }

    fn bodies_of_v2(&self, operation: &Operation, out: &mut Value, parameters: &mut Vec<Value>) {
        let body = |name: &str| json!({"name": "body", "in": "body", "required": true, "schema": self.version.reference(name)});
        match &operation.body {
            Some(Body::Object(name)) => parameters.push(body(name)),
            Some(Body::Patch) => parameters.push(body(PATCH)),
            None => {}
        }
        out["consumes"] = match &operation.body {
            Some(Body::Patch) => json!(PATCH_MEDIA),
            _ => json!(["*/*"]),
        };
        let (produces, schema) = match &operation.answer {
            Answer::Object(name) => (json!(MEDIA), self.version.reference(name)),
            Answer::List(name) => (json!([&MEDIA[..], &STREAMS[..]].concat()), self.version.reference(name)),
            Answer::Text => (json!(["*/*"]), json!({"type": "string"})),
        };
        out["produces"] = produces;
        for (code, text) in operation.codes {
            out["responses"][*code] = json!({"description": text, "schema": schema.clone()});
        }
        out["responses"]["401"] = json!({"description": "Unauthorized"});
    }
}
