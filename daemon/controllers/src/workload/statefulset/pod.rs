//! A StatefulSet's pods and claims.

use crate::workload::claim::Claimant;
use crate::workload::pods::from_template;
use crate::workload::revision::{REVISION_LABEL, Revision};
use reddwarf_objects::{Object, ObjectError};
use serde_json::{Value, json};

/// A pod to be, and the claims it needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    pub(super) pod: Object,
    pub(super) claims: Vec<Object>,
}

/// The pod with this number, after a revision's template.
pub(super) fn make(set: &Object, owner: &Claimant, revision: &Revision, ordinal: i64) -> Result<Made, ObjectError> {
    let name = format!("{}-{ordinal}", owner.id.name);
    let mut pod = from_template(owner, &revision.template)?;
    pod.remove("/metadata/generateName");
    pod.set_name(&name);
    pod.set_label(REVISION_LABEL, revision.name());
    pod.set_label("statefulset.kubernetes.io/pod-name", &name);
    pod.set_label("apps.kubernetes.io/pod-index", &ordinal.to_string());
    pod.set("/spec/hostname", name.as_str());
    if let Some(service) = set.get_str("/spec/serviceName").filter(|s| !s.is_empty()) {
        pod.set("/spec/subdomain", service);
    }
    let mut claims = Vec::new();
    let mut volumes = Vec::new();
    for template in templates(set) {
        let volume = template.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let claim = claim_name(volume, &name);
        volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}));
        claims.push(claim_object(set, owner, template, &claim)?);
    }
    let own = |v: &Value| volumes.iter().any(|c: &Value| c.get("name") == v.get("name"));
    let others = pod.get("/spec/volumes").and_then(Value::as_array).cloned().unwrap_or_default();
    volumes.extend(others.into_iter().filter(|v| !own(v)).collect::<Vec<_>>());
    if !volumes.is_empty() {
        pod.set("/spec/volumes", Value::Array(volumes));
    }
    Ok(Made { pod, claims })
}

/// `spec.volumeClaimTemplates`.
pub(super) fn templates(set: &Object) -> impl Iterator<Item = &Value> {
    set.get("/spec/volumeClaimTemplates").and_then(Value::as_array).into_iter().flatten()
}

/// The claim of a pod for a template.
pub(super) fn claim_name(template: &str, pod: &str) -> String {
    format!("{template}-{pod}")
}

fn claim_object(set: &Object, owner: &Claimant, template: &Value, name: &str) -> Result<Object, ObjectError> {
    let mut claim = Object::from_value(json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": &*owner.id.namespace},
        "spec": template.get("spec").cloned().unwrap_or_else(|| json!({})),
    }))?;
    for field in ["labels", "annotations"] {
        if let Some(value) = template.pointer(&format!("/metadata/{field}")).filter(|v| v.is_object()) {
            claim.set(&format!("/metadata/{field}"), value.clone());
        }
    }
    let labels = set.get("/spec/selector/matchLabels").and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        claim.set_label(key, value.as_str().unwrap_or_default());
    }
    Ok(claim)
}
