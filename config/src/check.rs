//! Documents to declared objects: kind, schema, defaults, validation, duplicates, each finding at its place.

use crate::compact::Compact;
use crate::diagnostic::{Diagnostic, codes};
use crate::document::{Document, Origin, Place};
use reddwarf_objects::{FieldError, FieldPath, FieldReason, Kind, Object, ObjectKey, kinds, names, schema};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An object that a file declares: valid, in a namespace and defaulted.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Its kind.
    pub kind: &'static Kind,
    /// Which object it is.
    pub key: ObjectKey,
    /// Where it was written.
    pub origin: Arc<Origin>,
    object: Compact,
}

impl Declared {
    /// A copy of the object, defaulted, without what only a server may set. It is kept in a compact form and made anew
    /// by every call.
    pub fn object(&self) -> Object {
        let mut object = Object::new(self.kind, None, "");
        *object.map_mut() = self.object.map();
        object
    }
}

/// What [`check`] found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The objects without an error, in the order of the documents.
    pub declared: Vec<Arc<Declared>>,
    /// Everything worth saying, errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks documents as one set: unknown kinds and fields, types, required fields, values, and objects declared
/// twice (both are refused, each naming the other). An object without a namespace gets `default`.
pub fn check(documents: Vec<Document>) -> Checked {
    let mut checked = check_each(documents);
    let doubled = duplicates(checked.declared.iter());
    let mut index = 0;
    checked.declared.retain(|_| {
        index += 1;
        !doubled.contains_key(&(index - 1))
    });
    checked.diagnostics.extend(doubled.into_values());
    checked
}

/// Checks documents one by one.
pub(crate) fn check_each(documents: Vec<Document>) -> Checked {
    let mut checked = Checked::default();
    for document in documents {
        let mut findings = Vec::new();
        if let Some(declared) = check_one(document, &mut findings) {
            checked.declared.push(Arc::new(declared));
        }
        checked.diagnostics.append(&mut findings);
    }
    checked
}

/// Objects that are declared more than once: for each declaration's index, the finding that names another one.
pub(crate) fn duplicates<'a>(declared: impl Iterator<Item = &'a Arc<Declared>>) -> BTreeMap<usize, Diagnostic> {
    let mut by_key: BTreeMap<&ObjectKey, Vec<(usize, &Arc<Declared>)>> = BTreeMap::new();
    for (index, one) in declared.enumerate() {
        by_key.entry(&one.key).or_default().push((index, one));
    }
    let doubled = by_key.into_iter().filter(|(_, all)| all.len() > 1);
    doubled
        .flat_map(|(key, all)| {
            let other = |i: usize| if i == 0 { all[1].1.clone() } else { all[0].1.clone() };
            let finding = |(i, (index, one)): (usize, &(usize, &Arc<Declared>))| {
                Some((*index, declared_twice(key, one, &other(i))?))
            };
            all.iter().enumerate().filter_map(finding).collect::<Vec<_>>()
        })
        .collect()
}

fn declared_twice(key: &ObjectKey, one: &Declared, other: &Declared) -> Option<Diagnostic> {
    let here = one.origin.value_at("/metadata/name").or_else(|| one.origin.nearest(""))?;
    let there = other.origin.value_at("/metadata/name").or_else(|| other.origin.nearest(""))?;
    let message = format!("{key} is declared twice");
    let why = format!("it is also declared at {}:{}, and only one can count", there.source.name, there.position);
    let help = "remove one of them; meanwhile what is running stays";
    let diagnostic = Diagnostic::error(codes::DECLARED_TWICE, here.source, here.at, message, why, help);
    Some(diagnostic.related(there.source, there.at, "also declared here"))
}

