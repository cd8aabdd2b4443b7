//! Any Kubernetes object: a JSON map with an apiVersion, a kind and metadata.

use crate::{field::FieldPath, key::ObjectKey, kind::Kind};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Why a JSON value is not a Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The value is a list or a scalar.
    #[error("a Kubernetes object must be a map with apiVersion, kind and metadata")]
    NotAMap,
    /// apiVersion, kind or metadata is absent or of the wrong type.
    #[error("{field} {problem}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The object's typed form could not be read.
    #[error("{kind} {name:?}: {message}")]
    View {
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
        /// What serde says.
        message: String,
    },
}

impl ObjectError {
    /// The field that the error is about; the root when it is the whole value.
    pub fn path(&self) -> FieldPath {
        match self {
            Self::Field { field, .. } => FieldPath::of(field),
            Self::NotAMap | Self::View { .. } => FieldPath::root(),
        }
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// The owner's apiVersion, for example `apps/v1`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's uid: another object of the same name is another owner.
    pub uid: String,
    /// Is this the one owner that manages the object?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Must a foreground deletion of the owner wait for this object?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// Any Kubernetes object. apiVersion and kind are there; everything else is as it was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Object(Map<String, Value>);

impl TryFrom<Value> for Object {
    type Error = ObjectError;
    fn try_from(value: Value) -> Result<Self, ObjectError> {
        Self::from_value(value)
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        object.into_value()
    }
}

impl Object {
    /// Takes a JSON value that has a non-empty apiVersion and kind, and metadata that is absent or a map.
    ///
    /// # Errors
    /// [`ObjectError`] naming the field.
    pub fn from_value(value: Value) -> Result<Self, ObjectError> {
        let Value::Object(map) = value else { return Err(ObjectError::NotAMap) };
        for field in ["apiVersion", "kind"] {
            match map.get(field) {
                Some(Value::String(text)) if !text.is_empty() => {}
                None | Some(Value::Null) => return Err(ObjectError::Field { field, problem: "is required" }),
                Some(Value::String(_)) => return Err(ObjectError::Field { field, problem: "must not be empty" }),
                Some(_) => return Err(ObjectError::Field { field, problem: "must be a string" }),
            }
        }
        match map.get("metadata") {
            None | Some(Value::Null | Value::Object(_)) => Ok(Self(map)),
            Some(_) => Err(ObjectError::Field { field: "metadata", problem: "must be a map" }),
        }
    }

    /// An object of `kind` with this name and namespace (`None` for cluster-scoped kinds) and nothing else.
    pub fn new(kind: &Kind, namespace: Option<&str>, name: &str) -> Self {
        let mut metadata = Map::new();
        metadata.insert("name".into(), name.into());
        if let Some(namespace) = namespace {
            metadata.insert("namespace".into(), namespace.into());
        }
        let mut map = Map::new();
        map.insert("apiVersion".into(), kind.api_version().into());
        map.insert("kind".into(), kind.kind.into());
        map.insert("metadata".into(), Value::Object(metadata));
        Self(map)
    }

    fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn meta(&self, field: &str) -> Option<&Value> {
        self.0.get("metadata")?.get(field)
    }

    fn meta_text(&self, field: &str) -> Option<&str> {
        self.meta(field)?.as_str().filter(|text| !text.is_empty())
    }

    /// apiVersion, for example `v1` or `apps/v1`.
    pub fn api_version(&self) -> &str {
        self.text("apiVersion")
    }

    /// kind, for example `Pod`.
    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    /// metadata.name; empty when there is none (yet).
    pub fn name(&self) -> &str {
        self.meta_text("name").unwrap_or_default()
    }

    /// metadata.generateName.
    pub fn generate_name(&self) -> Option<&str> {
        self.meta_text("generateName")
    }

    /// metadata.namespace.
    pub fn namespace(&self) -> Option<&str> {
        self.meta_text("namespace")
    }

    /// metadata.uid.
    pub fn uid(&self) -> Option<&str> {
        self.meta_text("uid")
    }

    /// metadata.resourceVersion as the store's revision; `None` when absent or not a decimal number.
    pub fn resource_version(&self) -> Option<u64> {
        self.meta_text("resourceVersion")?.parse().ok()
    }

    /// metadata.generation.
    pub fn generation(&self) -> Option<i64> {
        self.meta("generation")?.as_i64()
    }

    /// metadata.creationTimestamp.
    pub fn creation_timestamp(&self) -> Option<DateTime<Utc>> {
        self.time("/metadata/creationTimestamp")
    }

    /// metadata.deletionTimestamp: when set, the object is being deleted.
    pub fn deletion_timestamp(&self) -> Option<DateTime<Utc>> {
        self.time("/metadata/deletionTimestamp")
    }

    /// metadata.deletionGracePeriodSeconds.
    pub fn deletion_grace_period_seconds(&self) -> Option<i64> {
        self.meta("deletionGracePeriodSeconds")?.as_i64()
    }

    /// The RFC 3339 time at a JSON pointer.
    pub fn time(&self, pointer: &str) -> Option<DateTime<Utc>> {
        let text = self.get(pointer)?.as_str()?;
        DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc))
    }

