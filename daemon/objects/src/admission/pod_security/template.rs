//! A pod, or what pods are made from, as the checks see it: whatever is not of the type that it should be is not there.

use super::Version;
use crate::{kind::Kind, object::Object, pod};
use serde_json::Value;

/// Metadata and spec of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Template<'a> {
    metadata: Option<&'a Value>,
    spec: &'a Value,
}

impl<'a> Template<'a> {
    /// That of an object of a kind that is a pod or makes pods; none of others.
    pub fn of(kind: &Kind, object: &'a Object) -> Option<Self> {
        Self::below(object, pod::template_pointer(kind)?)
    }

    /// The one at a pointer into an object.
    pub fn below(object: &'a Object, pointer: &str) -> Option<Self> {
        let spec = object.get(&format!("{pointer}/spec"))?;
        Some(Self { metadata: object.get(&format!("{pointer}/metadata")), spec })
    }

    /// A field of the spec that is set.
    pub(super) fn field(self, name: &str) -> Option<&'a Value> {
        set(self.spec, name)
    }

    pub(super) fn is_true(self, name: &str) -> bool {
        self.field(name).and_then(Value::as_bool) == Some(true)
    }

    /// A field of the pod's own securityContext that is set.
    pub(super) fn context(self, name: &str) -> Option<&'a Value> {
        context(self.spec, name)
    }

    pub(super) fn volumes(self) -> &'a [Value] {
        items(self.spec, "volumes")
    }

    /// Init containers, containers, ephemeral ones.
    pub(super) fn containers(self) -> impl Iterator<Item = &'a Value> {
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| items(self.spec, list))
    }

    /// Names of the containers of which something is so.
    pub(super) fn those(self, is_so: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| is_so(container)).map(name).collect()
    }

    pub(super) fn annotations(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let map = self.metadata.and_then(|metadata| metadata.get("annotations")?.as_object());
        map.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    /// Has the pod users of its own (`hostUsers: false`)? Then it matters less who is root in it, as versions of late know.
    pub(super) fn has_own_users(self, version: Version) -> bool {
        version.has(35) && self.field("hostUsers").and_then(Value::as_bool) == Some(false)
    }

    /// Pods of Windows can't set what is asked of others; early versions don't know them.
    pub(super) fn is_windows(self, version: Version) -> bool {
        version.has(25) && self.field("os").and_then(|os| os.get("name")?.as_str()) == Some("windows")
    }
}

/// A field that is there and not null.
pub(super) fn set<'a>(of: &'a Value, name: &str) -> Option<&'a Value> {
    of.get(name).filter(|value| !value.is_null())
}

/// A field of the securityContext of a container or pod that is set.
pub(super) fn context<'a>(of: &'a Value, name: &str) -> Option<&'a Value> {
    set(of.get("securityContext")?, name)
}

pub(super) fn items<'a>(of: &'a Value, list: &str) -> &'a [Value] {
    of.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn name(of: &Value) -> &str {
    text(of, "name")
}

/// Several in quotes: `"a", "b"`.
pub(super) fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    names.join(", ")
}

/// The singular or the plural of a noun.
pub(super) fn noun(noun: &str, count: usize) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// `container "a"`, `containers "a", "b"`.
pub(super) fn these(kind: &str, names: &[&str]) -> String {
    format!("{} {}", noun(kind, names.len()), quoted(names))
}

/// Who sets something that may not be: `pod and container "a"`. None when nobody does.
pub(super) fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    match (pod, containers) {
        (false, []) => None,
        (true, []) => Some("pod".to_owned()),
        (false, names) => Some(these("container", names)),
        (true, names) => Some(format!("pod and {}", these("container", names))),
    }
}