fn check_one(document: Document, findings: &mut Vec<Diagnostic>) -> Option<Declared> {
    let Document { value, origin } = document;
    let mut object = match Object::from_value(value.clone()) {
        Ok(object) => object,
        Err(_) => return header(&value, &origin, findings),
    };
    let Some(kind) = object.known_kind() else { return header(&value, &origin, findings) };
    remove_server_fields(&mut object, &origin, findings);
    let mut errors = schema::check(kind, &object);
    if boolean_words(&mut object, &errors, &origin, findings) {
        errors = schema::check(kind, &object);
    }
    if object.generate_name().is_some() && object.name().is_empty() {
        findings.push(generated_name(&origin)?);
        return None;
    }
    if kind.namespaced && object.namespace().is_none() && object.get("/metadata/namespace").is_none_or(is_blank) {
        object.set_namespace(Some("default"));
    }
    if errors.is_empty() {
        reddwarf_objects::default(kind, &mut object);
        errors = reddwarf_objects::validate(kind, &object);
    }
    let refused = !errors.is_empty();
    findings.extend(errors.iter().filter_map(|e| field_diagnostic(e, kind, &origin)));
    if refused {
        return None;
    }
    findings.extend(without_effect(kind, &object, &origin));
    let key = object.key(kind);
    Some(Declared { kind, key, origin, object: object.into_value().into() })
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Findings about apiVersion, kind and metadata of something that is no known object.
fn header(value: &Value, origin: &Origin, findings: &mut Vec<Diagnostic>) -> Option<Declared> {
    let field = |name: &str| value.get(name).filter(|v| !v.is_null());
    let before = findings.len();
    let mut push = |place: Option<Place<'_>>, code, message: String, why: &str, help: String| {
        findings.extend(place.map(|p| Diagnostic::error(code, p.source, p.at, message, why, help)));
    };
    for name in ["apiVersion", "kind"] {
        if let Some(other) = field(name).filter(|v| !v.is_string()) {
            let message = format!("`{name}` is {other}, not a text");
            let place = origin.value_at(&format!("/{name}"));
            push(place, codes::WRONG_TYPE, message, "it names what the object is", "write a text".into());
        }
    }
    let kind = field("kind").and_then(Value::as_str);
    let api_version = field("apiVersion").and_then(Value::as_str);
    let versions = |kind: &str| -> Vec<String> {
        kinds().iter().filter(|k| k.kind == kind).map(|k| format!("`apiVersion: {}`", k.api_version())).collect()
    };
    if field("apiVersion").is_none() {
        let known = kind.map(versions).unwrap_or_default();
        let help = match known.first() {
            Some(version) => format!("add {version}"),
            None => "add a line like `apiVersion: v1`".to_owned(),
        };
        let why = "every Kubernetes object says which version of its kind it is";
        push(origin.nearest(""), codes::NO_API_VERSION, "`apiVersion` is missing".into(), why, help);
    }
    if field("kind").is_none() {
        let why = "every Kubernetes object says what it is";
        let help = "add a line like `kind: Pod`".to_owned();
        push(origin.nearest(""), codes::NO_KIND, "`kind` is missing".into(), why, help);
    }
    if let (Some(kind), Some(api_version)) = (kind, api_version)
        && kinds().by_gvk(api_version, kind).is_none()
    {
        let known = versions(kind);
        if known.is_empty() {
            let near = names::did_you_mean(kind, kinds().iter().map(|k| k.kind));
            let help = near.map(|k| format!("did you mean `{k}`?"));
            let help = help.unwrap_or_else(|| "write a Kubernetes kind, like Pod, ConfigMap or Secret".into());
            let why = "reddwarf has no kind of this name";
            push(origin.value_at("/kind"), codes::UNKNOWN_KIND, format!("kind `{kind}` is not known"), why, help);
        } else {
            let message = format!("apiVersion `{api_version}` has no kind `{kind}`");
            let why = "the kind is there in another version";
            let help = format!("write {}", known.join(" or "));
            push(origin.value_at("/apiVersion"), codes::UNKNOWN_API_VERSION, message, why, help);
        }
    }
    if findings.len() == before {
        let place = origin.key_at("/metadata").or_else(|| origin.nearest(""));
        let (message, why) = match field("metadata") {
            None => ("`metadata` is missing", "every Kubernetes object has at least a name"),
            Some(_) => ("`metadata` is not a mapping", "it holds the object's name, labels and annotations"),
        };
        let help = "write `metadata:` with `name:` under it";
        findings.extend(place.map(|p| Diagnostic::error(codes::REQUIRED, p.source, p.at, message, why, help)));
    }
    None
}

/// What `kubectl get -o yaml` prints and only a server may set. Taken out, with a warning when it said something.
const SERVER_FIELDS: &[&str] = &[
    "/metadata/uid",
    "/metadata/resourceVersion",
    "/metadata/generation",
    "/metadata/creationTimestamp",
    "/metadata/deletionTimestamp",
    "/metadata/deletionGracePeriodSeconds",
    "/metadata/selfLink",
    "/metadata/managedFields",
    "/status",
];

fn remove_server_fields(object: &mut Object, origin: &Origin, findings: &mut Vec<Diagnostic>) {
    for pointer in SERVER_FIELDS {
        let Some(value) = object.remove(pointer) else { continue };
        if is_blank(&value) {
            continue;
        }
        let path = FieldPath::from_pointer(pointer);
        findings.extend(origin.key_at(pointer).map(|p| {
            let message = format!("`{path}` has no effect in a file");
            let why = "the daemon sets it itself";
            Diagnostic::warning(codes::NO_EFFECT, p.source, p.at, message, why, "remove it")
        }));
    }
}