    fn text_map<'a>(&'a self, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let map = self.meta(field).and_then(Value::as_object);
        map.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    /// metadata.labels, in key order.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text_map("labels")
    }

    /// One label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.meta("labels")?.get(key)?.as_str()
    }

    /// metadata.annotations, in key order.
    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text_map("annotations")
    }

    /// One annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.meta("annotations")?.get(key)?.as_str()
    }

    /// metadata.ownerReferences; entries that are not well-formed are left out.
    pub fn owner_references(&self) -> Vec<OwnerReference> {
        let list = self.meta("ownerReferences").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|owner| OwnerReference::deserialize(owner).ok()).collect()
    }

    /// The one owner that manages this object (`controller: true`).
    pub fn controller(&self) -> Option<OwnerReference> {
        self.owner_references().into_iter().find(|owner| owner.controller == Some(true))
    }

    /// metadata.finalizers.
    pub fn finalizers(&self) -> Vec<&str> {
        self.meta("finalizers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The value at an RFC 6901 JSON pointer, for example `/spec/containers/0/image`.
    pub fn get(&self, pointer: &str) -> Option<&Value> {
        let (first, mut rest) = step(pointer.strip_prefix('/')?);
        let mut at = self.0.get(&*unescape(first))?;
        while let Some(tail) = rest {
            let (token, next) = step(tail);
            at = match at {
                Value::Object(map) => map.get(&*unescape(token))?,
                Value::Array(list) => list.get(index(token)?)?,
                _ => return None,
            };
            rest = next;
        }
        Some(at)
    }

    /// The text at a JSON pointer; `None` when absent or not a string.
    pub fn get_str(&self, pointer: &str) -> Option<&str> {
        self.get(pointer)?.as_str()
    }

    /// spec, when it is there and not null.
    pub fn spec(&self) -> Option<&Value> {
        self.0.get("spec").filter(|value| !value.is_null())
    }

    /// status, when it is there and not null.
    pub fn status(&self) -> Option<&Value> {
        self.0.get("status").filter(|value| !value.is_null())
    }

    /// The condition of this type in its status.
    pub fn condition(&self, kind: &str) -> Option<&Value> {
        self.get("/status/conditions")?.as_array()?.iter().find(|c| c.get("type").is_some_and(|t| t == kind))
    }

    /// Whether a condition's status is `True`: what it says is so. False when nothing is said.
    pub fn condition_holds(&self, kind: &str) -> bool {
        self.condition(kind).and_then(|c| c.get("status")).is_some_and(|status| status == "True")
    }

    /// The whole object as a JSON map.
    pub fn map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The whole object as a JSON map, to be changed in place. apiVersion and kind must stay.
    pub fn map_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.0
    }

    /// A copy of the whole object as a JSON value.
    pub fn value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// The whole object as a JSON value.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// The object as compact JSON text.
    pub fn to_json(&self) -> String {
        // Serialising a map with text keys into memory has no way to fail.
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// The kind's entry in the table of built-in kinds.
    pub fn known_kind(&self) -> Option<&'static Kind> {
        crate::kind::kinds().by_gvk(self.api_version(), self.kind())
    }

    /// The key under which `kind` files this object.
    pub fn key(&self, kind: &Kind) -> ObjectKey {
        let namespace = kind.namespaced.then(|| self.namespace().unwrap_or("default").to_owned());
        ObjectKey {
            group: kind.group.to_owned(),
            resource: kind.plural.to_owned(),
            namespace,
            name: self.name().to_owned(),
        }
    }

    /// Puts `value` at a JSON pointer, making the maps on the way; what stands in the way and is no map is replaced.
    /// List elements can be addressed when they exist. The empty pointer changes nothing.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) {
        let Some(rest) = pointer.strip_prefix('/') else { return };
        set_field(&mut self.0, rest, value.into());
    }

    /// Takes the value at a JSON pointer out of its map; list elements are not removed.
    pub fn remove(&mut self, pointer: &str) -> Option<Value> {
        let (mut token, mut rest) = step(pointer.strip_prefix('/')?);
        let mut map = &mut self.0;
        while let Some(tail) = rest {
            let mut at = map.get_mut(&*unescape(token))?;
            (token, rest) = step(tail);
            while let Value::Array(list) = at {
                at = list.get_mut(index(token)?)?;
                (token, rest) = step(rest?);
            }
            map = at.as_object_mut()?;
        }
        map.remove(&*unescape(token))
    }

    /// Sets metadata.name.
    pub fn set_name(&mut self, name: &str) {
        self.set("/metadata/name", name);
    }

    /// Sets or removes metadata.namespace.
    pub fn set_namespace(&mut self, namespace: Option<&str>) {
        self.set_or_remove("/metadata/namespace", namespace.map(Value::from));
    }

    /// Sets metadata.uid.
    pub fn set_uid(&mut self, uid: &str) {
        self.set("/metadata/uid", uid);
    }

    /// Sets or removes metadata.resourceVersion (a decimal number as text, as Kubernetes has it).
    pub fn set_resource_version(&mut self, revision: Option<u64>) {
        self.set_or_remove("/metadata/resourceVersion", revision.map(|r| Value::from(r.to_string())));
    }

    /// Sets metadata.generation.
    pub fn set_generation(&mut self, generation: i64) {
        self.set("/metadata/generation", generation);
    }

    /// Sets metadata.creationTimestamp, to the second.
    pub fn set_creation_timestamp(&mut self, time: DateTime<Utc>) {
        self.set("/metadata/creationTimestamp", timestamp(time));
    }

    /// Marks the object as being deleted: metadata.deletionTimestamp and, for pods, deletionGracePeriodSeconds.
    pub fn set_deletion(&mut self, time: DateTime<Utc>, grace_seconds: Option<i64>) {
        self.set("/metadata/deletionTimestamp", timestamp(time));
        self.set_or_remove("/metadata/deletionGracePeriodSeconds", grace_seconds.map(Value::from));
    }

    /// Sets one label.
    pub fn set_label(&mut self, key: &str, value: &str) {
        self.set(&format!("/metadata/labels/{}", escape(key)), value);
    }

    /// Sets one annotation.
    pub fn set_annotation(&mut self, key: &str, value: &str) {
        self.set(&format!("/metadata/annotations/{}", escape(key)), value);
    }

    /// Removes one annotation, and the map of annotations with the last one.
    pub fn remove_annotation(&mut self, key: &str) {
        self.remove(&format!("/metadata/annotations/{}", escape(key)));
        if self.get("/metadata/annotations").and_then(Value::as_object).is_some_and(Map::is_empty) {
            self.remove("/metadata/annotations");
        }
    }

    /// Sets metadata.ownerReferences; an empty list removes the field.
    pub fn set_owner_references(&mut self, owners: &[OwnerReference]) {
        let list = if owners.is_empty() { None } else { serde_json::to_value(owners).ok() };
        self.set_or_remove("/metadata/ownerReferences", list);
    }

    /// Sets or removes status.
    pub fn set_status(&mut self, status: Option<Value>) {
        self.set_or_remove("/status", status);
    }

    fn set_or_remove(&mut self, pointer: &str, value: Option<Value>) {
        match value {
            Some(value) => self.set(pointer, value),
            None => {
                self.remove(pointer);
            }
        }
    }
}

