//! Whose is it? Adopting what a selector selects and nobody manages, releasing what it selects no more.

use crate::runtime::{Action, Id, Slim};
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Kind, Object};
use serde_json::{Value, json};
use std::sync::Arc;

/// Who claims.
#[derive(Clone, Debug)]
pub(crate) struct Claimant {
    pub(crate) kind: &'static Kind,
    pub(crate) id: Id,
    pub(crate) uid: Arc<str>,
    /// Being deleted: it adopts nothing and keeps what it has.
    pub(crate) leaving: bool,
}

impl Claimant {
    /// An object as claimant; `None` when it has no uid or its kind is unknown.
    pub(crate) fn of(object: &Object) -> Option<Self> {
        let id = Id::of_object(object)?;
        let leaving = object.deletion_timestamp().is_some();
        Some(Self { kind: id.kind, id, uid: object.uid()?.into(), leaving })
    }

    /// The owner reference that makes it the controller.
    pub(crate) fn reference(&self) -> Value {
        json!({
            "apiVersion": self.kind.api_version(),
            "kind": self.kind.kind,
            "name": &*self.id.name,
            "uid": &*self.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }
}

/// What is whose.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claimed {
    /// Its own.
    pub(crate) own: Vec<Arc<Slim>>,
    /// Patches that adopt or release.
    pub(crate) actions: Vec<Action>,
}

/// Sorts children. `controlled` are those that name the claimant as controller, `loose` those without one. What is adopted
/// counts as its own at once: callers carry the patches out before they go on, and stop when one fails.
pub(crate) fn claim<'a>(
    claimant: &Claimant,
    selector: &LabelSelector,
    controlled: impl Iterator<Item = &'a Arc<Slim>>,
    loose: impl Iterator<Item = &'a Arc<Slim>>,
) -> Claimed {
    let mut claimed = Claimed::default();
    for child in controlled {
        if child.matches(selector) || claimant.leaving {
            claimed.own.push(child.clone());
        } else if child.deleted.is_none() {
            let others = child.owners.iter().filter(|o| *o.uid != *claimant.uid).map(reference);
            claimed.actions.push(owners(child, others.collect()));
        }
    }
    for child in loose.filter(|c| !claimant.leaving && c.deleted.is_none() && c.matches(selector)) {
        let ended = child.pod().is_some() && !child.is_active();
        if !ended {
            let all = child.owners.iter().map(reference).chain([claimant.reference()]).collect();
            claimed.actions.push(owners(child, all));
            claimed.own.push(child.clone());
        }
    }
    claimed
}

/// Replaces the owners. The resourceVersion makes a stale decision fail instead of overwriting someone else's.
fn owners(child: &Slim, all: Vec<Value>) -> Action {
    let value = if all.is_empty() { Value::Null } else { Value::Array(all) };
    let patch = json!({"metadata": {"ownerReferences": value, "resourceVersion": child.revision.to_string()}});
    Action::Patch { id: child.id.clone(), uid: child.uid.clone(), patch }
}

/// An owner as the object names it.
pub(crate) fn reference(owner: &crate::runtime::Owner) -> Value {
    let mut value = json!({
        "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid,
    });
    for (field, set) in [("controller", owner.controller), ("blockOwnerDeletion", owner.blocks)] {
        if set {
            value[field] = json!(true);
        }
    }
    value
}
