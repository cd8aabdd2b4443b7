//! What a write does to an object before it is stored: defaults, validation, ownership, metadata. Pure: time, uid and
//! the stored object come as arguments.

use crate::around::refused;
use crate::edit::Gate;
use crate::ownership::{check_claim, check_update, invalid, source_of};
use crate::part::Part;
use crate::{Author, RegistryError};
use chrono::{DateTime, Utc};
use reddwarf_objects::admission::pod_security::{self, Policy, Review};
use reddwarf_objects::admission::{self, Surroundings};
use reddwarf_objects::apply::{self, FieldManager};
use reddwarf_objects::default::{prepare_create, prepare_update};
use reddwarf_objects::validate::{
    validate_ephemeral_containers, validate_replacement, validate_resize, validate_status, validate_update,
};
use reddwarf_objects::{FieldError, FieldPath, Kind, Object, SOURCE_ANNOTATION, convert, default, validate};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Metadata that only we write.
pub(crate) const SERVER_METADATA: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
];

/// Who writes which part, how and when.
pub(crate) struct Writer<'a> {
    pub(crate) author: &'a Author,
    pub(crate) part: Part,
    /// The version that the writer speaks, when it is not the stored one: its rules count.
    pub(crate) version: Option<&'static Kind>,
    /// The owner of the written fields in managedFields.
    pub(crate) manager: &'a str,
    pub(crate) dry_run: bool,
    pub(crate) now: DateTime<Utc>,
}

impl Writer<'_> {
    /// An object in the version that the writer speaks, and that version.
    fn shown<'o>(&self, kind: &'o Kind, object: &'o Object) -> (&'o Kind, Cow<'o, Object>) {
        match self.version.filter(|version| !convert::is_stored(version)) {
            Some(version) => (version, Cow::Owned(convert::to_version(version, object.clone()))),
            None => (kind, Cow::Borrowed(object)),
        }
    }

    fn manager(&self) -> FieldManager<'_> {
        FieldManager { name: self.manager, subresource: self.part.subresource() }
    }
}

/// An object that is made, ready to be stored.
pub(crate) struct New {
    pub(crate) object: Object,
    /// Its managedFields as JSON, when they are not in it.
    pub(crate) owners: Option<Vec<u8>>,
    /// What admission says to who makes it.
    pub(crate) warnings: Vec<String>,
}

/// An object that was made, with its managedFields in it.
pub(crate) fn with_owners(mut object: Object, owners: Option<Vec<u8>>) -> Object {
    // What we wrote ourselves is JSON.
    if let Some(list) = owners.and_then(|text| serde_json::from_slice::<Value>(&text).ok()) {
        object.set("/metadata/managedFields", list);
    }
    object
}

/// A new object, ready to be stored. `object` has its final name.
pub(crate) fn create(
    writer: &Writer<'_>,
    kind: &Kind,
    mut object: Object,
    uid: Uuid,
    around: &Surroundings,
    gate: &mut dyn Gate,
) -> Result<New, RegistryError> {
    prepare_new(writer, kind, &mut object, None, uid)?;
    let owners = apply::made(kind, &mut object, &writer.manager(), writer.now);
    Ok(New { owners, ..admitted(writer, kind, object, uid, around, gate)? })
}

/// The same for the outcome of a server-side apply, which knows its owners.
pub(crate) fn create_applied(
    writer: &Writer<'_>,
    kind: &Kind,
    mut object: Object,
    uid: Uuid,
    around: &Surroundings,
    gate: &mut dyn Gate,
) -> Result<New, RegistryError> {
    prepare_new(writer, kind, &mut object, None, uid)?;
    admitted(writer, kind, object, uid, around, gate)
}

/// The same for what a file declares. `source` is the file. It is not admitted.
pub(crate) fn create_declared(
    writer: &Writer<'_>,
    kind: &Kind,
    mut object: Object,
    source: Option<&str>,
    uid: Uuid,
) -> Result<Object, RegistryError> {
    prepare_new(writer, kind, &mut object, source, uid)?;
    finish_new(writer, kind, object)
}

