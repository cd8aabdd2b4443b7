//! Jobs: pods that run until enough of them have succeeded.
//!
//! `decide.rs` counts and chooses, `policy.rs` reads failure and success policies, `retry.rs` counts the tries of single indexes, `index.rs`
//! prints sets of indexes; here pods are
//! made and decisions carried out.

mod decide;
mod index;
mod policy;
mod retry;
#[cfg(test)]
mod tests;

pub use decide::{Decision, JobPod, decide};
pub use policy::Failed;
pub use retry::Tries;

use super::claim::{Claimant, claim};
use super::managers;
use super::pods::{create_slowly, deletions, from_template};
use crate::runtime::{Action, Again, Change, Context, Controller, Events, Failure, Id, Slim, View};
use async_trait::async_trait;
use decide::{INDEX, TRACKING};
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Kind, Object, kinds};
use reddwarf_registry::{Author, DeleteOptions, Preconditions, Propagation, RegistryError};
use serde_json::{Value, json};
use std::sync::Arc;

const NAME: &str = "job-controller";

/// The controller.
#[derive(Debug)]
pub struct Jobs {
    kind: &'static Kind,
    pods: &'static Kind,
}

impl Jobs {
    /// `None` only if the table of kinds lacks one that it needs.
    pub fn new() -> Option<Self> {
        Some(Self { kind: kinds().by_gvk("batch/v1", "Job")?, pods: kinds().by_gvk("v1", "Pod")? })
    }

    /// A pod whose Job is gone need not be counted.
    async fn let_go(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(pod) = context.view().get(id).filter(|p| p.has_finalizer(TRACKING)).cloned() else {
            return Ok(Again::NEVER);
        };
        let job = pod.controller().filter(|o| &*o.kind == "Job").cloned();
        let counted = match &job {
            Some(owner) => {
                let job = context.find(&Id::of(self.kind, &id.namespace, &owner.name))?;
                job.is_some_and(|j| j.uid() == Some(&owner.uid))
            }
            None => false,
        };
        if !counted {
            context.act(NAME, vec![release(&pod)]).await?;
        }
        Ok(Again::NEVER)
    }

    /// The pods with what their failures mean.
    fn read(&self, context: &Context, job: &Object, own: Vec<Arc<Slim>>) -> Result<Vec<JobPod>, Failure> {
        let policy = job.get("/spec/podFailurePolicy");
        let retries = job.get("/spec/backoffLimitPerIndex").is_some();
        own.into_iter()
            .map(|slim| {
                let ended_badly = slim.pod().is_some_and(|p| p.phase == reddwarf_objects::pod::Phase::Failed);
                let going = retries && slim.deleted.is_some();
                let ask = (ended_badly && (policy.is_some() || retries) || going) && slim.has_finalizer(TRACKING);
                let pod = if ask { context.find(&slim.id)? } else { None };
                let tries = pod.as_ref().map(Tries::before).unwrap_or_default();
                let failed = pod.filter(|_| ended_badly && policy.is_some()).map(|p| policy::judge(policy, &p));
                Ok(JobPod { slim, failed, tries })
            })
            .collect()
    }

