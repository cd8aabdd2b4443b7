//! What a write does to the object it finds: replace it, patch it, apply to it. Pure.

use crate::ownership::source_of;
use crate::part::Part;
use crate::{RegistryError, scale};
use chrono::{DateTime, Utc};
use reddwarf_objects::apply::{self, ApplyError, FieldManager};
use reddwarf_objects::convert;
use reddwarf_objects::patch::{self, PatchError};
use reddwarf_objects::{Kind, Object};
use serde_json::Value;

/// A change of one object.
#[derive(Clone, Debug)]
pub enum Edit {
    /// The whole of the part, as PUT sends it.
    Replace(Object),
    /// A patch; carried out again on whatever is there when another writer was faster.
    Patch(Patch),
}

impl Edit {
    /// With the objects in it in the version in which they are stored.
    pub(crate) fn to_stored(&self) -> Self {
        match self {
            Self::Replace(object) => Self::Replace(convert::to_stored(object.clone())),
            Self::Patch(Patch::Apply(config)) => Self::Patch(Patch::Apply(convert::to_stored(config.clone()))),
            Self::Patch(patch) => Self::Patch(patch.clone()),
        }
    }
}

/// A patch in one of the four ways that Kubernetes knows.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7396.
    Merge(Value),
    /// Kubernetes' strategic merge patch.
    Strategic(Value),
    /// Server-side apply; makes the object where there is none.
    Apply(Object),
}

/// What the write path asks of whoever passes a client's write on.
pub trait Gate: Send {
    /// A patched document becomes an object: unknown fields are dropped or refused.
    ///
    /// # Errors
    /// The refusal.
    fn decode(&mut self, kind: &Kind, patch: &Patch, document: Value) -> Result<Object, RegistryError> {
        let _ = (kind, patch);
        Object::from_value(document).map_err(|e| RegistryError::BadRequest(e.to_string()))
    }

    /// Fills in what only the server says of an object that a client makes, defaults filled in.
    fn complete(&mut self, kind: &Kind, new: &mut Object) {
        let _ = (kind, new);
    }

    /// A look at the object, defaults filled in, before it is validated and stored. `old` is what is there.
    ///
    /// # Errors
    /// The refusal.
    fn admit(&mut self, kind: &Kind, old: Option<&Object>, new: &Object) -> Result<(), RegistryError> {
        let _ = (kind, old, new);
        Ok(())
    }

    /// What admission has for the audit log (key and value), of a write that is refused too. A write that is tried again says so
    /// again.
    fn note(&mut self, notes: Vec<(&'static str, String)>) {
        let _ = notes;
    }
}

/// The gate of the daemon's own writers.
#[derive(Clone, Copy, Debug)]
pub struct Open;

impl Gate for Open {}

/// Who makes an edit, and how.
pub(crate) struct Editor<'a> {
    pub(crate) kind: &'a Kind,
    /// The version in which patches are written.
    pub(crate) version: &'a Kind,
    pub(crate) part: Part,
    pub(crate) manager: &'a str,
    pub(crate) force: bool,
    pub(crate) dry_run: bool,
    pub(crate) now: DateTime<Utc>,
}

impl Editor<'_> {
    /// As managedFields name the writer.
    pub(crate) fn field_manager(&self) -> FieldManager<'_> {
        FieldManager { name: self.manager, subresource: self.part.subresource() }
    }

    /// `live` patched; the outcome is an object of the kind, of which [`Part::take`] keeps its part.
    pub(crate) fn patched(&self, patch: &Patch, live: &Object, gate: &mut dyn Gate) -> Result<Object, RegistryError> {
        if let Patch::Apply(config) = patch {
            let result = self.applied(config, Some(live))?;
            return gate.decode(self.kind, patch, result.into_value());
        }
        let mut document = match self.part {
            Part::Scale => self.part.view(self.kind, live)?,
            _ => convert::to_version(self.version, live.clone()).into_value(),
        };
        match patch {
            Patch::Json(operations) => patch::json(&mut document, operations)?,
            Patch::Merge(patch) => patch::merge(&mut document, patch)?,
            // A Scale has no lists: both kinds of merge are one.
            Patch::Strategic(patch) if self.part == Part::Scale => patch::merge_patch(&mut document, patch),
            Patch::Strategic(patch) => patch::strategic(self.version, &mut document, patch)?,
            Patch::Apply(_) => {}
        }
        match self.part {
            Part::Scale => scale::wanted(self.kind, &document),
            _ => gate.decode(self.version, patch, document).map(convert::to_stored),
        }
    }

    /// Server-side apply. What a file declares is the file's; a rehearsal shows what the rest would come to.
    pub(crate) fn applied(&self, config: &Object, live: Option<&Object>) -> Result<Object, RegistryError> {
        let manager = self.field_manager();
        let config = match self.part {
            Part::Scale => &scale::wanted(self.kind, &config.value())?,
            _ => config,
        };
        match apply::apply(self.kind, live, config, &manager, self.force, self.now) {
            Err(ApplyError::Conflicts { conflicts, .. }) if self.dry_run && live.is_some() => {
                let file = live.and_then(source_of).map(|source| format!("conflict with \"{source}\""));
                let only_the_file = conflicts.iter().all(|c| Some(&c.message) == file.as_ref());
                let again = apply::apply(self.kind, live, config, &manager, self.force || only_the_file, self.now);
                Ok(again?)
            }
            done => Ok(done?),
        }
    }
}

impl From<PatchError> for RegistryError {
    fn from(e: PatchError) -> Self {
        Self::Patch(e)
    }
}

impl From<ApplyError> for RegistryError {
    fn from(e: ApplyError) -> Self {
        Self::Apply(e)
    }
}
