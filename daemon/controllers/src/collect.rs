//! Garbage collection by ownerReferences (Kubernetes: "Garbage Collection", "Owners and Dependents").
//!
//! An object all of whose owners are gone goes too. Gone means: looked up by name, and not there or there with another uid;
//! whatever can't be looked up counts as there. Finalizers say how an owner goes: `orphan` first takes its references out of
//! its dependents, `foregroundDeletion` first deletes them and waits for those that block. What files declare is never
//! collected.

use crate::runtime::{Action, Again, Change, Context, Controller, Events, Failure, Id, Owner, Slim, View, owner_id};
use crate::workload::reference;
use async_trait::async_trait;
use reddwarf_registry::{Author, DeleteOptions, Preconditions, Propagation, RegistryError};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

const NAME: &str = "garbage-collector-controller";
/// The finalizer of an owner that takes its references out of its dependents before it goes.
pub const ORPHAN: &str = "orphan";
/// The finalizer of an owner that goes after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";

/// What is known of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is there (or nobody knows that it is not).
    Solid,
    /// It is there and goes after its dependents.
    Waiting,
    /// It is not there.
    Absent,
    /// It can't be looked up: the reference makes no sense.
    Unresolvable,
}

/// What becomes of an object that names owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is.
    Keep,
    /// It stays without the references to these uids.
    Release(Vec<Box<str>>),
    /// It goes; in the foreground when its own dependents must go before it.
    Delete {
        /// Wait for its dependents.
        foreground: bool,
    },
}

/// Decides over an object from what is known of its owners. `dependents`: whether anything depends on it. Pure.
pub fn judge(owners: &[(Box<str>, Standing)], finalizers: &[Box<str>], dependents: bool) -> Verdict {
    if owners.is_empty() || owners.iter().any(|(_, s)| *s == Standing::Unresolvable) {
        return Verdict::Keep;
    }
    let is = |wanted: Standing| owners.iter().filter(move |(_, s)| *s == wanted);
    if is(Standing::Solid).next().is_some() {
        let gone: Vec<_> = owners.iter().filter(|(_, s)| *s != Standing::Solid).map(|(uid, _)| uid.clone()).collect();
        return if gone.is_empty() { Verdict::Keep } else { Verdict::Release(gone) };
    }
    let asked = finalizers.iter().any(|f| &**f == FOREGROUND);
    Verdict::Delete { foreground: asked || dependents && is(Standing::Waiting).next().is_some() }
}

/// The controller.
#[derive(Debug, Default)]
pub struct Collector {
    /// Objects about whose impossible owners was spoken, with their revision.
    said: Mutex<BTreeSet<(Arc<str>, u64)>>,
}

/// So many are remembered.
const SAID: usize = 1000;

impl Collector {
    /// How an owner stands, seen from `child`. Only the registry's word makes it absent.
    fn standing(context: &Context, child: &Slim, owner: &Owner) -> Result<Standing, RegistryError> {
        let Some(id) = owner_id(&owner.api_version, &owner.kind, &owner.name, &child.id.namespace) else {
            // A kind that nobody here knows: unknown is not absent.
            return Ok(Standing::Solid);
        };
        if id.kind.namespaced && !child.id.kind.namespaced {
            return Ok(Standing::Unresolvable);
        }
        let of = |waiting: bool| if waiting { Standing::Waiting } else { Standing::Solid };
        if let Some(known) = context.view().get(&id).filter(|o| *o.uid == *owner.uid) {
            return Ok(of(known.deleted.is_some() && known.has_finalizer(FOREGROUND)));
        }
        Ok(match context.find(&id)? {
            Some(found) if found.uid() == Some(&owner.uid) => {
                of(found.deletion_timestamp().is_some() && found.finalizers().contains(&FOREGROUND))
            }
            _ => Standing::Absent,
        })
    }

    /// An owner that goes after its dependents, or takes leave of them first.
    async fn leave(&self, context: &Context, owner: &Slim) -> Result<(), Failure> {
        let dependents: Vec<Arc<Slim>> = context.view().dependents(&owner.uid).cloned().collect();
        if owner.has_finalizer(ORPHAN) {
            let actions =
                dependents.iter().map(|d| release(d, std::slice::from_ref(&Box::from(&*owner.uid)))).collect();
            context.act_together(NAME, actions).await?;
            return context.act(NAME, vec![without(owner, ORPHAN)]).await;
        }
        for dependent in dependents.iter().filter(|d| d.deleted.is_none()) {
            self.examine(context, dependent).await?;
        }
        let blocks = |d: &Arc<Slim>| d.owners.iter().any(|o| *o.uid == *owner.uid && o.blocks);
        // Asked of the view once more: what was deleted at once is gone from it by the next look.
        if !dependents.iter().any(blocks) {
            context.act(NAME, vec![without(owner, FOREGROUND)]).await?;
        }
        Ok(())
    }

    async fn examine(&self, context: &Context, slim: &Slim) -> Result<(), Failure> {
        if slim.declared {
            return Ok(());
        }
        let mut owners = Vec::with_capacity(slim.owners.len());
        for owner in slim.owners.iter() {
            let standing = Self::standing(context, slim, owner)?;
            let foreign = standing == Standing::Unresolvable
                || standing == Standing::Absent && lives_elsewhere(&context.view(), slim, &owner.uid);
            if foreign && self.is_news(slim) {
                let text = format!(
                    "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace {:?}",
                    owner.api_version, owner.kind, slim.id.namespace, owner.name, owner.uid, slim.id.namespace
                );
                context.act(NAME, vec![Events::about_slim(slim).warning("OwnerRefInvalidNamespace", text)]).await?;
            }
            owners.push((owner.uid.clone(), standing));
        }
        let dependents = context.view().dependents(&slim.uid).next().is_some();
        match judge(&owners, &slim.finalizers, dependents) {
            Verdict::Keep => Ok(()),
            Verdict::Release(uids) => context.act(NAME, vec![release(slim, &uids)]).await,
            Verdict::Delete { foreground } => Self::delete(context, slim, foreground).await,
        }
    }

