//! Deployments: a ReplicaSet for each version of the template, and the way from one to the next.
//!
//! `decide.rs` chooses what to do, `scale.rs` computes sizes, `revision.rs` numbers versions, `status.rs` reports. All pure;
//! here their values are gathered and the decision is carried out.

mod decide;
mod revision;
mod scale;
mod status;
#[cfg(test)]
mod tests;

pub use decide::{Decision, decide};

use super::claim::{Claimant, claim};
use super::fields::{is_true, number, scaled};
use super::managers;
use super::pods::Tally;
use crate::runtime::{Action, Again, Change, Context, Controller, Failure, Id, View};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Kind, Object, kinds};
use reddwarf_registry::RegistryError;
use serde_json::{Value, json};
use std::sync::Arc;

const NAME: &str = "deployment-controller";

/// A Deployment as its controller reads it.
#[derive(Clone, Debug)]
pub struct Deployment {
    pub(super) object: Object,
    pub(super) claimant: Claimant,
    pub(super) replicas: i64,
    /// Pods above `replicas` during a rollout; 0 for Recreate.
    pub(super) max_surge: i64,
    /// Pods that may lack during a rollout; 0 for Recreate.
    pub(super) max_unavailable: i64,
    pub(super) recreate: bool,
    pub(super) paused: bool,
}

impl Deployment {
    /// Reads an object; `None` when it has no uid.
    pub fn of(object: Object) -> Option<Self> {
        let claimant = Claimant::of(&object)?;
        let replicas = number(&object, "/spec/replicas", 1).max(0);
        let recreate = object.get_str("/spec/strategy/type") == Some("Recreate");
        let share = |field: &str, up| {
            let value = object.get(&format!("/spec/strategy/rollingUpdate/{field}"));
            scaled(value, &json!("25%"), replicas, up).max(0)
        };
        let (max_surge, max_unavailable) = match (share("maxSurge", true), share("maxUnavailable", false)) {
            _ if recreate => (0, 0),
            // Neither more nor fewer would never move.
            (0, 0) => (0, 1),
            other => other,
        };
        let paused = is_true(&object, "/spec/paused");
        let max_unavailable = max_unavailable.min(replicas);
        Some(Self { object, claimant, replicas, max_surge, max_unavailable, recreate, paused })
    }

    pub(super) fn template(&self) -> &Value {
        self.object.get("/spec/template").unwrap_or(&Value::Null)
    }

    pub(super) fn name(&self) -> &str {
        self.object.name()
    }
}

/// A ReplicaSet as its Deployment sees it.
#[derive(Clone, Debug)]
pub struct Set {
    pub(super) object: Object,
    pub(super) id: Id,
    pub(super) uid: Arc<str>,
    pub(super) created: Option<DateTime<Utc>>,
    /// Asked for.
    pub(super) replicas: i64,
    /// There are.
    pub(super) actual: i64,
    pub(super) ready: i64,
    pub(super) available: i64,
    /// The same as its status has it.
    pub(super) reported_available: i64,
    /// Its pods that have not ended, those that are going included.
    pub(super) live_pods: usize,
    /// Pods that it has at this moment, of which its status may not know yet; those that are going excluded.
    pub(super) present: i64,
}

/// What there is of a ReplicaSet's pods at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// Not ended, those that are going included.
    pub live: usize,
    /// Neither ended nor going.
    pub active: usize,
    /// Of these, available.
    pub available: usize,
}

impl Set {
    /// Reads an object with these pods. Where its status is behind, the lower number of available ones counts: a rollout must not
    /// rest on pods that are gone.
    pub fn of(object: Object, pods: Pods) -> Option<Self> {
        let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let id = Id::of_object(&object)?;
        let uid = object.uid()?.into();
        let count = |field: &str| number(&object, &format!("/status/{field}"), 0);
        Some(Self {
            id,
            uid,
            created: object.creation_timestamp(),
            replicas: number(&object, "/spec/replicas", 1),
            actual: count("replicas"),
            ready: count("readyReplicas"),
            reported_available: count("availableReplicas"),
            // Pods beyond its size are as good as gone.
            available: count("availableReplicas").min(whole(pods.available)).min(number(&object, "/spec/replicas", 1)),
            live_pods: pods.live,
            present: whole(pods.active),
            object,
        })
    }

