//! What a decision may ask for, as values that tests can compare, and how it is carried out.

use super::id::Id;
use reddwarf_objects::{Object, kinds};
use reddwarf_registry::{
    Author, DeleteOptions, EventTarget, EventType, Part, Patch, Preconditions, Registry, RegistryError, WriteOptions,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make this object.
    Create(Box<Object>),
    /// Delete this object, if it is still the one with this uid. What is gone already is fine.
    Delete {
        /// Which.
        id: Id,
        /// Its uid.
        uid: Arc<str>,
    },
    /// Merge this into the object, if it is still the one with this uid. What is gone is left alone.
    Patch {
        /// Which.
        id: Id,
        /// Its uid.
        uid: Arc<str>,
        /// JSON merge patch (RFC 7396).
        patch: Value,
    },
    /// Give the object this status, if it is still the one with this uid.
    Status {
        /// Which.
        id: Id,
        /// Its uid.
        uid: Arc<str>,
        /// All of it.
        status: Value,
    },
    /// Say something about an object.
    Say(Said),
}

/// An event about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// About what.
    pub about: EventTarget,
    /// Is it a warning?
    pub warning: bool,
    /// In one CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Makes events about one object.
#[derive(Clone, Debug)]
pub struct Events(EventTarget);

impl Events {
    /// About this object.
    pub fn about(object: &Object) -> Self {
        Self(EventTarget::of(object))
    }

    /// About an object of which only the projection is at hand.
    pub fn about_slim(slim: &super::Slim) -> Self {
        Self(EventTarget { uid: slim.uid.to_string(), ..EventTarget::key(slim.id.kind, &slim.id.key()) })
    }

    /// As expected.
    pub fn normal(&self, reason: &'static str, message: impl Into<String>) -> Action {
        Action::Say(Said { about: self.0.clone(), warning: false, reason, message: message.into() })
    }

    /// Something to look at.
    pub fn warning(&self, reason: &'static str, message: impl Into<String>) -> Action {
        Action::Say(Said { about: self.0.clone(), warning: true, reason, message: message.into() })
    }
}

impl Action {
    /// Replaces the finalizers.
    pub fn finalizers<'a>(id: &Id, uid: &Arc<str>, left: impl Iterator<Item = &'a str>) -> Self {
        let left: Vec<&str> = left.collect();
        let value = if left.is_empty() { Value::Null } else { json!(left) };
        Self::Patch { id: id.clone(), uid: uid.clone(), patch: json!({"metadata": {"finalizers": value}}) }
    }
}

/// Carries out one action.
pub(super) async fn one(registry: &Registry, name: &'static str, action: Action) -> Result<(), RegistryError> {
    let author = Author::System(name);
    match action {
        Action::Create(object) => registry.create(&author, *object, WriteOptions::default()).await.map(drop),
        Action::Delete { id, uid } => {
            let preconditions = Preconditions { uid: Some(uid.to_string()), ..Preconditions::default() };
            let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
            gone_is_fine(registry.delete(&author, &id.key(), &options).await.map(drop))
        }
        Action::Patch { id, uid, mut patch } => {
            if let Some(metadata) = patch.as_object_mut().map(|p| p.entry("metadata").or_insert_with(|| json!({}))) {
                metadata["uid"] = json!(&*uid);
            }
            let (patch, options) = (Patch::Merge(patch), WriteOptions::default());
            gone_is_fine(registry.patch(&author, &id.key(), Part::Main, patch, &options).await.map(drop))
        }
        Action::Status { id, uid, status } => {
            let key = id.key();
            let written = registry.modify_status(&author, &key, |live| {
                if live.uid() == Some(&*uid) {
                    live.set_status(Some(status.clone()));
                }
            });
            gone_is_fine(written.await.map(drop))
        }
        Action::Say(said) => {
            let kind = if said.warning { EventType::Warning } else { EventType::Normal };
            if let Err(error) = registry.record_event(&said.about, kind, said.reason, &said.message, name).await {
                tracing::debug!(%error, reason = said.reason, "an event could not be recorded");
            }
            Ok(())
        }
    }
}

/// An object that is gone, or another one of the same name, is nothing to change.
fn gone_is_fine(result: Result<(), RegistryError>) -> Result<(), RegistryError> {
    match result {
        Err(RegistryError::NotFound(_) | RegistryError::Precondition { .. }) => Ok(()),
        other => other,
    }
}

/// The id of what an owner reference names, beside an object in `namespace`. `None`: a kind that is not in the table.
pub(crate) fn owner_id(api_version: &str, kind: &str, name: &str, namespace: &str) -> Option<Id> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let kind = kinds().iter().find(|k| k.group == group && k.kind == kind)?;
    Some(Id::of(kind, namespace, name))
}
