//! ResourceQuotas: `status.used`, counted anew whenever something in the namespace changes. What an object takes is
//! [`reddwarf_objects::admission::quota`]'s word.

use crate::runtime::{Action, Again, Change, Context, Controller, Failure, Id, View};
use async_trait::async_trait;
use reddwarf_objects::admission::quota::{Amounts, add, amounts, counts, usage};
use reddwarf_objects::{Kind, Object, Quantity, kinds};
use reddwarf_registry::ListQuery;
use serde_json::{Map, Value, json};

const NAME: &str = "resourcequota-controller";

/// What is used of what a quota names. Pure.
pub fn used(quota: &Object, contents: &[(&Kind, Object)]) -> Amounts {
    let hard = amounts(quota.get("/spec/hard"));
    let mut total: Amounts = hard.keys().map(|name| (name.clone(), Quantity::from_units(0))).collect();
    for (kind, object) in contents.iter().filter(|(kind, object)| counts(quota, kind, object)) {
        let mut of = usage(kind, object);
        of.retain(|name, _| hard.contains_key(name));
        add(&mut total, &of);
    }
    total
}

/// The kinds that may count for the names that a quota limits.
fn counted(quota: &Object) -> Vec<&'static Kind> {
    let hard = amounts(quota.get("/spec/hard"));
    let names = |kind: &Kind| {
        let count = format!("count/{}", kind.group_resource());
        let plain = kind.group.is_empty() && hard.contains_key(kind.plural);
        let compute = kind.is_core("Pod")
            && hard.keys().any(|n| {
                matches!(n.as_str(), "cpu" | "memory" | "ephemeral-storage")
                    || n.starts_with("limits.")
                    || n.starts_with("requests.")
            });
        let claims = kind.is_core("PersistentVolumeClaim") && hard.keys().any(|n| n.contains("storage"));
        let services = kind.is_core("Service") && hard.keys().any(|n| n.starts_with("services."));
        hard.contains_key(&count) || plain || compute || claims || services
    };
    let mut seen = std::collections::BTreeSet::new();
    kinds().iter().filter(|k| k.namespaced && !k.is_virtual && names(k) && seen.insert((k.group, k.plural))).collect()
}

/// The controller.
#[derive(Debug)]
pub struct Quotas {
    kind: &'static Kind,
}

impl Quotas {
    /// `None` only if the table of kinds lacks quotas.
    pub fn new() -> Option<Self> {
        Some(Self { kind: kinds().by_gvk("v1", "ResourceQuota")? })
    }
}

#[async_trait]
impl Controller for Quotas {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        if slim.id.is("", "ResourceQuota") {
            add(slim.id.clone());
        }
        if slim.id.kind.namespaced {
            view.list(self.kind, Some(&slim.id.namespace)).for_each(|q| add(q.id.clone()));
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        let Some(quota) = context.find(id)? else { return Ok(Again::NEVER) };
        let mut contents = Vec::new();
        for kind in counted(&quota) {
            let items = context.registry.list(&ListQuery::all(kind).in_namespace(&*id.namespace))?.items;
            contents.extend(items.into_iter().map(|object| (kind, object)));
        }
        let used = used(&quota, &contents);
        let printed: Map<String, Value> =
            used.into_iter().map(|(name, amount)| (name, json!(amount.to_string()))).collect();
        let status = json!({"hard": quota.get("/spec/hard").cloned().unwrap_or_else(|| json!({})), "used": printed});
        if quota.status() != Some(&status) {
            let uid = quota.uid().unwrap_or_default().into();
            context.act(NAME, vec![Action::Status { id: id.clone(), uid, status }]).await?;
        }
        Ok(Again::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_limited_is_counted() {
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
            "spec": {"hard": {"pods": "4", "requests.cpu": "2", "count/jobs.batch": "1"}}});
        let quota = Object::from_value(quota).unwrap();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}]}});
        let pod = Object::from_value(pod).unwrap();
        let kind = pod.known_kind().unwrap();
        let used = used(&quota, &[(kind, pod.clone()), (kind, pod)]);
        let printed: Vec<_> = used.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(printed, ["count/jobs.batch=0", "pods=2", "requests.cpu=1"]);
        let names: Vec<_> = counted(&quota).iter().map(|k| k.kind).collect();
        assert!(names.contains(&"Pod") && names.contains(&"Job") && !names.contains(&"Service"), "{names:?}");
    }
}
