//! Evicting a pod: a delete that asks the PodDisruptionBudgets first (`pods/eviction`,
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>).

use crate::counters::Counting;
use crate::delete::check_preconditions;
use crate::key::{kind_of, store_key};
use crate::ownership::check_delete;
use crate::stored::encode;
use crate::write::{ATTEMPTS, transaction};
use crate::{Author, DeleteOptions, Deleted, ListQuery, Registry, RegistryError};
use reddwarf_objects::object::timestamp;
use reddwarf_objects::pod::set_disruption_target;
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Object, ObjectKey, kinds};
use reddwarf_store::{CommitError, Revision};
use serde_json::Value;

/// What a budget says to an eviction. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It does not count this pod.
    Free,
    /// One fewer is allowed from now on.
    Counted,
    /// Not now.
    Refused { message: String, retry_seconds: Option<u32> },
}

impl Registry {
    /// Deletes a pod if its budget allows.
    ///
    /// # Errors
    /// [`RegistryError::Budget`], and as [`Registry::delete`].
    pub async fn evict(
        &self,
        author: &Author,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Deleted, RegistryError> {
        for _ in 0..ATTEMPTS {
            let pod = self.get(key)?;
            if is_over(&pod) {
                return self.disrupt(author, key, options).await;
            }
            let budgets = self.budgets(key, &pod)?;
            let budget = match budgets.as_slice() {
                [] => return self.disrupt(author, key, options).await,
                [budget] => budget,
                _ => {
                    return Err(RegistryError::Unsupported(
                        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
                            .to_owned(),
                    ));
                }
            };
            match verdict(budget, &pod) {
                Verdict::Refused { message, retry_seconds } => {
                    return Err(RegistryError::Budget { message, retry_seconds });
                }
                Verdict::Counted if !options.dry_run && !self.count(author, budget, &pod).await? => continue,
                Verdict::Counted | Verdict::Free => return self.disrupt(author, key, options).await,
            }
        }
        Err(RegistryError::Contended { key: key.clone(), attempts: ATTEMPTS })
    }

    /// Says on the pod why it goes, then deletes it. What the delete will refuse is not marked; a daemon that ends in between leaves a
    /// marked pod, which the next eviction deletes.
    async fn disrupt(
        &self,
        author: &Author,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Deleted, RegistryError> {
        let mut options = options.clone();
        if !options.dry_run {
            let (kind, now) = (kind_of(key)?, self.now());
            let wanted = &options.preconditions;
            let marked = self.modify_status(author, key, |pod| {
                if check_preconditions(kind, pod, wanted).is_ok() && check_delete(author, kind, pod).is_ok() {
                    set_disruption_target(pod, "EvictionByEvictionAPI", "Eviction API: evicting", now);
                }
            });
            let marked = marked.await?;
            // The version that was asked for is the one before the mark.
            if marked.changed && options.preconditions.resource_version.is_some() {
                options.preconditions.resource_version = marked.object.resource_version().map(|v| v.to_string());
            }
        }
        self.delete(author, key, &options).await
    }

    /// The budgets whose selector matches a pod.
    fn budgets(&self, key: &ObjectKey, pod: &Object) -> Result<Vec<Object>, RegistryError> {
        let Some(kind) = kinds().by_group_resource("policy", "poddisruptionbudgets") else { return Ok(Vec::new()) };
        let namespace = key.namespace.as_deref().unwrap_or("default");
        let mut budgets = self.list(&ListQuery::all(kind).in_namespace(namespace))?.items;
        budgets.retain(|budget| {
            let selector = budget.get("/spec/selector").filter(|selector| !selector.is_null());
            selector.and_then(|s| LabelSelector::from_value(s).ok()).is_some_and(|s| s.matches(pod))
        });
        Ok(budgets)
    }

    /// Takes one from what a budget allows. False when it changed in between.
    async fn count(&self, author: &Author, budget: &Object, pod: &Object) -> Result<bool, RegistryError> {
        let Some(kind) = budget.known_kind() else { return Ok(true) };
        let at = store_key(&budget.key(kind))?;
        let allowed = number(budget, "/status/disruptionsAllowed").saturating_sub(1);
        let mut new = budget.clone();
        new.set("/status/disruptionsAllowed", allowed);
        let name = pod.name().replace('~', "~0").replace('/', "~1");
        new.set(&format!("/status/disruptedPods/{name}"), timestamp(self.now()));
        let revision = Revision(budget.resource_version().unwrap_or(0));
        let write = transaction(author, &format!("evict {}", pod.name())).replace(at, revision, encode(&new));
        match self.commit(write).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict { .. }) => {
                Counting::add(&self.inner.counting.retries);
                Ok(false)
            }
            Err(e) => Err(RegistryError::Commit(e)),
        }
    }
}

/// A pod that has ended, has not begun or is going disrupts nobody.
fn is_over(pod: &Object) -> bool {
    let phase = pod.get_str("/status/phase").unwrap_or("Pending");
    matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.deletion_timestamp().is_some()
}

fn verdict(budget: &Object, pod: &Object) -> Verdict {
    let name = budget.name();
    let (healthy, needed) = (number(budget, "/status/currentHealthy"), number(budget, "/status/desiredHealthy"));
    if !pod.condition_holds("Ready") {
        let always = budget.get_str("/spec/unhealthyPodEvictionPolicy") == Some("AlwaysAllow");
        if always || (needed > 0 && healthy >= needed) {
            return Verdict::Free;
        }
    }
    if number(budget, "/status/observedGeneration") < budget.generation().unwrap_or(0) {
        let message = format!("The disruption budget {name} is still being processed by the server.");
        return Verdict::Refused { message, retry_seconds: Some(10) };
    }
    if number(budget, "/status/disruptionsAllowed") > 0 {
        return Verdict::Counted;
    }
    let message = format!("The disruption budget {name} needs {needed} healthy pods and has {healthy} currently");
    Verdict::Refused { message, retry_seconds: None }
}

fn number(object: &Object, pointer: &str) -> i64 {
    object.get(pointer).and_then(Value::as_i64).unwrap_or(0)
}
