//! The shared view: the projections of all objects that matter to a controller, with the indexes to find them by.

use super::id::Id;
use super::slim::{Pool, Slim};
use reddwarf_objects::pod::Phase;
use reddwarf_objects::{Kind, kinds};
use reddwarf_registry::Followed;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// An object before and after a change; a full pass shows every object as if it had just come.
#[derive(Clone, Debug)]
pub struct Change {
    /// As it was.
    pub before: Option<Arc<Slim>>,
    /// As it is.
    pub after: Option<Arc<Slim>>,
}

impl Change {
    /// The newest state, be it the last one.
    pub fn object(&self) -> Option<&Arc<Slim>> {
        self.after.as_ref().or(self.before.as_ref())
    }
}

/// What the pods of a node that have not ended ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many.
    pub pods: i64,
    /// CPU, thousandths.
    pub cpu_millis: i64,
    /// Memory, bytes.
    pub memory: i64,
}

impl Usage {
    /// What one pod adds; `None` when it takes nothing of a node.
    fn of(slim: &Slim) -> Option<(&Arc<str>, Self)> {
        let pod = slim.pod().filter(|p| !p.node.is_empty() && !matches!(p.phase, Phase::Succeeded | Phase::Failed))?;
        Some((&pod.node, Self { pods: 1, cpu_millis: pod.cpu_millis, memory: pod.memory }))
    }

    /// Adds (or, with `sign` -1, takes away) another.
    pub fn add(&mut self, other: Self, sign: i64) {
        self.pods = self.pods.saturating_add(sign.saturating_mul(other.pods));
        self.cpu_millis = self.cpu_millis.saturating_add(sign.saturating_mul(other.cpu_millis));
        self.memory = self.memory.saturating_add(sign.saturating_mul(other.memory));
    }
}

/// All projections.
#[derive(Debug, Default)]
pub struct View {
    objects: BTreeMap<Id, Arc<Slim>>,
    /// How many objects there are of a kind, by plural and group: most are asked for with every pod, and have none.
    counts: HashMap<(&'static str, &'static str), usize>,
    /// By the uid of each owner.
    owned: HashMap<Box<str>, BTreeSet<Id>>,
    /// Without a controller.
    loose: BTreeSet<Id>,
    /// Pods that wait for the scheduler.
    unplaced: BTreeSet<Id>,
    /// By node.
    usage: HashMap<Arc<str>, Usage>,
    pool: Pool,
    revision: u64,
}

impl View {
    /// One object.
    pub fn get(&self, id: &Id) -> Option<&Arc<Slim>> {
        self.objects.get(id)
    }

