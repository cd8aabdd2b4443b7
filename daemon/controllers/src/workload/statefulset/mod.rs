//! StatefulSets: pods with numbers, each with its own claims.
//!
//! `decide.rs` chooses which pods come and go, `pod.rs` makes pods and claims, `claims.rs` ties claims to their owners. Here
//! values are gathered and decisions carried out.

mod claims;
mod decide;
mod pod;

pub use decide::{Decision, Input, decide};

use super::claim::{Claimant, claim};
use super::fields::number;
use super::managers;
use super::revision::{self, REVISION_LABEL, Revision, Step};
use crate::runtime::{Action, Again, Change, Context, Controller, Events, Failure, Id, View};
use async_trait::async_trait;
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Kind, Object, kinds};
use reddwarf_registry::RegistryError;
use serde_json::json;
use std::time::Duration;

const NAME: &str = "statefulset-controller";
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The controller.
#[derive(Debug)]
pub struct StatefulSets {
    kind: &'static Kind,
    pods: &'static Kind,
    claims: &'static Kind,
}

impl StatefulSets {
    /// `None` only if the table of kinds lacks one that it needs.
    pub fn new() -> Option<Self> {
        let by = |version, kind| kinds().by_gvk(version, kind);
        let claims = by("v1", "PersistentVolumeClaim")?;
        Some(Self { kind: by("apps/v1", "StatefulSet")?, pods: by("v1", "Pod")?, claims })
    }

    /// The revisions, the present template's last; `None`: they are being brought up to date, look again.
    async fn revisions(
        &self,
        context: &Context,
        object: &Object,
        owner: &Claimant,
        selector: &LabelSelector,
    ) -> Result<Option<Vec<Revision>>, Failure> {
        let known = revision::known(context, NAME, owner, selector).await?;
        if owner.leaving {
            return Ok(Some(known));
        }
        let template = object.get("/spec/template").cloned().unwrap_or_default();
        let collisions = number(object, "/status/collisionCount", 0);
        match revision::step(owner, &template, &known, collisions, HASH_LABEL) {
            None | Some(Step::Ready) => return Ok(Some(known)),
            Some(Step::Renumber(action)) => context.act(NAME, vec![action]).await?,
            Some(Step::Make(made)) => match context.act(NAME, vec![Action::Create(made)]).await {
                Err(Failure::Registry(RegistryError::AlreadyExists(_))) => {
                    let status = super::fields::status_with(object, json!({ "collisionCount": collisions + 1 }));
                    let (id, uid) = (owner.id.clone(), owner.uid.clone());
                    context.act(NAME, vec![Action::Status { id, uid, status }]).await?;
                }
                other => other?,
            },
        }
        Ok(None)
    }

    /// Writes the status, if it differs.
    async fn tell(
        &self,
        context: &Context,
        owner: &Claimant,
        object: &Object,
        decision: &Decision,
    ) -> Result<(), Failure> {
        if object.status() == Some(&decision.status) {
            return Ok(());
        }
        let (id, uid, status) = (owner.id.clone(), owner.uid.clone(), decision.status.clone());
        context.act(NAME, vec![Action::Status { id, uid, status }]).await
    }

    async fn create(
        &self,
        context: &Context,
        object: &Object,
        input: &Input<'_>,
        plan: &Decision,
    ) -> Result<(), Failure> {
        let events = Events::about(object);
        for (ordinal, update) in &plan.create {
            let made = pod::make(object, input.owner, input.revision(*update), *ordinal);
            let made = made.map_err(|e| Failure::Wait(e.to_string()))?;
            for claim in made.claims {
                let name = claim.name().to_owned();
                if context.find(&Id::of(self.claims, &input.owner.id.namespace, &name))?.is_some() {
                    continue;
                }
                let said =
                    format!("create Claim {name} Pod {} in StatefulSet {} success", made.pod.name(), object.name());
                context
                    .act(NAME, vec![Action::Create(Box::new(claim)), events.normal("SuccessfulCreate", said)])
                    .await?;
            }
            let name = made.pod.name().to_owned();
            match context.act(NAME, vec![Action::Create(Box::new(made.pod))]).await {
                Ok(()) => {
                    let said = format!("create Pod {name} in StatefulSet {} successful", object.name());
                    context.act(NAME, vec![events.normal("SuccessfulCreate", said)]).await?;
                }
                Err(error) => {
                    let said = format!("create Pod {name} in StatefulSet {} failed error: {error}", object.name());
                    context.act(NAME, vec![events.warning("FailedCreate", said)]).await?;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.is("apps", "StatefulSet") {
            add(slim.id.clone());
        } else if slim.id.is_pod() || slim.id.is("apps", "ControllerRevision") {
            managers(self.kind, view, change, add);
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(object) = context.find(id)? else { return Ok(Again::NEVER) };
        let selector = object.get("/spec/selector").and_then(|v| LabelSelector::from_value(v).ok());
        let (Some(owner), Some(selector)) = (Claimant::of(&object), selector.filter(|s| !s.is_empty())) else {
            return Ok(Again::NEVER);
        };
        let Some(revisions) = self.revisions(context, &object, &owner, &selector).await? else {
            return Ok(Again::NEVER.after(Duration::ZERO));
        };
        let claimed = {
            let view = context.view();
            let own = view.controlled(&owner.uid, self.pods);
            // Only pods with its numbers are its own.
            let loose =
                view.loose(self.pods, &id.namespace).filter(|p| decide::ordinal(&id.name, &p.id.name).is_some());
            claim(&owner, &selector, own, loose)
        };
        context.act_together(NAME, claimed.actions).await?;
        let Some(update) = revisions.last() else { return Ok(Again::NEVER) };
        let current = object.get_str("/status/currentRevision").unwrap_or_default();
        let current = revisions.iter().find(|r| r.name() == current).unwrap_or(update);
        let now = context.now();
        let input = Input { object: &object, owner: &owner, current, update, pods: &claimed.own, now };
        let decision = decide(&input);
        self.tie_claims(context, &input).await?;
        let created = self.create(context, &object, &input, &decision).await;
        if created.is_err() {
            // What could not be made is tried again later; what is there is told now.
            self.tell(context, &owner, &object, &decision).await?;
        }
        created?;
        let events = Events::about(&object);
        for pod in &decision.delete {
            let said = format!("delete Pod {} in StatefulSet {} successful", pod.id.name, object.name());
            let delete = Action::Delete { id: pod.id.clone(), uid: pod.uid.clone() };
            context.act(NAME, vec![delete, events.normal("SuccessfulDelete", said)]).await?;
        }
        self.tell(context, &owner, &object, &decision).await?;
        let limit = number(&object, "/spec/revisionHistoryLimit", 10);
        let in_use = |r: &Revision| {
            r.name() == update.name()
                || r.name() == current.name()
                || claimed.own.iter().any(|p| p.label(REVISION_LABEL) == Some(r.name()))
        };
        if !owner.leaving {
            context.act(NAME, revision::surplus(&revisions, limit, in_use)).await?;
        }
        Ok(decision.again)
    }
}