    pub(super) fn template(&self) -> &Value {
        self.object.get("/spec/template").unwrap_or(&Value::Null)
    }

    pub(super) fn annotated(&self, key: &str) -> Option<i64> {
        self.object.annotation(key)?.parse().ok()
    }
}

/// The controller.
#[derive(Debug)]
pub struct Deployments {
    kind: &'static Kind,
    sets: &'static Kind,
    pods: &'static Kind,
}

impl Deployments {
    /// `None` only if the table of kinds lacks one that it needs.
    pub fn new() -> Option<Self> {
        let by = |version, kind| kinds().by_gvk(version, kind);
        Some(Self { kind: by("apps/v1", "Deployment")?, sets: by("apps/v1", "ReplicaSet")?, pods: by("v1", "Pod")? })
    }

    /// Another object has the name of the ReplicaSet to be: the next one gets another hash.
    async fn collide(&self, context: &Context, deployment: &Deployment, existing: &str) -> Result<Again, Failure> {
        let id = Id::of(self.sets, &deployment.claimant.id.namespace, existing);
        let ours =
            context.find(&id)?.is_some_and(|o| o.controller().is_some_and(|c| c.uid == *deployment.claimant.uid));
        if ours {
            return Err(Failure::Wait(format!("{existing} is there already")));
        }
        let count = number(&deployment.object, "/status/collisionCount", 0) + 1;
        let status = super::fields::status_with(&deployment.object, json!({ "collisionCount": count }));
        let (id, uid) = (deployment.claimant.id.clone(), deployment.claimant.uid.clone());
        context.act(NAME, vec![Action::Status { id, uid, status }]).await?;
        Ok(Again::NEVER)
    }
}

#[async_trait]
impl Controller for Deployments {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.is("apps", "Deployment") {
            add(slim.id.clone());
        } else if slim.id.is("apps", "ReplicaSet") {
            managers(self.kind, view, change, add);
        } else if slim.id.is_pod() && !slim.is_active() | change.after.is_none() {
            // Recreate waits for the last old pod to be gone.
            let set = slim.controller().filter(|o| &*o.kind == "ReplicaSet");
            let set = set.and_then(|o| view.get(&Id::of(self.sets, &slim.id.namespace, &o.name)));
            if let Some(owner) = set.and_then(|s| s.controller().cloned()).filter(|o| &*o.kind == "Deployment") {
                add(Id::of(self.kind, &slim.id.namespace, &owner.name));
            }
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(deployment) = context.find(id)?.and_then(Deployment::of) else { return Ok(Again::NEVER) };
        let selector = deployment.object.get("/spec/selector").and_then(|v| LabelSelector::from_value(v).ok());
        let Some(selector) = selector.filter(|s| !s.is_empty()) else { return Ok(Again::NEVER) };
        let (claimed, live) = {
            let view = context.view();
            let own = view.controlled(&deployment.claimant.uid, self.sets);
            let claimed = claim(&deployment.claimant, &selector, own, view.loose(self.sets, &id.namespace));
            let min_ready = number(&deployment.object, "/spec/minReadySeconds", 0);
            let pods = |uid: &str| {
                let tally = Tally::of(view.controlled(uid, self.pods), min_ready, context.now());
                Pods { live: tally.active + tally.terminating, active: tally.active, available: tally.available }
            };
            let live: Vec<Pods> = claimed.own.iter().map(|s| pods(&s.uid)).collect();
            (claimed, live)
        };
        context.act_together(NAME, claimed.actions).await?;
        let mut sets = Vec::new();
        for (slim, live) in claimed.own.iter().zip(live) {
            sets.extend(context.find(&slim.id)?.and_then(|object| Set::of(object, live)));
        }
        let now = context.now();
        let decision = decide(&deployment, sets, now);
        for action in decision.actions {
            let creates = matches!(&action, Action::Create(_));
            match context.act(NAME, vec![action]).await {
                Err(Failure::Registry(RegistryError::AlreadyExists(key))) if creates => {
                    return self.collide(context, &deployment, &key.name).await;
                }
                other => other?,
            }
        }
        if deployment.object.status() != Some(&decision.status) {
            let (id, uid) = (id.clone(), deployment.claimant.uid.clone());
            context.act(NAME, vec![Action::Status { id, uid, status: decision.status }]).await?;
        }
        Ok(decision.again)
    }
}