    /// Once for each state of an object is enough.
    fn is_news(&self, slim: &Slim) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= SAID {
            said.clear();
        }
        said.insert((slim.uid.clone(), slim.revision))
    }

    /// Deletes exactly the object that was judged: had its owners changed since, its revision would be another.
    async fn delete(context: &Context, slim: &Slim, foreground: bool) -> Result<(), Failure> {
        tracing::info!(object = %slim.id, foreground, "collected: its owners are gone");
        let preconditions =
            Preconditions { uid: Some(slim.uid.to_string()), resource_version: Some(slim.revision.to_string()) };
        let propagation = foreground.then_some(Propagation::Foreground);
        let options = DeleteOptions { preconditions, propagation, ..DeleteOptions::default() };
        match context.registry.delete(&Author::System(NAME), &slim.id.key(), &options).await {
            Ok(_) | Err(RegistryError::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Is the uid that of an object in another namespace?
fn lives_elsewhere(view: &View, child: &Slim, uid: &str) -> bool {
    view.all().any(|s| &*s.uid == uid && s.id.kind.namespaced && s.id.namespace != child.id.namespace)
}

/// Takes the references to these uids out of an object. The resourceVersion makes a stale decision fail.
fn release(slim: &Slim, uids: &[Box<str>]) -> Action {
    let left: Vec<Value> = slim.owners.iter().filter(|o| !uids.contains(&o.uid)).map(reference).collect();
    let value = if left.is_empty() { Value::Null } else { Value::Array(left) };
    let patch = json!({"metadata": {"ownerReferences": value, "resourceVersion": slim.revision.to_string()}});
    Action::Patch { id: slim.id.clone(), uid: slim.uid.clone(), patch }
}

/// Takes one finalizer away.
fn without(slim: &Slim, finalizer: &str) -> Action {
    let left = slim.finalizers.iter().map(|f| &**f).filter(|f| *f != finalizer);
    let action = Action::finalizers(&slim.id, &slim.uid, left);
    let Action::Patch { id, uid, mut patch } = action else { return action };
    patch["metadata"]["resourceVersion"] = json!(slim.revision.to_string());
    Action::Patch { id, uid, patch }
}

fn leaves(slim: &Slim) -> bool {
    slim.deleted.is_some() && (slim.has_finalizer(ORPHAN) || slim.has_finalizer(FOREGROUND))
}

#[async_trait]
impl Controller for Collector {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        if let Some(after) = &change.after {
            let before = change.before.as_ref();
            let new_owners = before.is_none_or(|b| b.owners != after.owners || b.deleted != after.deleted);
            if (!after.owners.is_empty() && new_owners) || leaves(after) {
                add(after.id.clone());
            }
            // It went on its way: what depends on it is to know how.
            if leaves(after) && before.is_none_or(|b| !leaves(b)) {
                view.dependents(&after.uid).for_each(|d| add(d.id.clone()));
            }
        }
        let Some(before) = &change.before else { return };
        if change.after.as_ref().is_none_or(|a| a.uid != before.uid) {
            view.dependents(&before.uid).for_each(|d| add(d.id.clone()));
        }
        // Owners that wait for their dependents.
        let released = change.after.as_ref().is_none_or(|a| a.owners != before.owners || a.uid != before.uid);
        for owner in before.owners.iter().filter(|_| released) {
            let id = owner_id(&owner.api_version, &owner.kind, &owner.name, &before.id.namespace);
            if let Some(owner) = id.and_then(|id| view.get(&id)).filter(|o| leaves(o)) {
                add(owner.id.clone());
            }
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(slim) = context.view().get(id).cloned() else { return Ok(Again::NEVER) };
        if leaves(&slim) {
            self.leave(context, &slim).await?;
        } else if slim.deleted.is_none() {
            self.examine(context, &slim).await?;
        }
        Ok(Again::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        use Standing::{Absent, Solid, Unresolvable, Waiting};
        let delete = |foreground| Verdict::Delete { foreground };
        let release = |uids: &[&str]| Verdict::Release(uids.iter().map(|u| Box::from(*u)).collect());
        let table: &[(&[Standing], bool, Verdict)] = &[
            (&[], false, Verdict::Keep),
            (&[Solid], true, Verdict::Keep),
            (&[Absent], false, delete(false)),
            (&[Absent], true, delete(false)),
            (&[Absent, Solid], false, release(&["0"])),
            (&[Waiting, Solid], true, release(&["0"])),
            (&[Waiting], false, delete(false)),
            (&[Waiting], true, delete(true)),
            (&[Absent, Waiting], true, delete(true)),
            (&[Unresolvable], false, Verdict::Keep),
            (&[Absent, Unresolvable], false, Verdict::Keep),
        ];
        for (standings, dependents, verdict) in table {
            let owners: Vec<_> = standings.iter().enumerate().map(|(i, s)| (i.to_string().into(), *s)).collect();
            assert_eq!(judge(&owners, &[], *dependents), *verdict, "{standings:?} {dependents}");
        }
        let owners = [("x".into(), Standing::Absent)];
        assert_eq!(judge(&owners, &[FOREGROUND.into()], false), delete(true));
    }
}