/// Defaults and metadata of a new object.
fn prepare_new(
    writer: &Writer<'_>,
    kind: &Kind,
    object: &mut Object,
    source: Option<&str>,
    uid: Uuid,
) -> Result<(), RegistryError> {
    check_claim(writer.author, kind, None, object)?;
    if let Some(metadata) = object.map_mut().get_mut("metadata").and_then(Value::as_object_mut) {
        for field in SERVER_METADATA.iter().filter(|field| **field != "managedFields") {
            metadata.remove(*field);
        }
    }
    place(kind, object);
    set_source(object, source);
    if kind.has_status() && !matches!(writer.author, Author::System(_)) {
        object.set_status(None);
    }
    object.set_uid(&uid.to_string());
    default(kind, object);
    Ok(())
}

fn admitted(
    writer: &Writer<'_>,
    kind: &Kind,
    mut object: Object,
    uid: Uuid,
    around: &Surroundings,
    gate: &mut dyn Gate,
) -> Result<New, RegistryError> {
    admission::admit(kind, &mut object, around, uid.as_u64_pair().1).map_err(|r| refused(kind, &object, r))?;
    gate.complete(kind, &mut object);
    gate.admit(kind, None, &object)?;
    let object = finish_new(writer, kind, object)?;
    admission::check(kind, &object, around).map_err(|r| refused(kind, &object, r))?;
    let warnings = reviewed(&around.pod_security, kind, None, &object, gate)?;
    Ok(New { object, owners: None, warnings })
}

/// Holds a write against the levels of its namespace; gives what they say to the writer.
fn reviewed(
    policy: &Policy,
    kind: &Kind,
    old: Option<&Object>,
    new: &Object,
    gate: &mut dyn Gate,
) -> Result<Vec<String>, RegistryError> {
    let Review { refusal, warnings, notes } = pod_security::review(policy, kind, old, new);
    if !notes.is_empty() {
        gate.note(notes);
    }
    match refusal {
        Some(refusal) => Err(refused(kind, new, refusal)),
        None => Ok(warnings),
    }
}

/// What follows from a new object, and its rules.
fn finish_new(writer: &Writer<'_>, kind: &Kind, mut object: Object) -> Result<Object, RegistryError> {
    // What the server adds is nobody's: it comes after the owners are noted.
    prepare_create(kind, &mut object);
    let (version, shown) = writer.shown(kind, &object);
    let errors = validate(version, &shown);
    if !errors.is_empty() {
        return Err(invalid(version, &object, errors));
    }
    object.set_creation_timestamp(writer.now);
    if kind.has_generation {
        object.set_generation(1);
    }
    Ok(object)
}

/// What else decides over an update.
#[derive(Default)]
pub(crate) struct Update<'a> {
    /// The file that declares the object now.
    pub(crate) source: Option<&'a str>,
    /// The form that a file last declared.
    pub(crate) declared: Option<&'a Object>,
    /// The new object comes from a server-side apply: its managedFields are right.
    pub(crate) applied: bool,
    /// What becomes of pods in its namespace, as far as this write is held to that.
    pub(crate) pod_security: Policy,
}

/// A changed object, ready to be stored.
pub(crate) struct Changed {
    pub(crate) object: Object,
    /// What admission says to who changes it.
    pub(crate) warnings: Vec<String>,
}

/// A changed object, ready to be stored: the writer's part comes from `new`.
pub(crate) fn update(
    writer: &Writer<'_>,
    kind: &Kind,
    old: &Object,
    new: Object,
    update: &Update<'_>,
    gate: &mut dyn Gate,
) -> Result<Changed, RegistryError> {
    check_identity(kind, old, &new)?;
    check_claim(writer.author, kind, Some(old), &new)?;
    let mut new = writer.part.take(kind, old, new);
    place(kind, &mut new);
    set_source(&mut new, update.source.or(source_of(old)));
    default(kind, &mut new);
    if !update.applied {
        apply::track(kind, Some(old), &mut new, &writer.manager(), writer.now);
    }
    gate.admit(kind, Some(old), &new)?;
    if writer.part == Part::Main {
        prepare_update(kind, old, &mut new);
    }
    if !writer.dry_run {
        check_update(writer.author, kind, old, &new, update.declared)?;
    }
    check_finalizers(kind, old, &new)?;
    let errors = rules(writer, kind, old, &new);
    if !errors.is_empty() {
        return Err(invalid(kind, &new, errors));
    }
    let warnings = reviewed(&update.pod_security, kind, Some(old), &new, gate)?;
    if kind.has_generation && !differing_fields(old, &new).is_empty() {
        new.set_generation(old.generation().unwrap_or(0).saturating_add(1));
    }
    apply::keep_times(old, &mut new);
    Ok(Changed { object: new, warnings })
}

