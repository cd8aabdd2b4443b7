//! What may be written into a status.

use super::{
    at::{At, Errors},
    batch, meta, network, pod, quota, rules, service, workload,
};
use crate::{kind::Kind, object::Object};

/// The rules that an update of the status breaks. Both objects are whole and defaulted.
pub fn validate_status(kind: &Kind, old: &Object, new: &Object) -> Errors {
    let mut errors = Vec::new();
    let at = At::root(new.map());
    if kind.is_core("Pod") {
        pod::status::check(old, new, &at, &mut errors);
        return errors;
    }
    meta::check_update(old, new, &at.child("metadata"), &mut errors);
    let status = at.child("status");
    match (kind.group, kind.kind) {
        ("", "Namespace") => check_phase(new, &status, &mut errors),
        ("", "Service") => service::check_status(&at, &mut errors),
        ("", "ResourceQuota") => {
            quota::check_amounts_of_quota(&status.child("hard"), &mut errors);
            quota::check_amounts_of_quota(&status.child("used"), &mut errors);
        }
        ("", "PersistentVolumeClaim") => {
            for (_, amount) in status.child("capacity").entries() {
                if let Some(found) = rules::quantity(&amount).filter(crate::Quantity::is_negative) {
                    amount.invalid_value(&mut errors, found.units(), "must be a valid resource quantity");
                }
            }
        }
        ("apps", _) | ("", "ReplicationController") => workload::check_status(kind, &status, &mut errors),
        ("batch", "Job") => batch::check_job_status(&status, &mut errors),
        ("networking.k8s.io", "Ingress") => network::check_ingress_status(&at, &mut errors),
        ("policy", "PodDisruptionBudget") => {
            for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
                status.not_negative(&mut errors, field);
            }
        }
        ("autoscaling", _) => {
            status.not_negative(&mut errors, "currentReplicas");
            if status.number("desiredReplicas").is_some_and(|number| number < 0) {
                // Misspelt in the reference.
                let shown = status.child("desiredReplicas").value.clone();
                status.child("desiredReplicasa").invalid_value(&mut errors, shown, rules::NEGATIVE);
            }
        }
        _ => {}
    }
    errors
}

fn check_phase(namespace: &Object, status: &At<'_, '_>, errors: &mut Errors) {
    let (wanted, when) = match namespace.deletion_timestamp() {
        None => ("Active", "`deletionTimestamp` is empty"),
        Some(_) => ("Terminating", "`deletionTimestamp` is not empty"),
    };
    let phase = status.text("phase");
    if phase != wanted {
        status.child("Phase").invalid_value(errors, phase, format!("may only be '{wanted}' if {when}"));
    }
}