/// `yes`, `no`, `on`, `off` without quotes where a boolean belongs: kubectl reads them as booleans (YAML 1.1), so they
/// become ones, with a warning. True when something was changed.
fn boolean_words(object: &mut Object, errors: &[FieldError], origin: &Origin, findings: &mut Vec<Diagnostic>) -> bool {
    let mut changed = false;
    for error in errors.iter().filter(|e| e.reason == FieldReason::TypeInvalid && e.message.contains("true or false")) {
        let pointer = error.path.to_pointer();
        let (Some(word), Some(place)) = (object.get_str(&pointer), origin.value_at(&pointer)) else { continue };
        let quoted = place.at.length as usize != word.len();
        let truth = match word.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" => true,
            "no" | "off" | "n" => false,
            _ => continue,
        };
        if quoted {
            continue;
        }
        let message = format!("`{word}` is read as {truth}");
        let (why, help) = ("in YAML 1.2 it is a text, for kubectl a boolean", format!("write `{truth}`"));
        findings.push(Diagnostic::warning(codes::BOOLEAN_WORD, place.source, place.at, message, why, help));
        object.set(&pointer, truth);
        changed = true;
    }
    changed
}

fn generated_name(origin: &Origin) -> Option<Diagnostic> {
    let place = origin.key_at("/metadata/generateName").or_else(|| origin.nearest(""))?;
    let message = "an object in a file needs a fixed name";
    let why = "with `generateName` every pass over the directory would make another object";
    Some(Diagnostic::error(codes::GENERATED_NAME, place.source, place.at, message, why, "write `name:` instead"))
}

fn without_effect(kind: &Kind, object: &Object, origin: &Origin) -> Vec<Diagnostic> {
    if !kind.is_core("Pod") {
        return Vec::new();
    }
    let fields = reddwarf_objects::pod::not_yet_supported(object);
    let warning = |(path, why): (FieldPath, String)| {
        let place = origin.nearest(&path.to_pointer())?;
        let message = format!("`{path}` has no effect yet");
        let help = "remove it, or leave it for a later version";
        Some(Diagnostic::warning(codes::NO_EFFECT, place.source, place.at, message, why, help))
    };
    fields.into_iter().filter_map(warning).collect()
}

/// A finding of the objects crate, at its place in the file.
fn field_diagnostic(error: &FieldError, kind: &Kind, origin: &Origin) -> Option<Diagnostic> {
    let pointer = error.path.to_pointer();
    let parent = error.path.parent().unwrap_or_default().to_pointer();
    let place = match error.reason {
        FieldReason::Unknown => origin.key_at(&pointer),
        FieldReason::Required => origin.value_at(&pointer).or_else(|| origin.nearest(&parent)),
        _ => origin.value_at(&pointer),
    };
    let place = place.or_else(|| origin.nearest(&pointer))?;
    let (code, why, help) = words(error.reason);
    let what = match error.reason {
        FieldReason::Unknown => format!("unknown field `{}`", error.path),
        _ => {
            let value = error.value.clone().filter(|_| !kind.is_core("Secret"));
            FieldError { message: String::new(), value, ..error.clone() }.to_string()
        }
    };
    let why = match error.message.as_str() {
        "" => why.replace("{kind}", kind.kind),
        message => message.to_owned(),
    };
    let help = error.help.clone().unwrap_or_else(|| help.to_owned());
    Some(Diagnostic::error(code, place.source, place.at, what, why, help))
}

fn words(reason: FieldReason) -> (&'static str, &'static str, &'static str) {
    match reason {
        FieldReason::Required => (codes::REQUIRED, "a {kind} needs it", "add it"),
        FieldReason::Invalid => (codes::INVALID, "it breaks a rule of {kind}", "change the value"),
        FieldReason::NotSupported => (codes::NOT_SUPPORTED, "it is not one of those known", "use one that is"),
        FieldReason::Forbidden => (codes::FORBIDDEN, "a {kind} may not set it here", "remove it"),
        FieldReason::Duplicate => (codes::DUPLICATE_VALUE, "only one of them can count", "remove or rename one"),
        FieldReason::NotFound => {
            (codes::INVALID, "nothing of this name is there", "mend the name, or add what it names")
        }
        FieldReason::TypeInvalid => (codes::WRONG_TYPE, "it has the wrong type", "write a value of the right type"),
        FieldReason::Unknown => {
            (codes::UNKNOWN_FIELD, "a {kind} has no such field here", "remove it, or mend its name")
        }
        FieldReason::TooLong | FieldReason::TooMany => (codes::TOO_LONG, "it exceeds a limit of {kind}", "shorten it"),
    }
}
