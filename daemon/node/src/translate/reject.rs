//! Pods that this node refuses for good: they fail before anything of them is made, as the kubelet has it.

use super::{Facts, sysctls};
use crate::desired::PodIntent;
use crate::plan::Notice;
use reddwarf_objects::pod::{AppArmorProfile, PodSpec};

/// Why the pod can't run here; reason and message are the status's.
pub(crate) fn rejection(intent: &PodIntent, facts: Facts<'_>) -> Option<Notice> {
    let spec = &intent.pod.spec;
    if let Some(message) = sysctls::forbidden(spec, &facts.settings.allowed_unsafe_sysctls) {
        return Some(Notice::new("SysctlForbidden", message).at("spec.securityContext.sysctls"));
    }
    if wants_app_armor(spec) {
        let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        return Some(Notice::new("AppArmor", message).at("spec.securityContext.appArmorProfile"));
    }
    None
}

/// Whether any container asks for a profile: this version applies none.
fn wants_app_armor(spec: &PodSpec) -> bool {
    let asks = |profile: &Option<AppArmorProfile>| profile.as_ref().is_some_and(|p| p.kind != "Unconfined");
    let pod = &spec.security_context.app_armor_profile;
    let containers = spec.init_containers.iter().chain(&spec.containers);
    let mut profiles = containers.map(|c| &c.security_context.app_armor_profile);
    asks(pod) || profiles.any(asks)
}
