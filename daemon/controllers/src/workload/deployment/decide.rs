//! What a Deployment's controller does next. Pure.

use super::revision::{DESIRED, MAX, REVISION, missing_annotations, new_set, next_revision, take_new};
use super::scale::{Sizes, is_scaled, new_size, proportional, shrink_old};
use super::status::{NewSet, is_complete, status};
use super::{Deployment, Set};
use crate::runtime::{Action, Again, Events};
use crate::workload::fields::number;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Writes, in order.
    pub actions: Vec<Action>,
    /// The status to write after them.
    pub status: Value,
    /// When to look again.
    pub again: Again,
}

/// Decides over a Deployment and its ReplicaSets.
pub fn decide(deployment: &Deployment, sets: Vec<Set>, now: DateTime<Utc>) -> Decision {
    let mut old = sets;
    let new = take_new(deployment, &mut old);
    let mut plan = Plan { deployment, events: Events::about(&deployment.object), actions: Vec::new() };
    let mut what = (if new.is_some() { NewSet::Found } else { NewSet::None }, String::new());
    if !deployment.claimant.leaving
        && let Some(name) = plan.run(&old, new.as_ref())
    {
        what = (NewSet::Made, name);
    }
    if let Some(set) = &new {
        what.1 = set.id.name.to_string();
    }
    let (status, again) = status(deployment, &old, new.as_ref(), (what.0, &what.1), now);
    Decision { actions: plan.actions, status, again }
}

struct Plan<'a> {
    deployment: &'a Deployment,
    events: Events,
    actions: Vec<Action>,
}