/// A time as Kubernetes' `metav1.Time` prints it: RFC 3339 in UTC, whole seconds, `2026-01-02T03:04:05Z`.
pub fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A time as Kubernetes' `metav1.MicroTime` prints it: always six digits, `2026-01-02T03:04:05.000000Z`.
pub fn micro_timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn set_field(map: &mut Map<String, Value>, pointer: &str, value: Value) {
    let (first, rest) = step(pointer);
    let name = unescape(first);
    if !map.contains_key(&*name) {
        map.insert(name.clone().into_owned(), Value::Null);
    }
    if let Some(slot) = map.get_mut(&*name) {
        set_in(slot, rest, value);
    }
}

fn set_in(at: &mut Value, pointer: Option<&str>, value: Value) {
    let Some(pointer) = pointer else {
        *at = value;
        return;
    };
    if let Value::Array(list) = at {
        let (first, rest) = step(pointer);
        if let Some(slot) = first.parse::<usize>().ok().and_then(|index| list.get_mut(index)) {
            set_in(slot, rest, value);
        }
        return;
    }
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    if let Value::Object(map) = at {
        set_field(map, pointer, value);
    }
}

/// The first token of a pointer without its slash, and what follows.
fn step(pointer: &str) -> (&str, Option<&str>) {
    match pointer.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (pointer, None),
    }
}