    /// All objects of a kind, in one namespace or (`None`) in all.
    pub fn list<'a>(&'a self, kind: &'static Kind, namespace: Option<&'a str>) -> impl Iterator<Item = &'a Arc<Slim>> {
        let some = self.counts.get(&(kind.plural, kind.group)).is_some_and(|count| *count > 0);
        let from = some.then(|| Id::of(kind, namespace.unwrap_or_default(), ""));
        from.into_iter()
            .flat_map(|from| self.objects.range((Bound::Included(from), Bound::Unbounded)))
            .take_while(move |(id, _)| {
                id.kind.plural == kind.plural
                    && id.kind.group == kind.group
                    && (!kind.namespaced || namespace.is_none_or(|n| &*id.namespace == n))
            })
            .map(|(_, slim)| slim)
    }

    /// All objects.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Slim>> {
        self.objects.values()
    }

    /// What names this uid among its owners.
    pub fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Arc<Slim>> + use<'a> {
        self.owned.get(uid).into_iter().flatten().filter_map(|id| self.objects.get(id))
    }

    /// Objects of a kind that this uid manages.
    pub fn controlled<'a>(&'a self, uid: &'a str, kind: &'static Kind) -> impl Iterator<Item = &'a Arc<Slim>> {
        self.dependents(uid).filter(move |s| {
            s.id.kind.plural == kind.plural
                && s.id.kind.group == kind.group
                && s.controller().is_some_and(|o| &*o.uid == uid)
        })
    }

    /// Objects of a kind in a namespace that nobody manages.
    pub fn loose<'a>(&'a self, kind: &'static Kind, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Slim>> {
        let from = Id::of(kind, namespace, "");
        self.loose
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |id| {
                id.kind.plural == kind.plural && id.kind.group == kind.group && &*id.namespace == namespace
            })
            .filter_map(|id| self.objects.get(id))
    }

    /// Pods that wait for the scheduler.
    pub fn unplaced(&self) -> impl Iterator<Item = &Id> {
        self.unplaced.iter()
    }

    /// What the pods of a node ask for.
    pub fn usage(&self, node: &str) -> Usage {
        self.usage.get(node).copied().unwrap_or_default()
    }

    fn account(&mut self, slim: &Slim, sign: i64) {
        let Some((node, usage)) = Usage::of(slim) else { return };
        let total = self.usage.entry(node.clone()).or_default();
        total.add(usage, sign);
        if total.pods <= 0 {
            self.usage.remove(node);
        }
    }

    /// Up to where the registry's changes are in.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many objects are kept.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Takes a change in; `None` when it changes nothing here.
    pub fn take(&mut self, followed: &Followed) -> Option<Change> {
        self.revision = self.revision.max(followed.revision.get());
        let id = Id::from_key(&followed.key)?;
        let after = match &followed.json {
            None => None,
            Some(json) => match Slim::read(&mut self.pool, id.clone(), followed.revision.get(), json, false) {
                Ok(slim) => slim.map(Arc::new),
                Err(why) => {
                    tracing::error!(object = %id, why, "a stored object can't be read and is left as it is");
                    return None;
                }
            },
        };
        if after.is_none() && !self.objects.contains_key(&id) {
            return self.unkept(id, followed);
        }
        self.put(&id, after)
    }

    /// A change of an object of which nothing is kept: whoever named it as owner has to know that it went, and where a quota
    /// counts it, that it came.
    fn unkept(&mut self, id: Id, followed: &Followed) -> Option<Change> {
        let revision = followed.revision.get();
        let gone = followed.json.is_none();
        if !gone && !self.has_quota(&id.namespace) {
            return None;
        }
        let json = if gone { followed.previous.as_ref()? } else { followed.json.as_ref()? };
        let slim = Arc::new(Slim::read(&mut self.pool, id, revision, json, true).ok()??);
        Some(if gone { Change { before: Some(slim), after: None } } else { Change { before: None, after: Some(slim) } })
    }

    /// Does a namespace have a ResourceQuota?
    pub fn has_quota(&self, namespace: &str) -> bool {
        let kind = kinds().by_gvk("v1", "ResourceQuota");
        !namespace.is_empty() && kind.is_some_and(|kind| self.list(kind, Some(namespace)).next().is_some())
    }

    /// Replaces one projection.
    pub fn put(&mut self, id: &Id, after: Option<Arc<Slim>>) -> Option<Change> {
        let before = self.objects.remove(id);
        let of_kind = (id.kind.plural, id.kind.group);
        if let Some(before) = &before {
            self.counts.entry(of_kind).and_modify(|count| *count = count.saturating_sub(1));
            self.loose.remove(id);
            self.unplaced.remove(id);
            self.account(before, -1);
            for owner in before.owners.iter() {
                if let Some(ids) = self.owned.get_mut(&owner.uid) {
                    ids.remove(id);
                    if ids.is_empty() {
                        self.owned.remove(&owner.uid);
                    }
                }
            }
        }
        if let Some(after) = &after {
            let id = &after.id;
            *self.counts.entry(of_kind).or_default() += 1;
            self.account(after, 1);
            if after.waits_for_a_node() {
                self.unplaced.insert(id.clone());
            }
            for owner in after.owners.iter() {
                self.owned.entry(owner.uid.clone()).or_default().insert(id.clone());
            }
            if after.controller().is_none() && may_be_adopted(id) {
                self.loose.insert(id.clone());
            }
            self.objects.insert(id.clone(), after.clone());
        }
        (before.is_some() || after.is_some()).then_some(Change { before, after })
    }
}

/// Kinds that controllers look for without an owner.
fn may_be_adopted(id: &Id) -> bool {
    matches!(id.kind.kind, "Pod" | "ReplicaSet" | "ControllerRevision" | "Job" | "PersistentVolumeClaim")
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_store::Revision;
    use serde_json::{Value, json};

    fn followed(id: &Id, revision: u64, json: Option<Value>, previous: Option<Value>) -> Followed {
        let bytes = |v: Value| v.to_string().into_bytes().into();
        let (json, previous) = (json.map(bytes), previous.map(bytes));
        Followed { key: id.key(), revision: Revision(revision), json, previous }
    }

    #[test]
    fn what_is_owned_is_found_by_its_owner() {
        let mut view = View::default();
        let pods = kinds().by_gvk("v1", "Pod").unwrap();
        let id = Id::of(pods, "d", "p");
        let owned = json!({"metadata": {"name": "p", "uid": "1", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "x", "controller": true}]}});
        view.take(&followed(&id, 1, Some(owned), None));
        assert_eq!(view.controlled("x", pods).count(), 1);
        assert_eq!(view.loose(pods, "d").count(), 0);
        view.take(&followed(&id, 2, Some(json!({"metadata": {"name": "p", "uid": "1"}})), None));
        assert_eq!((view.dependents("x").count(), view.loose(pods, "d").count()), (0, 1));
        assert_eq!(view.list(pods, Some("d")).count(), 1);
        assert_eq!(view.list(pods, Some("c")).count(), 0);
        assert_eq!(view.list(pods, None).count(), 1);
        view.take(&followed(&id, 3, None, None));
        assert!(view.is_empty() && view.revision() == 3);
    }

    #[test]
    fn an_owner_of_which_nothing_was_kept_is_reported_when_it_goes() {
        let mut view = View::default();
        let id = Id::new("", "Secret", "d", "s").unwrap();
        let secret = json!({"metadata": {"name": "s", "uid": "u"}});
        assert!(view.take(&followed(&id, 1, Some(secret.clone()), None)).is_none());
        let change = view.take(&followed(&id, 2, None, Some(secret))).unwrap();
        assert_eq!(change.before.map(|s| s.uid.to_string()).as_deref(), Some("u"));
    }
}
