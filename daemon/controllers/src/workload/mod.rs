//! What makes pods, and what makes what makes pods.
//!
//! | kind | look in | makes |
//! |---|---|---|
//! | Deployment | [`deployment`] | ReplicaSets |
//! | ReplicaSet, ReplicationController | [`replicaset`] | pods |
//! | StatefulSet | [`statefulset`] | pods with ordinals, claims, ControllerRevisions |
//! | DaemonSet | [`daemonset`] | a pod on each node, ControllerRevisions |
//! | Job | [`job`] | pods that end |
//! | CronJob | [`cronjob`] | Jobs |
//!
//! Each has a pure `decide` of values, and a controller that gathers the values and carries the decision out. Shared by them:
//! `claim.rs` (adopting and releasing), `pods.rs` (pods from templates, ranking, slow starts), `template.rs` (equality and
//! hashes of pod templates), `revision.rs` (ControllerRevisions), `fields.rs` (reading objects).

mod claim;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
mod fields;
pub mod job;
mod pods;
pub mod replicaset;
mod revision;
pub mod statefulset;
mod template;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use claim::reference;
pub(crate) use fields::{Wanted, conditions as conditions_of, scaled, set_condition};

use crate::runtime::{Change, Id, View};
use reddwarf_objects::Kind;

/// Which object of `kind` manages a changed child, or could adopt it.
pub(crate) fn managers(kind: &'static Kind, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
    let mut loose = false;
    for slim in [&change.before, &change.after].into_iter().flatten() {
        match slim.controller() {
            Some(owner) if &*owner.kind == kind.kind && *owner.api_version == *kind.api_version() => {
                add(Id::of(kind, &slim.id.namespace, &owner.name));
            }
            Some(_) => {}
            None => loose = true,
        }
    }
    let Some(child) = change.after.as_ref().filter(|c| loose && c.controller().is_none() && c.deleted.is_none()) else {
        return;
    };
    for parent in view.list(kind, Some(&child.id.namespace)) {
        if parent.selector().is_some_and(|s| child.matches(s)) {
            add(parent.id.clone());
        }
    }
}