/// A token as the place of a list's element (RFC 6901, 4).
fn index(token: &str) -> Option<usize> {
    let plain = !token.starts_with('+') && (token == "0" || !token.starts_with('0'));
    plain.then(|| token.parse().ok()).flatten()
}

fn unescape(token: &str) -> Cow<'_, str> {
    if token.contains('~') { token.replace("~1", "/").replace("~0", "~").into() } else { token.into() }
}

fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Object {
        Object::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}})).unwrap()
    }

    #[test]
    fn what_is_no_object_says_why() {
        let why = |value: Value| Object::from_value(value).unwrap_err().to_string();
        assert_eq!(why(json!([])), "a Kubernetes object must be a map with apiVersion, kind and metadata");
        assert_eq!(why(json!({"kind": "Pod"})), "apiVersion is required");
        assert_eq!(why(json!({"apiVersion": "v1", "kind": 3})), "kind must be a string");
        assert_eq!(why(json!({"apiVersion": "v1", "kind": "Pod", "metadata": "x"})), "metadata must be a map");
    }

    #[test]
    fn fields_are_set_and_removed_by_pointer() {
        let mut object = object();
        object.set_annotation("reddwarf.io/source", "/etc/reddwarf.d/a.yaml");
        assert_eq!(object.annotation("reddwarf.io/source"), Some("/etc/reddwarf.d/a.yaml"));
        object.remove_annotation("reddwarf.io/source");
        assert!(object.get("/metadata/annotations").is_none());
        object.set("/spec/containers/0/image", "i");
        assert_eq!(object.get_str("/spec/containers/0/image"), Some("i"));
        object.set("/spec/containers/7/image", "i");
        assert_eq!(object.get("/spec/containers").unwrap().as_array().unwrap().len(), 1);
        object.set_resource_version(Some(7));
        assert_eq!((object.resource_version(), object.get_str("/metadata/resourceVersion")), (Some(7), Some("7")));
        assert_eq!(object.remove("/metadata/nothing/there"), None);
        assert_eq!(object.key(object.known_kind().unwrap()).to_string(), "pods/default/a");
    }

    proptest::proptest! {
        #[test]
        fn pointers_are_those_of_rfc_6901(pointer in "(/(|a|b|a~1b|a~0|0|1|01|[+]1)){0,4}") {
            let inner = json!({"": 1, "a": [0, {"b": [[2]]}], "b": {"a/b": {"a~": 3}}, "0": {"01": 4}, "a/b": [[5], 6]});
            let mut value = inner.clone();
            value.as_object_mut().unwrap().extend([
                ("apiVersion".to_owned(), json!("v1")),
                ("kind".to_owned(), json!("Pod")),
                ("1".to_owned(), inner),
            ]);
            let mut object = Object::from_value(value.clone()).unwrap();
            let found = value.pointer(&pointer).filter(|_| !pointer.is_empty());
            proptest::prop_assert_eq!(object.get(&pointer), found);
            let in_map = pointer.rsplit_once('/').and_then(|(parent, _)| value.pointer(parent)).is_some_and(Value::is_object);
            let removed = found.filter(|_| in_map).cloned();
            proptest::prop_assert_eq!(object.remove(&pointer), removed.clone());
            if removed.is_some() {
                proptest::prop_assert_eq!(object.get(&pointer), None);
                object.set(&pointer, removed.unwrap_or_default());
                proptest::prop_assert_eq!(object.into_value(), value);
            }
        }
    }

    #[test]
    fn keys_are_read_as_they_print() {
        for text in ["pods/default/web", "deployments.apps/default/web", "nodes/-/box"] {
            assert_eq!(text.parse::<ObjectKey>().unwrap().to_string(), text);
        }
        assert!("pods/web".parse::<ObjectKey>().is_err());
    }
}