    async fn expire(&self, context: &Context, owner: &Claimant) -> Result<Again, Failure> {
        let preconditions = Preconditions { uid: Some(owner.uid.to_string()), ..Preconditions::default() };
        let options =
            DeleteOptions { preconditions, propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
        match context.registry.delete(&Author::System("ttl-after-finished-controller"), &owner.id.key(), &options).await
        {
            Ok(_) | Err(RegistryError::NotFound(_) | RegistryError::Precondition { .. }) => Ok(Again::NEVER),
            Err(error) => Err(error.into()),
        }
    }
}

/// Takes the finalizer away.
fn release(pod: &Slim) -> Action {
    Action::finalizers(&pod.id, &pod.uid, pod.finalizers.iter().map(|f| &**f).filter(|f| *f != TRACKING))
}

/// A pod of a Job, with this index, which has failed so often.
fn make(job: &Object, owner: &Claimant, index: Option<i64>, tries: Option<&Tries>) -> Result<Object, Failure> {
    let template = job.get("/spec/template").cloned().unwrap_or_default();
    let mut pod = from_template(owner, &template).map_err(|e| Failure::Wait(e.to_string()))?;
    let mut finalizers: Vec<Value> = pod.finalizers().into_iter().map(|f| json!(f)).collect();
    finalizers.push(json!(TRACKING));
    pod.set("/metadata/finalizers", Value::Array(finalizers));
    let Some(index) = index else { return Ok(pod) };
    let text = index.to_string();
    pod.set("/metadata/generateName", format!("{}-{index}-", owner.id.name));
    pod.set_annotation(INDEX, &text);
    pod.set_label(INDEX, &text);
    if let Some(tries) = tries {
        tries.write(&mut pod);
    }
    if pod.get_str("/spec/hostname").is_none_or(str::is_empty) {
        pod.set("/spec/hostname", format!("{}-{index}", owner.id.name));
    }
    let env = json!({"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"fieldPath": format!("metadata.labels['{INDEX}']")}}});
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod.get(&format!("/spec/{list}")).and_then(Value::as_array) else { continue };
        let mut containers = containers.clone();
        for container in &mut containers {
            let mut all = container.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
            if all.iter().all(|e| e.get("name") != env.get("name")) {
                all.push(env.clone());
                container["env"] = Value::Array(all);
            }
        }
        pod.set(&format!("/spec/{list}"), Value::Array(containers));
    }
    Ok(pod)
}

#[async_trait]
impl Controller for Jobs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.is("batch", "Job") {
            add(slim.id.clone());
            if change.after.is_none() {
                let tracked = view.dependents(&slim.uid).filter(|p| p.has_finalizer(TRACKING));
                tracked.for_each(|p| add(p.id.clone()));
            }
        } else if slim.id.is_pod() {
            managers(self.kind, view, change, add);
            let tracked = change.after.as_ref().filter(|p| p.has_finalizer(TRACKING));
            let job = |p: &Slim| p.controller().map(|o| Id::of(self.kind, &p.id.namespace, &o.name));
            let lost = |p: &&Arc<Slim>| job(p).and_then(|id| view.get(&id)).is_none();
            tracked.filter(lost).into_iter().for_each(|p| add(p.id.clone()));
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        if id.is_pod() {
            return self.let_go(context, id).await;
        }
        let Some(job) = context.find(id)? else { return Ok(Again::NEVER) };
        // Somebody else's (Kubernetes: "Delegation of managing a Job object to external controller").
        if job.get_str("/spec/managedBy").is_some_and(|by| by != "kubernetes.io/job-controller") {
            return Ok(Again::NEVER);
        }
        let selector = job.get("/spec/selector").and_then(|v| LabelSelector::from_value(v).ok());
        let (Some(owner), Some(selector)) = (Claimant::of(&job), selector.filter(|s| !s.is_empty())) else {
            return Ok(Again::NEVER);
        };
        let claimed = {
            let view = context.view();
            claim(&owner, &selector, view.controlled(&owner.uid, self.pods), view.loose(self.pods, &id.namespace))
        };
        context.act_together(NAME, claimed.actions).await?;
        let pods = self.read(context, &job, claimed.own)?;
        let decision = decide(&job, &pods, context.now());
        if decision.expired {
            return self.expire(context, &owner).await;
        }
        let events = Events::about(&job);
        // First what was seen is noted, then it is let go: counted twice or not at all is ruled out.
        if job.status() != Some(&decision.status) {
            let status = decision.status;
            context.act(NAME, vec![Action::Status { id: id.clone(), uid: owner.uid.clone(), status }]).await?;
        }
        context.act_together(NAME, decision.release.iter().map(|p| release(p)).collect()).await?;
        context.act_together(NAME, deletions(&events, decision.delete.iter())).await?;
        let say = |(warning, reason, text): (bool, &'static str, String)| {
            if warning { events.warning(reason, text) } else { events.normal(reason, text) }
        };
        context.act(NAME, decision.said.into_iter().map(say).collect()).await?;
        let made: Result<Vec<_>, _> = decision
            .create
            .iter()
            .map(|index| make(&job, &owner, *index, index.as_ref().and_then(|i| decision.tries.get(i))))
            .collect();
        if let Some(why) = create_slowly(context, NAME, &events, made?).await? {
            return Err(Failure::Wait(why));
        }
        Ok(decision.again)
    }
}
