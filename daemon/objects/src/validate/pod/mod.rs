//! Rules of pods and pod templates.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | a pod's spec as a whole, templates, annotations |
//! | `volume.rs` `source.rs` | its volumes; the sources that persistent volumes have too |
//! | `container.rs` `env.rs` `mount.rs` `probe.rs` `resources.rs` | its containers |
//! | `security.rs` | security contexts |
//! | `scheduling.rs` | where it may run: affinity, tolerations, spreading |
//! | `dns.rs` | names |
//! | `update.rs` `status.rs` | what may change |

mod container;
mod dns;
mod env;
mod mount;
mod probe;
pub(super) mod resources;
pub(super) mod scheduling;
mod security;
pub(super) mod source;
pub(super) mod status;
pub(super) mod update;
mod volume;

use super::{
    at::{At, Errors},
    meta, rules,
};
use crate::{ZONE_BRAND_ANNOTATION, brings_programs, names};
use container::Containers;

/// What the rules of a spec depend on outside it.
#[derive(Clone, Copy, Default)]
pub(super) struct Scope<'a> {
    /// The name of the pod; empty for templates.
    pub(super) pod_name: &'a str,
    /// Is it a pod, not a template?
    pub(super) is_pod: bool,
    /// Does the pod's brand do without an image?
    pub(super) image_optional: bool,
    /// Names of volumes that come from elsewhere: a stateful set's claims.
    pub(super) claims: &'a [&'a str],
}

const IMAGE_VOLUMES_ANNOTATION_PREFIXES: [&str; 2] =
    ["container.seccomp.security.alpha.kubernetes.io/", "container.apparmor.security.beta.kubernetes.io/"];

/// What only new pods must not have.
pub(super) fn check_create(pod: &At<'_, '_>, errors: &mut Errors) {
    let spec = pod.child("spec");
    if spec.filled("ephemeralContainers") {
        spec.child("ephemeralContainers").forbidden(errors, "cannot be set on create");
    }
    if !spec.text("nodeName").is_empty() && spec.filled("schedulingGates") {
        spec.child("nodeName").forbidden(errors, "cannot be set until all schedulingGates have been cleared");
    }
}

