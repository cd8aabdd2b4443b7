//! Where a container sees which volume.

use super::account::{self, TOKEN_PATH};
use super::env::Environment;
use super::{ContainerRef, Facts, Identity, config_error, expand, volumes};
use crate::desired::PodIntent;
use crate::plan::Notice;
use reddwarf_host::VolumeName;
use reddwarf_host::spec::{MountSpec, Propagation, RecursiveReadOnly};
use reddwarf_objects::pod::VolumeMount;

/// A container's mounts, the account's among them.
pub(super) fn mounts(
    intent: &PodIntent,
    which: &ContainerRef<'_>,
    identity: &Identity,
    facts: Facts<'_>,
    env: &Environment,
) -> Result<Vec<MountSpec>, Notice> {
    let mut mounts = Vec::new();
    for (i, mount) in which.container.volume_mounts.iter().enumerate() {
        mounts.push(one(intent, mount, facts, env, &format!("{}.volumeMounts[{i}]", which.field))?);
    }
    if account::wants_mount(which)
        && let Some(volume) = account::volume(intent, identity.account_volume, facts.config, facts.tokens)
    {
        mounts.push(MountSpec {
            volume,
            target: TOKEN_PATH.into(),
            sub_path: String::new(),
            read_only: true,
            recursive_read_only: Some(RecursiveReadOnly::Disabled),
            propagation: Some(Propagation::None),
        });
    }
    Ok(mounts)
}

fn one(
    intent: &PodIntent,
    mount: &VolumeMount,
    facts: Facts<'_>,
    env: &Environment,
    field: &str,
) -> Result<MountSpec, Notice> {
    let at = |name: &str| format!("{field}.{name}");
    let volume = VolumeName::new(&mount.name).map_err(|e| config_error(&at("name"), e.to_string()))?;
    if !intent.pod.spec.volumes.iter().any(|v| v.name == mount.name) {
        return Err(config_error(&at("name"), format!("the pod has no volume {:?}", mount.name)));
    }
    let sub_path = if mount.sub_path_expr.is_empty() {
        mount.sub_path.clone()
    } else {
        expand_all(&mount.sub_path_expr, env).map_err(|message| config_error(&at("subPathExpr"), message))?
    };
    let sub_path = plain_sub_path(&sub_path).map_err(|message| config_error(&at("subPath"), message))?;
    let recursive = match mount.recursive_read_only.as_deref() {
        Some("Enabled") => RecursiveReadOnly::Enabled,
        Some("IfPossible") => RecursiveReadOnly::IfPossible,
        _ => RecursiveReadOnly::Disabled,
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => Propagation::HostToContainer,
        Some("Bidirectional") => Propagation::Bidirectional,
        _ => Propagation::None,
    };
    Ok(MountSpec {
        volume,
        target: mount.mount_path.clone(),
        sub_path,
        read_only: mount.read_only || volumes::is_read_only(intent, facts, &mount.name),
        recursive_read_only: Some(recursive),
        propagation: Some(propagation),
    })
}

/// `$(NAME)` replaced; unlike in arguments, every name must be known.
fn expand_all(text: &str, env: &Environment) -> Result<String, String> {
    let missing = std::cell::Cell::new(false);
    let expanded = expand(text, |name| {
        let value = env.get(name);
        missing.set(missing.get() || value.is_none());
        value
    });
    if missing.get() { Err(format!("missing value for {text:?}")) } else { Ok(expanded) }
}

/// A path within a volume: `.` and doubled slashes mean nothing, `..` and a leading slash are refused.
fn plain_sub_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        return Err(format!("error SubPath `{text}` must not be an absolute path"));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let clean = parts.join("/");
    if clean.is_empty() || volumes::is_plain_relative(&clean) {
        Ok(clean)
    } else {
        Err(format!("unable to provision SubPath `{text}`: must not contain '..'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_within_volumes() {
        for (text, expected) in [("", ""), (".", ""), ("a/./b//c/", "a/b/c"), ("..a", "..a")] {
            assert_eq!(plain_sub_path(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["/a", "..", "a/../b", "a/.."] {
            assert!(plain_sub_path(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out(text in "[a./]{0,12}") {
            if let Ok(clean) = plain_sub_path(&text) {
                prop_assert!(!clean.split('/').any(|part| part == "..") && !clean.starts_with('/'));
            }
        }
    }
}
