//! Definitions: what bodies look like.

use super::Version;
use super::descriptions::Descriptions;
use super::names::definition_name;
use crate::kind::{Kind, kinds};
use crate::schema::{Field, FieldType, ListKind, SchemaOr, Type, of_kind, types};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const FIELDS_V1: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
const SCHEMA_OR: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOr";
/// Bodies of patches.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// What a definition is made from.
#[derive(Clone, Copy)]
pub(super) enum Definition {
    Struct(&'static Type),
    /// The list of a kind.
    List(&'static Kind),
    /// A scalar that has a name.
    Named,
}

/// Definitions by name: those that were asked for, and all that they refer to.
#[derive(Default)]
pub(super) struct Definitions(pub(super) BTreeMap<String, Definition>);

impl Definitions {
    /// Adds a kind and its list, and returns the name of the kind's definition.
    pub(super) fn kind(&mut self, kind: &'static Kind) -> String {
        match of_kind(kind) {
            Some(structure) => self.structure(structure),
            None => RAW_EXTENSION.to_owned(),
        }
    }

    /// Adds the list of a kind.
    pub(super) fn list(&mut self, kind: &'static Kind) -> String {
        let name = format!("{}List", self.kind(kind));
        self.0.insert(name.clone(), Definition::List(kind));
        self.named("meta.ListMeta");
        name
    }

    /// Adds a type of the table by its name.
    pub(super) fn named(&mut self, type_name: &str) -> String {
        match types().by_name(type_name) {
            Some(structure) => self.structure(structure),
            None => {
                self.0.insert(type_name.to_owned(), Definition::Named);
                type_name.to_owned()
            }
        }
    }

    fn structure(&mut self, structure: &'static Type) -> String {
        let name = definition_name(structure.name);
        if !self.0.contains_key(&name) {
            self.0.insert(name.clone(), Definition::Struct(structure));
            for field in &structure.fields {
                self.field_type(structure, field, &field.kind);
            }
        }
        name
    }

    fn field_type(&mut self, structure: &Type, field: &Field, kind: &'static FieldType) {
        match kind {
            FieldType::Struct(index) => drop(self.structure(index.get())),
            FieldType::List(element, _) | FieldType::Map(element, _) => self.field_type(structure, field, element),
            FieldType::SchemaOr(_) => {
                self.0.insert(scalar_name(structure, field, kind).unwrap_or_default(), Definition::Named);
            }
            kind => {
                if let Some(name) = scalar_name(structure, field, kind) {
                    self.0.insert(name, Definition::Named);
                }
            }
        }
    }
}

/// The name of a scalar's definition; none for those that are written where they are.
fn scalar_name(structure: &Type, field: &Field, kind: &FieldType) -> Option<String> {
    let name = match kind {
        FieldType::Quantity => QUANTITY,
        FieldType::IntOrString => INT_OR_STRING,
        FieldType::Time => TIME,
        FieldType::MicroTime => MICRO_TIME,
        FieldType::Any if field.name == "fieldsV1" => FIELDS_V1,
        FieldType::Any if structure.name.starts_with("apiextensions.") => JSON,
        FieldType::Any => RAW_EXTENSION,
        FieldType::SchemaOr(or) => {
            let what = match or {
                SchemaOr::Bool => "Bool",
                SchemaOr::List => "Array",
                SchemaOr::Strings => "StringArray",
            };
            return Some(format!("{SCHEMA_OR}{what}"));
        }
        _ => return None,
    };
    Some(name.to_owned())
}

/// A definition's schema.
pub(super) fn schema(name: &str, definition: Definition, version: Version, texts: &Descriptions) -> Value {
    match definition {
        Definition::Struct(structure) => structure_schema(structure, version, texts),
        Definition::List(kind) => list_schema(kind, version),
        Definition::Named => named_schema(name, version),
    }
}

/// `x-kubernetes-group-version-kind` of a kind.
pub(super) fn group_version_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn structure_schema(structure: &'static Type, version: Version, texts: &Descriptions) -> Value {
    let mut schema = Map::new();
    describe(&mut schema, texts.of_type(structure.name));
    schema.insert("type".to_owned(), "object".into());
    let mut properties = Map::new();
    for field in &structure.fields {
        properties.insert(field.name.to_owned(), property(structure, field, version, texts));
    }
    if !properties.is_empty() {
        schema.insert("properties".to_owned(), Value::Object(properties));
    }
    let required: Vec<&str> = structure.fields.iter().filter(|f| f.listed_required).map(|f| f.name).collect();
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    if structure.atomic {
        schema.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    let kinds = kinds_of(structure);
    if !kinds.is_empty() {
        schema.insert("x-kubernetes-group-version-kind".to_owned(), Value::Array(kinds));
    }
    Value::Object(schema)
}

/// The kinds whose objects have this type. DeleteOptions are a kind of every group.
fn kinds_of(structure: &Type) -> Vec<Value> {
    if structure.name == "meta.DeleteOptions" {
        let mut versions: Vec<(&str, &str)> = kinds().iter().map(|k| (k.group, k.version)).collect();
        versions.sort_unstable();
        versions.dedup();
        return versions.into_iter().map(|(g, v)| group_version_kind(g, v, "DeleteOptions")).collect();
    }
    if structure.name == "meta.Status" {
        return vec![group_version_kind("", "v1", "Status")];
    }
    let all = kinds().iter().chain(crate::kind::bodies().iter());
    let same = all.filter(|kind| of_kind(kind).is_some_and(|t| std::ptr::eq(t, structure)));
    same.map(|kind| group_version_kind(kind.group, kind.version, kind.kind)).collect()
}

fn describe(schema: &mut Map<String, Value>, text: String) {
    if !text.is_empty() {
        schema.insert("description".to_owned(), text.into());
    }
}

fn property(structure: &Type, field: &Field, version: Version, texts: &Descriptions) -> Value {
    let default = match field.default {
        Some(default) => serde_json::from_str(default).ok(),
        None if field.listed_required => zero(&field.kind),
        None => None,
    };
    let mut schema = typed(structure, field, &field.kind, version, default);
    let mut text = texts.of_field(structure, field.name);
    if let Some(values) = field.values {
        let values: Vec<&str> = values.split('|').collect();
        text.push_str("\n\nPossible enum values:");
        values.iter().for_each(|value| text.push_str(&format!("\n - `{value:?}`")));
        let scalar = match &field.kind {
            FieldType::List(..) => schema.get_mut("items").and_then(Value::as_object_mut),
            _ => Some(&mut schema),
        };
        if let Some(scalar) = scalar {
            scalar.insert("enum".to_owned(), json!(values));
        }
    }
    describe(&mut schema, text);
    if field.patch.merge || field.patch.retain_keys {
        let strategies = [("merge", field.patch.merge), ("retainKeys", field.patch.retain_keys)];
        let strategies: Vec<&str> = strategies.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
        schema.insert("x-kubernetes-patch-strategy".to_owned(), strategies.join(",").into());
    }
    if let Some(key) = field.patch.key {
        schema.insert("x-kubernetes-patch-merge-key".to_owned(), key.into());
    }
    Value::Object(schema)
}

/// The value that a scalar has when nobody gave it one.
fn zero(kind: &FieldType) -> Option<Value> {
    match kind {
        FieldType::String => Some("".into()),
        FieldType::Int | FieldType::Int64 => Some(0.into()),
        FieldType::Bool => Some(false.into()),
        _ => None,
    }
}

fn typed(
    structure: &Type,
    field: &Field,
    kind: &FieldType,
    version: Version,
    default: Option<Value>,
) -> Map<String, Value> {
    let simple = |kind: &str, format: Option<&str>| {
        let mut map = Map::from_iter([("type".to_owned(), kind.into())]);
        if let Some(format) = format {
            map.insert("format".to_owned(), format.into());
        }
        map
    };
    let mut map = match kind {
        FieldType::String => simple("string", None),
        FieldType::Int => simple("integer", Some("int32")),
        FieldType::Int64 => simple("integer", Some("int64")),
        FieldType::Bool => simple("boolean", None),
        FieldType::Number => simple("number", Some("double")),
        FieldType::Bytes => simple("string", Some("byte")),
        FieldType::Map(element, _) => {
            let mut map = simple("object", None);
            let items = typed(structure, field, element, version, element_default(element, version));
            map.insert("additionalProperties".to_owned(), Value::Object(items));
            if matches!(kind, FieldType::Map(_, true)) {
                map.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
            }
            map
        }
        FieldType::List(element, list) => {
            let mut map = simple("array", None);
            let items = typed(structure, field, element, version, element_default(element, version));
            map.insert("items".to_owned(), Value::Object(items));
            list_type(&mut map, list);
            map
        }
        FieldType::Struct(index) => reference(&definition_name(index.get().name), version),
        kind => reference(&scalar_name(structure, field, kind).unwrap_or_default(), version),
    };
    // OpenAPI 2 has no defaults beside references.
    if let Some(default) = default.filter(|_| version == Version::V3 || !map.contains_key("$ref")) {
        map.insert("default".to_owned(), default);
    }
    map
}

fn element_default(element: &FieldType, version: Version) -> Option<Value> {
    match element {
        FieldType::Struct(_) | FieldType::Quantity if version == Version::V3 => Some(json!({})),
        element if version == Version::V3 => zero(element),
        _ => None,
    }
}

fn reference(name: &str, version: Version) -> Map<String, Value> {
    let reference = version.reference(name);
    match (version, reference) {
        (Version::V2, Value::Object(map)) => map,
        // In OpenAPI 3 nothing may stand beside a reference.
        (_, reference) => Map::from_iter([("allOf".to_owned(), Value::Array(vec![reference]))]),
    }
}

fn list_type(map: &mut Map<String, Value>, list: &ListKind) {
    let kind = match list {
        ListKind::Atomic => "atomic",
        ListKind::Set => "set",
        ListKind::Keyed(keys, _) => {
            map.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
            "map"
        }
    };
    map.insert("x-kubernetes-list-type".to_owned(), kind.into());
}

fn list_schema(kind: &Kind, version: Version) -> Value {
    let item = of_kind(kind).map(|t| definition_name(t.name)).unwrap_or_default();
    let mut items = reference(&item, version);
    if version == Version::V3 {
        items.insert("default".to_owned(), json!({}));
    }
    let mut metadata = reference(&definition_name("meta.ListMeta"), version);
    if version == Version::V3 {
        metadata.insert("default".to_owned(), json!({}));
    }
    describe(&mut metadata, "Metadata of the list: its version, and where the next page begins.".to_owned());
    json!({
        "description": format!("{}List is a list of objects of kind {}.", kind.kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of the API in which the list is written."},
            "kind": {"type": "string", "description": format!("{}List", kind.kind)},
            "metadata": metadata,
            "items": {"type": "array", "items": items, "description": format!("The objects of kind {}.", kind.kind)},
        },
        "x-kubernetes-group-version-kind": [group_version_kind(kind.group, kind.version, &format!("{}List", kind.kind))],
    })
}

fn named_schema(name: &str, version: Version) -> Value {
    match name {
        QUANTITY => {
            let text = "A quantity: a number with a binary (Ki, Mi, Gi, ...) or decimal (m, k, M, G, ...) suffix or an exponent.";
            match version {
                Version::V2 => json!({"description": text, "type": "string"}),
                Version::V3 => json!({"description": text, "oneOf": [{"type": "string"}, {"type": "number"}]}),
            }
        }
        INT_OR_STRING => {
            let text = "A whole number of 32 bits or a text.";
            match version {
                Version::V2 => json!({"description": text, "type": "string", "format": "int-or-string"}),
                Version::V3 => json!({
                    "description": text, "format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}],
                }),
            }
        }
        TIME => json!({"description": "A time in RFC 3339, to the second.", "type": "string", "format": "date-time"}),
        MICRO_TIME => {
            json!({"description": "A time in RFC 3339, to the microsecond.", "type": "string", "format": "date-time"})
        }
        FIELDS_V1 => json!({"description": "A set of fields, as paths in the form of a trie.", "type": "object"}),
        PATCH => json!({"description": "A patch; its media type says of which kind.", "type": "object"}),
        RAW_EXTENSION => json!({"description": "Any object.", "type": "object"}),
        JSON => json!({"description": "Any JSON value."}),
        _ => json!({"description": "A schema or something simpler."}),
    }
}