/// What holds for new pods and for changed ones.
pub(super) fn check_metadata_and_spec(pod: &At<'_, '_>, errors: &mut Errors) {
    let metadata = pod.child("metadata");
    let annotations = metadata.child("annotations");
    let brand = annotations.value.get(ZONE_BRAND_ANNOTATION);
    if let Some(brand) = brand {
        // Which brands there are is the host's to say; here the name has to be one.
        let brand = brand.as_str().unwrap_or_default();
        annotations.map_key(ZONE_BRAND_ANNOTATION).invalid_all(errors, brand, names::dns1123_label(brand));
    }
    let spec = pod.child("spec");
    check_annotations(&annotations, &spec, errors);
    let scope = Scope {
        pod_name: metadata.text("name"),
        is_pod: true,
        image_optional: brand.and_then(serde_json::Value::as_str).is_some_and(brings_programs),
        claims: &[],
    };
    check_spec(&spec, scope, errors);
    if spec.text("serviceAccountName").is_empty() {
        for volume in spec.child("volumes").items() {
            for source in volume.child("projected").child("sources").items() {
                if let Some(token) = source.given("serviceAccountToken") {
                    token.forbidden(errors, "must not be specified when serviceAccountName is not set");
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        container::check_only_for_pods(&spec.child(list), errors);
    }
}

/// A pod template. `claims` are the names of volumes that come from elsewhere.
pub(super) fn check_template(template: &At<'_, '_>, claims: &[&str], errors: &mut Errors) {
    // The reference leaves `metadata` out of these paths.
    let metadata = template.child("metadata");
    let (labels, annotations) = (At::top("labels", metadata.value), At::top("annotations", metadata.value));
    let mut found = Vec::new();
    rules::labels(&labels, "labels", &mut found);
    meta::check_annotations(&annotations, &mut found);
    let prefix = template.path();
    errors.extend(found.into_iter().map(|mut error| {
        let own = error.path.segments().iter().skip(1).cloned();
        let segments = prefix.segments().iter().cloned().chain(own).collect();
        error.path = crate::field::FieldPath::from_segments(segments);
        error
    }));
    let spec = template.child("spec");
    let brand = metadata.child("annotations").value.get(ZONE_BRAND_ANNOTATION).and_then(serde_json::Value::as_str);
    check_annotations(&metadata.child("annotations"), &spec, errors);
    check_spec(
        &spec,
        Scope { pod_name: "", is_pod: false, image_optional: brand.is_some_and(brings_programs), claims },
        errors,
    );
    if spec.filled("ephemeralContainers") {
        spec.child("ephemeralContainers").forbidden(errors, "ephemeral containers not allowed in pod template");
    }
}

fn check_annotations(annotations: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    for (key, value) in annotations.entries() {
        match key {
            "kubernetes.io/config.mirror" if spec.text("nodeName").is_empty() => {
                value.invalid(errors, "must set spec.nodeName if mirror pod annotation is set");
            }
            "controller.kubernetes.io/pod-deletion-cost" if !is_deletion_cost(value.str()) => {
                value.invalid(errors, "must be a 32bit integer");
            }
            "seccomp.security.alpha.kubernetes.io/pod" => security::check_seccomp_annotation(&value, errors),
            _ if key.starts_with(IMAGE_VOLUMES_ANNOTATION_PREFIXES[0]) => {
                security::check_seccomp_annotation(&value, errors);
            }
            _ => {
                if let Some(name) = key.strip_prefix(IMAGE_VOLUMES_ANNOTATION_PREFIXES[1]) {
                    security::check_app_armor_annotation(&value, name, spec, errors);
                }
            }
        }
    }
}

fn is_deletion_cost(text: &str) -> bool {
    let plain = !text.starts_with('+') && (text == "0" || !text.trim_start_matches('-').starts_with('0'));
    plain && text.parse::<i32>().is_ok()
}

fn check_spec(spec: &At<'_, '_>, scope: Scope<'_>, errors: &mut Errors) {
    let volumes = volume::check_all(spec, scope, errors);
    let resource_claims = check_resource_claims(&spec.child("resourceClaims"), errors);
    let containers = Containers::new(spec, &volumes, &resource_claims, scope);
    containers.check(errors);
    if let Some(found) = spec.given("resources") {
        resources::check_pod_level(&found, spec, errors);
    }
    container::check_host_network_ports(spec, scope.is_pod, errors);
    spec.require_one_of(errors, "restartPolicy", &["Always", "OnFailure", "Never"]);
    spec.require_one_of(errors, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    rules::labels(spec, "nodeSelector", errors);
    security::check_pod(spec, errors);
    if let Some(affinity) = spec.given("affinity") {
        scheduling::check_affinity(&affinity, errors);
    }
    dns::check_config(spec, errors);
    for gate in spec.child("readinessGates").items() {
        gate.child("conditionType").check_text(errors, names::qualified_name);
    }
    scheduling::check_gates(&spec.child("schedulingGates"), errors);
    scheduling::check_spread(&spec.child("topologySpreadConstraints"), errors);
    check_host_users(spec, errors);
    check_names(spec, errors);
}

fn check_names(spec: &At<'_, '_>, errors: &mut Errors) {
    spec.optional_name(errors, "serviceAccountName", names::dns1123_subdomain);
    spec.optional_name(errors, "nodeName", names::dns1123_subdomain);
    spec.in_range(errors, "activeDeadlineSeconds", 1..=2_147_483_647);
    spec.optional_name(errors, "hostname", names::dns1123_label);
    spec.optional_name(errors, "subdomain", names::dns1123_label);
    scheduling::check_tolerations(&spec.child("tolerations"), errors);
    dns::check_host_aliases(&spec.child("hostAliases"), errors);
    spec.optional_name(errors, "priorityClassName", names::dns1123_subdomain);
    if let Some(class) = spec.given("runtimeClassName") {
        class.check_text(errors, names::dns1123_subdomain);
    }
    if spec.has("preemptionPolicy") {
        spec.require_one_of(errors, "preemptionPolicy", &["PreemptLowerPriority", "Never"]);
    }
    if let Some(overhead) = spec.given("overhead") {
        resources::check_overhead(&overhead, errors);
    }
    if let Some(os) = spec.given("os") {
        security::check_os(&os, spec, errors);
    }
    if let Some(name) = spec.given("hostnameOverride") {
        name.check_text(errors, names::dns1123_subdomain);
        if name.str().len() > 64 {
            name.too_long(errors, 64);
        }
        if spec.flag("setHostnameAsFQDN") {
            let message = "cannot be set to true when `hostnameOverride` is set";
            spec.child("setHostnameAsFQDN").forbidden(errors, message);
        }
        if spec.flag("hostNetwork") {
            name.forbidden(errors, "may not be specified when `hostNetwork` is true");
        }
    }
}

fn check_host_users(spec: &At<'_, '_>, errors: &mut Errors) {
    if spec.value.get("hostUsers") != Some(&serde_json::Value::Bool(false)) {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.flag(field) {
            spec.child(shown).forbidden(errors, "when `pod.Spec.HostUsers` is false");
        }
    }
}

fn check_resource_claims<'v>(claims: &At<'v, '_>, errors: &mut Errors) -> Vec<&'v str> {
    let mut seen: Vec<&str> = Vec::new();
    for claim in claims.items() {
        let name = claim.text("name");
        if name.is_empty() {
            claim.child("name").required(errors, "");
        } else if seen.contains(&name) {
            claim.child("name").duplicate(errors, name);
        } else {
            claim.child("name").check_text(errors, names::dns1123_label);
            seen.push(name);
        }
        match (claim.has("resourceClaimName"), claim.has("resourceClaimTemplateName")) {
            (true, true) => claim
                .invalid(errors, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
            (false, false) => {
                claim.invalid(errors, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            _ => {}
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(name) = claim.given(field) {
                name.check_text(errors, names::dns1123_subdomain);
            }
        }
    }
    seen
}
