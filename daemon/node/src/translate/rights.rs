//! Who runs a container's processes, and what they may do.

use super::config_error;
use crate::desired::PodIntent;
use crate::plan::Notice;
use reddwarf_host::ImageConfig;
use reddwarf_host::spec::{Seccomp, Security, UserSpec};
use reddwarf_objects::pod::Container;

/// The user: the container's, else the pod's, else the image's, else root.
pub(super) fn user(
    intent: &PodIntent,
    container: &Container,
    image: &ImageConfig,
    field: &str,
) -> Result<UserSpec, Notice> {
    let (pod, own) = (&intent.pod.spec.security_context, &container.security_context);
    let uid = id(own.run_as_user.or(pod.run_as_user), field, "runAsUser")?;
    let gid = id(own.run_as_group.or(pod.run_as_group), field, "runAsGroup")?;
    let mut groups = Vec::new();
    for group in pod.supplemental_groups.iter().chain(&pod.fs_group) {
        if let Some(group) = id(Some(*group), "spec", "supplementalGroups")? {
            groups.push(group);
        }
    }
    if own.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        check_non_root(intent, container, uid, &image.user, field)?;
    }
    Ok(match (uid, gid) {
        (Some(uid), Some(gid)) => UserSpec::Ids { uid, gid, groups },
        (Some(uid), None) => UserSpec::Named { user: uid.to_string(), groups },
        (None, Some(gid)) => {
            let name = image.user.split(':').next().filter(|n| !n.is_empty()).unwrap_or("0");
            UserSpec::Named { user: format!("{name}:{gid}"), groups }
        }
        (None, None) if image.user.is_empty() => UserSpec::Ids { uid: 0, gid: 0, groups },
        (None, None) => UserSpec::Named { user: image.user.clone(), groups },
    })
}

fn id(value: Option<i64>, field: &str, what: &str) -> Result<Option<u32>, Notice> {
    value
        .map(|v| {
            u32::try_from(v).map_err(|_| {
                config_error(&format!("{field}.securityContext.{what}"), format!("{v} is no user or group id"))
            })
        })
        .transpose()
}

/// In the reference's words, which people search for.
fn check_non_root(
    intent: &PodIntent,
    container: &Container,
    uid: Option<u32>,
    image_user: &str,
    field: &str,
) -> Result<(), Notice> {
    let name = image_user.split(':').next().unwrap_or_default();
    let what = match (uid, name.parse::<u32>()) {
        (Some(0), _) => "container's runAsUser breaks non-root policy".to_owned(),
        (Some(_), _) => return Ok(()),
        (None, Ok(0)) => "container has runAsNonRoot and image will run as root".to_owned(),
        (None, Ok(_)) => return Ok(()),
        (None, Err(_)) if name.is_empty() => "container has runAsNonRoot and image will run as root".to_owned(),
        (None, Err(_)) => format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        ),
    };
    let pod = format!("{}_{}({})", intent.key.name, intent.key.namespace, intent.uid);
    let message = format!("{what} (pod: {pod:?}, container: {})", container.name);
    Err(config_error(&format!("{field}.securityContext.runAsNonRoot"), message))
}

/// Capabilities and the like. Only pods declared by files of this host may be privileged.
pub(super) fn security(intent: &PodIntent, container: &Container, field: &str) -> Result<Security, Notice> {
    let own = &container.security_context;
    let privileged = own.privileged == Some(true);
    if privileged && intent.source.is_none() {
        return Err(config_error(
            &format!("{field}.securityContext.privileged"),
            "only pods declared by a file of this host may be privileged",
        ));
    }
    let plain = |list: &[String]| -> Vec<String> {
        list.iter().map(|c| c.to_ascii_uppercase()).map(|c| c.strip_prefix("CAP_").unwrap_or(&c).to_owned()).collect()
    };
    let cap_add = plain(&own.capabilities.add);
    // Kubernetes' default would let setuid programs gain privileges; here that must be asked for.
    let escalates = own.allow_privilege_escalation.unwrap_or_else(|| cap_add.iter().any(|c| c == "SYS_ADMIN"));
    Ok(Security {
        privileged,
        read_only_root: own.read_only_root_filesystem == Some(true),
        allow_privilege_escalation: privileged || escalates,
        cap_add,
        cap_drop: plain(&own.capabilities.drop),
        seccomp: Some(if privileged { Seccomp::Unconfined } else { seccomp(intent, container, field)? }),
        strict_groups: intent.pod.spec.security_context.supplemental_groups_policy.as_deref() == Some("Strict"),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

/// The container's, else the pod's, else the default one: Kubernetes' own default would be no filter.
fn seccomp(intent: &PodIntent, container: &Container, field: &str) -> Result<Seccomp, Notice> {
    let pod = &intent.pod.spec.security_context;
    let Some(profile) = container.security_context.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()) else {
        return Ok(Seccomp::RuntimeDefault);
    };
    match (profile.kind.as_str(), profile.localhost_profile.as_deref()) {
        ("Unconfined", _) => Ok(Seccomp::Unconfined),
        ("Localhost", Some(path)) if super::volumes::is_plain_relative(path) => Ok(Seccomp::Localhost(path.to_owned())),
        ("Localhost", path) => {
            let message = format!("{:?} must be a relative path without '..'", path.unwrap_or_default());
            Err(config_error(&format!("{field}.securityContext.seccompProfile.localhostProfile"), message))
        }
        _ => Ok(Seccomp::RuntimeDefault),
    }
}