/// The rules that an update breaks. What the daemon observes is not doubted.
fn rules(writer: &Writer<'_>, kind: &Kind, old: &Object, new: &Object) -> Vec<FieldError> {
    match writer.part {
        Part::Status if writer.author.is_api() => validate_status(kind, old, new),
        Part::Status | Part::Approval | Part::Finalize => Vec::new(),
        Part::EphemeralContainers => validate_ephemeral_containers(old, new),
        Part::Resize => validate_resize(old, new),
        Part::Main if !may_change_anything(writer.author, kind) => {
            let (version, new) = writer.shown(kind, new);
            validate_update(version, &writer.shown(kind, old).1, &new)
        }
        Part::Main | Part::Scale => validate_replacement(kind, new),
    }
}

/// Files and the daemon itself may change every field of a pod (ADR 2); API clients are held to Kubernetes' rules.
fn may_change_anything(author: &Author, kind: &Kind) -> bool {
    match author {
        Author::File(_) => kind.is_core("Pod"),
        Author::System(_) => true,
        Author::Api { .. } => false,
    }
}

/// A namespaced object without a namespace lives in `default`; a cluster-wide one has none.
fn place(kind: &Kind, object: &mut Object) {
    if !kind.namespaced {
        object.set_namespace(None);
    } else if object.namespace().is_none() {
        object.set_namespace(Some("default"));
    }
}

fn set_source(object: &mut Object, source: Option<&str>) {
    match source {
        Some(source) => object.set_annotation(SOURCE_ANNOTATION, source),
        None => object.remove_annotation(SOURCE_ANNOTATION),
    }
}

fn check_identity(kind: &Kind, old: &Object, new: &Object) -> Result<(), RegistryError> {
    if new.name() != old.name() || new.kind() != old.kind() {
        let text =
            format!("the name of the object ({}) does not match the name on the URL ({})", new.name(), old.name());
        return Err(RegistryError::BadRequest(text));
    }
    match new.uid() {
        Some(uid) if Some(uid) != old.uid() => Err(RegistryError::Precondition {
            kind: kind.plural.to_owned(),
            group: kind.group.to_owned(),
            name: old.name().to_owned(),
            message: format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                old.uid().unwrap_or_default()
            ),
        }),
        _ => Ok(()),
    }
}

/// While an object is being deleted finalizers can only be taken away.
fn check_finalizers(kind: &Kind, old: &Object, new: &Object) -> Result<(), RegistryError> {
    if old.deletion_timestamp().is_none() {
        return Ok(());
    }
    let before = old.finalizers();
    let added: Vec<String> =
        new.finalizers().into_iter().filter(|f| !before.contains(f)).map(|f| json!(f).to_string()).collect();
    if added.is_empty() {
        return Ok(());
    }
    let text = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    let error = FieldError::forbidden(&FieldPath::of("metadata.finalizers"), text);
    // Twice, as the reference: once by the rule for all kinds, once by the kind's own.
    Err(invalid(kind, new, vec![error.clone(), error]))
}

/// Top-level fields that differ and count as the spec: all but metadata and status.
pub(crate) fn differing_fields(old: &Object, new: &Object) -> Vec<String> {
    fn given<'o>(object: &'o Object, field: &str) -> Option<&'o Value> {
        object.map().get(field).filter(|value| !value.is_null())
    }
    let fields: BTreeSet<&String> = old.map().keys().chain(new.map().keys()).collect();
    fields
        .into_iter()
        .filter(|field| !["apiVersion", "kind", "metadata", "status"].contains(&field.as_str()))
        .filter(|field| given(old, field) != given(new, field))
        .cloned()
        .collect()
}
