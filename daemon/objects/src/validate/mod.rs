//! The rules that a structure alone can't express, with the reference's messages, paths and order.
//!
//! A rule never panics on a value of the wrong type: that is [`crate::schema::check`]'s to report.
//!
//! | file | what |
//! |---|---|
//! | `at.rs` | a place in an object while it is checked, and what is wrong there |
//! | `rules.rs` `meta.rs` | rules that many kinds share; metadata |
//! | `pod/` | pods and pod templates |
//! | `workload.rs` `batch.rs` `cron.rs` `autoscaling.rs` | what makes pods |
//! | `service.rs` `network.rs` `storage.rs` `config.rs` `quota.rs` `rbac.rs` `definition.rs` `small.rs` | the other kinds |
//! | `event.rs` `certificate.rs` `zones.rs` | events, requests for certificates, names of time zones |
//! | `update.rs` `difference.rs` `status.rs` | what may change |
//! | `warnings/` | what is accepted, yet most likely not meant |

mod at;
mod autoscaling;
mod batch;
mod certificate;
mod config;
mod cron;
mod definition;
mod difference;
mod event;
mod meta;
mod network;
mod pod;
mod quota;
mod rbac;
mod rules;
mod service;
mod signed;
mod small;
mod status;
mod storage;
mod update;
mod warnings;
mod workload;
mod zones;

pub use status::validate_status;
pub use update::{validate_ephemeral_containers, validate_resize, validate_update};
pub use warnings::{warnings, warnings_of_update};
pub use zones::ZONES;

use crate::admission::pod_security::check_labels;
use crate::{field::FieldError, field::FieldReason, kind::Kind, object::Object};
use at::{At, Errors};

/// All rules that a new `object`, defaulted, breaks. Empty when it may be stored. Structure is checked by [`crate::schema::check`].
pub fn validate(kind: &Kind, object: &Object) -> Vec<FieldError> {
    let mut errors = validate_replacement(kind, object);
    let at = At::root(object.map());
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::check_create(&at, &mut errors),
        ("networking.k8s.io", "Ingress") => network::check_new_ingress(&at, &mut errors),
        _ => {}
    }
    if kind.is_core("Namespace") && errors.is_empty() {
        errors = check_labels(object);
    }
    errors
}

/// The rules that a changed object breaks, whatever it was before: for writers that may change every field.
pub fn validate_replacement(kind: &Kind, object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = At::root(object.map());
    meta::check(kind, object, &at.child("metadata"), &mut errors);
    check_kind(kind, &at, &mut errors);
    match (kind.group, kind.kind) {
        ("batch", "CronJob") => batch::check_zone(&at.child("spec"), None, &mut errors),
        ("events.k8s.io", "Event") => event::check_new(&at, &mut errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificate::check(&at.child("spec"), &mut errors),
        _ => {}
    }
    errors
}

/// The rules of the kind itself, for new and changed objects alike.
fn check_kind(kind: &Kind, at: &At<'_, '_>, errors: &mut Errors) {
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::check_metadata_and_spec(at, errors),
        ("", "ConfigMap") => config::check_config_map(at, errors),
        ("", "Secret") => config::check_secret(at, errors),
        ("", "Service") => service::check(at, errors),
        ("", "Endpoints") => network::check_endpoints(at, errors),
        ("", "LimitRange") => quota::check_limit_range(&at.child("spec"), errors),
        ("", "ResourceQuota") => quota::check_quota(&at.child("spec"), errors),
        ("", "PersistentVolume") => storage::check_volume(at, errors),
        ("", "PersistentVolumeClaim") => storage::check_claim(&at.child("spec"), errors),
        ("", "PodTemplate" | "ReplicationController") | ("apps", _) => workload::check(kind, at, errors),
        ("" | "events.k8s.io", "Event") => event::check(kind, at, errors),
        ("batch", "Job") => batch::check_job(at, errors),
        ("batch", "CronJob") => batch::check_cron_job(&at.child("spec"), errors),
        ("autoscaling", _) => autoscaling::check(&at.child("spec"), errors),
        ("networking.k8s.io" | "discovery.k8s.io", _) => network::check(kind, at, errors),
        ("rbac.authorization.k8s.io", _) => rbac::check(kind, at, errors),
        ("storage.k8s.io", "StorageClass") => storage::check_class(at, errors),
        ("storage.k8s.io", "VolumeAttributesClass") => storage::check_attributes_class(at, errors),
        ("storage.k8s.io", "CSIDriver") => storage::check_driver(at, errors),
        ("storage.k8s.io", "CSINode") => storage::check_node_drivers(at, errors),
        ("storage.k8s.io", "VolumeAttachment") => storage::check_attachment(at, errors),
        ("storage.k8s.io", "CSIStorageCapacity") => storage::check_storage_capacity(at, errors),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition::check(at, errors),
        _ => small::check(kind, at, errors),
    }
}

/// Everything that happens to an object before it is stored, in order: structure, defaults, rules. `object` is defaulted in place
/// unless its structure is wrong. Each problem is reported once.
pub fn admit(kind: &Kind, object: &mut Object) -> Vec<FieldError> {
    let mut errors = crate::schema::check(kind, object);
    if errors.iter().any(|error| error.reason == FieldReason::TypeInvalid) {
        return errors;
    }
    crate::default(kind, object);
    for error in validate(kind, object) {
        if !errors.iter().any(|known| known.path == error.path && known.reason == error.reason) {
            errors.push(error);
        }
    }
    errors
}

#[cfg(test)]
mod tests;