impl Plan<'_> {
    /// Gives the name of the ReplicaSet that it makes, if it makes one.
    fn run(&mut self, old: &[Set], new: Option<&Set>) -> Option<String> {
        let revision = next_revision(old);
        self.number(new, revision);
        let all: Vec<&Set> = old.iter().chain(new).collect();
        if self.deployment.paused || is_scaled(self.deployment, &all) {
            let place = new.map(|_| old.len());
            let sets: Vec<Set> = all.into_iter().cloned().collect();
            let sizes = proportional(self.deployment, &sets, place);
            self.resize(&sets, &sizes);
            self.annotate(&sets, &sizes);
            if self.deployment.paused {
                self.clean_up(old, new);
            }
            return None;
        }
        let made =
            if self.deployment.recreate { self.recreate(old, new, revision) } else { self.roll(old, new, revision) };
        if made.is_none() && is_complete(self.deployment, old, new) {
            self.clean_up(old, new);
        }
        made
    }

    /// Brings the numbers of versions up to date.
    fn number(&mut self, new: Option<&Set>, revision: i64) {
        let Some(set) = new else { return };
        if let Some(patch) = missing_annotations(self.deployment, set, revision) {
            self.actions.push(Action::Patch { id: set.id.clone(), uid: set.uid.clone(), patch });
        }
        let min_ready = number(&self.deployment.object, "/spec/minReadySeconds", 0);
        if number(&set.object, "/spec/minReadySeconds", 0) != min_ready {
            let patch = json!({"spec": {"minReadySeconds": min_ready}});
            self.actions.push(Action::Patch { id: set.id.clone(), uid: set.uid.clone(), patch });
        }
        self.announce(set.annotated(REVISION).unwrap_or(0).max(revision));
    }

    /// The Deployment bears the number of its present version.
    fn announce(&mut self, revision: i64) {
        let text = revision.to_string();
        if self.deployment.object.annotation(REVISION) != Some(&text) {
            let claimant = &self.deployment.claimant;
            let patch = json!({"metadata": {"annotations": {REVISION: text}}});
            self.actions.push(Action::Patch { id: claimant.id.clone(), uid: claimant.uid.clone(), patch });
        }
    }

    fn make(&mut self, old: &[Set], revision: i64) -> Option<String> {
        let all = old.iter().map(|s| s.replicas.max(s.present)).sum();
        let replicas = new_size(self.deployment, 0, all);
        let set = new_set(self.deployment, revision, replicas)?;
        let name = set.name().to_owned();
        self.actions.push(Action::Create(Box::new(set)));
        if replicas > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {replicas}");
            self.actions.push(self.events.normal("ScalingReplicaSet", message));
        }
        self.announce(revision);
        Some(name)
    }

    fn roll(&mut self, old: &[Set], new: Option<&Set>, revision: i64) -> Option<String> {
        let Some(set) = new else { return self.make(old, revision) };
        // Pods that an old ReplicaSet has yet to delete take room as well.
        let all = old.iter().chain([set]).map(|s| s.replicas.max(s.present)).sum::<i64>();
        let size = new_size(self.deployment, set.replicas, all);
        if size == set.replicas {
            self.resize(old, &shrink_old(self.deployment, old, set));
        } else {
            // One step at a time: what it brings about is looked at before the next.
            self.resize(std::slice::from_ref(set), &vec![(0, size)]);
        }
        None
    }

    fn recreate(&mut self, old: &[Set], new: Option<&Set>, revision: i64) -> Option<String> {
        let sizes: Sizes = old.iter().enumerate().filter(|(_, s)| s.replicas > 0).map(|(i, _)| (i, 0)).collect();
        if !sizes.is_empty() {
            self.resize(old, &sizes);
            return None;
        }
        if old.iter().any(|s| s.actual > 0 || s.live_pods > 0) {
            return None;
        }
        let Some(set) = new else { return self.make(old, revision) };
        if set.replicas != self.deployment.replicas {
            self.resize(std::slice::from_ref(set), &vec![(0, self.deployment.replicas)]);
        }
        None
    }

    fn resize(&mut self, sets: &[Set], sizes: &Sizes) {
        for (place, to) in sizes {
            let Some(set) = sets.get(*place).filter(|s| s.object.deletion_timestamp().is_none()) else { continue };
            let patch = json!({"spec": {"replicas": to}, "metadata": {"annotations": self.sizes_noted()}});
            self.actions.push(Action::Patch { id: set.id.clone(), uid: set.uid.clone(), patch });
            let way = if *to > set.replicas { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {} from {} to {to}", set.id.name, set.replicas);
            self.actions.push(self.events.normal("ScalingReplicaSet", message));
        }
    }

    /// ReplicaSets that keep their size note all the same what they were last scaled for.
    fn annotate(&mut self, sets: &[Set], sizes: &Sizes) {
        let noted = self.sizes_noted();
        let stale = |set: &Set| {
            noted.as_object().into_iter().flatten().any(|(key, value)| set.object.annotation(key) != value.as_str())
        };
        for (_, set) in sets.iter().enumerate().filter(|(i, s)| s.replicas > 0 && sizes.iter().all(|(j, _)| j != i)) {
            if stale(set) {
                let patch = json!({"metadata": {"annotations": noted}});
                self.actions.push(Action::Patch { id: set.id.clone(), uid: set.uid.clone(), patch });
            }
        }
    }

    fn sizes_noted(&self) -> Value {
        let most = self.deployment.replicas + self.deployment.max_surge;
        json!({DESIRED: self.deployment.replicas.to_string(), MAX: most.to_string()})
    }

    /// Old ReplicaSets beyond `revisionHistoryLimit` go, the oldest versions first.
    fn clean_up(&mut self, old: &[Set], new: Option<&Set>) {
        if self.deployment.paused && new.is_none() {
            return;
        }
        let limit = number(&self.deployment.object, "/spec/revisionHistoryLimit", 10).max(0);
        let settled = |s: &&Set| {
            let seen = number(&s.object, "/status/observedGeneration", 0) >= s.object.generation().unwrap_or(0);
            s.replicas == 0 && s.actual == 0 && s.live_pods == 0 && seen && s.object.deletion_timestamp().is_none()
        };
        let mut idle: Vec<&Set> = old.iter().filter(settled).collect();
        idle.sort_by_key(|s| s.annotated(REVISION));
        let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        let deletes = idle.iter().take(surplus).map(|s| Action::Delete { id: s.id.clone(), uid: s.uid.clone() });
        self.actions.extend(deletes);
    }
}
