//! CronJobs: a Job at each moment of a schedule.
//!
//! `schedule.rs` reads schedules and finds moments, `decide.rs` chooses which Jobs start and go.

mod decide;
mod schedule;

pub use schedule::Schedule;

use super::claim::Claimant;
use super::managers;
use crate::runtime::{Action, Again, Change, Context, Controller, Events, Failure, Id, View};
use async_trait::async_trait;
use decide::{Run, decide};
use reddwarf_objects::{Kind, kinds};
use reddwarf_registry::RegistryError;

const NAME: &str = "cronjob-controller";

/// The controller.
#[derive(Debug)]
pub struct CronJobs {
    kind: &'static Kind,
    jobs: &'static Kind,
}

impl CronJobs {
    /// `None` only if the table of kinds lacks one that it needs.
    pub fn new() -> Option<Self> {
        Some(Self { kind: kinds().by_gvk("batch/v1", "CronJob")?, jobs: kinds().by_gvk("batch/v1", "Job")? })
    }
}

#[async_trait]
impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.is("batch", "CronJob") {
            add(slim.id.clone());
        } else if slim.id.is("batch", "Job") {
            managers(self.kind, view, change, add);
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(cron) = context.find(id)? else { return Ok(Again::NEVER) };
        let Some(owner) = Claimant::of(&cron) else { return Ok(Again::NEVER) };
        let own: Vec<Id> = context.view().controlled(&owner.uid, self.jobs).map(|j| j.id.clone()).collect();
        let mut runs = Vec::new();
        for job in own {
            runs.extend(context.find(&job)?.as_ref().and_then(Run::of));
        }
        let decision = decide(&cron, &owner, &runs, context.now());
        let events = Events::about(&cron);
        for (id, uid) in decision.delete {
            let said = events.normal("SuccessfulDelete", format!("Deleted job {}", id.name));
            context.act(NAME, vec![Action::Delete { id, uid }, said]).await?;
        }
        for (warning, reason, text) in decision.said {
            let said = if warning { events.warning(reason, text) } else { events.normal(reason, text) };
            context.act(NAME, vec![said]).await?;
        }
        if let Some(job) = decision.create {
            let name = job.name().to_owned();
            match context.act(NAME, vec![Action::Create(job)]).await {
                Ok(()) => {
                    context.act(NAME, vec![events.normal("SuccessfulCreate", format!("Created job {name}"))]).await?
                }
                // Made by us already, just not noted.
                Err(Failure::Registry(RegistryError::AlreadyExists(_))) => {}
                Err(error) => {
                    let said = events.warning("FailedCreate", format!("Error creating job: {error}"));
                    context.act(NAME, vec![said]).await?;
                    return Err(error);
                }
            }
        }
        if cron.status() != Some(&decision.status) {
            let (uid, status) = (owner.uid, decision.status);
            context.act(NAME, vec![Action::Status { id: id.clone(), uid, status }]).await?;
        }
        Ok(decision.again)
    }
}
