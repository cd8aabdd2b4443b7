//! From a pod to what is asked of a host: sandbox and container specs, complete, or the reason why not.
//!
//! | file | decides |
//! |---|---|
//! | `sandbox.rs` | brand, host name, network, DNS, hosts, pod-wide limits |
//! | `limits.rs` | what resolvers take of name servers and search domains |
//! | `sysctls.rs`, `reject.rs` | kernel settings; pods that are refused on this node for good |
//! | `volumes.rs` | emptyDir, hostPath; which volumes there are |
//! | `files.rs` | volumes of files: configMap, secret, downwardAPI, projected |
//! | `account.rs` | tokens of the pod's account, and where they are mounted |
//! | `image.rs` | which image, or that it must be pulled |
//! | `container.rs` | argv, directory, log |
//! | `mounts.rs` | where a container sees which volume |
//! | `env.rs`, `services.rs` | variables, references, `$(NAME)`; variables of Services |
//! | `downward.rs` | what a pod may learn of itself |
//! | `rights.rs` | user, groups, capabilities, system calls |
//! | `resources.rs` | requests and limits, who is killed first |
//!
//! What depends on the host rather than on the pod (the host's resolv.conf and address, where an image name points)
//! stays as it is for as long as a sandbox or container runs: only a change of the pod disturbs a pod.

mod account;
mod container;
mod downward;
mod env;
mod files;
mod image;
mod limits;
mod mounts;
mod reject;
mod resources;
mod rights;
mod sandbox;
mod services;
mod sysctls;
mod volumes;

pub use account::AccountVolume;
pub(crate) use account::{ROOT_CA, TokenFile, token_files};
pub(crate) use container::log;
pub use container::{ContainerRef, container, containers};
pub(crate) use image::needs_pull;
pub(crate) use reject::rejection;
pub(crate) use resources::{cpu, memory, request};
pub(crate) use sandbox::dns_warnings;
pub use sandbox::sandbox;

use crate::desired::{ConfigBytes, ConfigData, HostFacts, PodIntent};
use crate::key::PodKey;
use crate::plan::{Notice, Tickets};
use crate::settings::NodeSettings;
use crate::tokens::Tokens;
use reddwarf_host::spec::PodIdentity;
use reddwarf_host::{ImageId, ImageInfo, ImageReference, Observation, SandboxId};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// As whom a pod runs on the host: its own uid, or that of an adopted sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The mark's pod.
    pub pod: PodIdentity,
    /// The sandbox.
    pub id: SandboxId,
    /// Its addresses, the main one first; none on the host's network.
    pub addresses: Vec<IpAddr>,
    /// What decides over the volume with a token of its account, which a file's pod gets.
    pub account_volume: AccountVolume,
}

/// What specs are made from besides the pod.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// All pods of this node.
    pub pods: &'a BTreeMap<PodKey, Arc<PodIntent>>,
    /// ConfigMaps, Secrets, Services.
    pub config: &'a ConfigData,
    /// Tokens of accounts.
    pub tokens: &'a Tokens,
    /// The host's images.
    pub images: &'a Images<'a>,
    /// The node's settings.
    pub settings: &'a NodeSettings,
    /// The host.
    pub host: &'a HostFacts,
    /// How pulls of images stand.
    pub pulls: &'a Tickets,
}

/// The host's images, by content and by name.
#[derive(Clone, Debug)]
pub struct Images<'a> {
    known: Result<&'a BTreeMap<ImageId, ImageInfo>, &'a str>,
    by_name: BTreeMap<&'a str, &'a ImageInfo>,
}

impl<'a> Images<'a> {
    /// Indexes an observation's images.
    pub fn new(observed: &'a Observation<BTreeMap<ImageId, ImageInfo>>) -> Self {
        match observed {
            Observation::Known(images) => {
                let by_name =
                    images.values().flat_map(|i| i.names.iter().map(move |name| (name.as_str(), i))).collect();
                Self { known: Ok(images), by_name }
            }
            Observation::Unknown(why) => Self { known: Err(why), by_name: BTreeMap::new() },
        }
    }

    /// The image of that content.
    pub fn by_id(&self, id: &ImageId) -> Option<&'a ImageInfo> {
        self.known.ok().and_then(|images| images.get(id))
    }

    /// The image of that name, as the user wrote it: exactly, in full (`docker.io/library/web:1` for `web:1`), or with
    /// `:latest` where there is no tag.
    ///
    /// # Errors
    /// Why the host's images are not known.
    pub fn by_name(&self, name: &str) -> Result<Option<&'a ImageInfo>, &'a str> {
        self.known?;
        if let Some(found) = self.by_name.get(name) {
            return Ok(Some(found));
        }
        if let Ok(reference) = ImageReference::parse(name)
            && let Some(found) = self.by_name.get(reference.to_string().as_str())
        {
            return Ok(Some(found));
        }
        if let Some((_, digest)) = name.split_once('@') {
            return Ok(ImageId::new(digest).ok().and_then(|id| self.by_id(&id)));
        }
        let last = name.rsplit('/').next().unwrap_or(name);
        if let Some(short) = name.strip_suffix(":latest") {
            return Ok(self.by_name.get(short).copied());
        }
        if last.contains(':') {
            return Ok(None);
        }
        Ok(self.by_name.get(format!("{name}:latest").as_str()).copied())
    }
}

/// The bytes of a ConfigMap or Secret in the pod's namespace.
fn lookup<'a>(intent: &PodIntent, kind: RefKind, config: &'a ConfigData, name: &str) -> Option<&'a Arc<ConfigBytes>> {
    let map = match kind {
        RefKind::ConfigMap => &config.config_maps,
        RefKind::Secret => &config.secrets,
    };
    map.get(&(intent.key.namespace.clone(), name.to_owned()))
}

/// What a reference leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefKind {
    ConfigMap,
    Secret,
}

impl RefKind {
    fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }

    /// As the kubelet says it.
    fn not_found(self, name: &str) -> String {
        format!("{} {name:?} not found", self.word())
    }
}

/// The reason for a container that can't be made for want of something that it refers to.
const CONFIG_ERROR: &str = "CreateContainerConfigError";

/// `CreateContainerConfigError` at a field.
fn config_error(field: &str, message: impl Into<String>) -> Notice {
    Notice::new(CONFIG_ERROR, message).at(field)
}

/// `$(NAME)` replaced where `value_of` knows the name, `$$` by `$`, everything else left as it is (Kubernetes:
/// "Define Dependent Environment Variables").
pub(crate) fn expand<'v>(text: &str, value_of: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let name = after.strip_prefix('(').and_then(|s| s.split_once(')'));
        match name {
            Some((name, tail)) => {
                match value_of(name) {
                    Some(value) => out.push_str(value),
                    None => {
                        out.push_str("$(");
                        out.push_str(name);
                        out.push(')');
                    }
                }
                rest = tail;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_are_replaced_as_kubernetes_documents_it() {
        let value_of = |name: &str| match name {
            "A" => Some("1"),
            "EMPTY" => Some(""),
            _ => None,
        };
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$(EMPTY)", ""),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("100$", "100$"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(text, value_of), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn expansion_is_total(text in "[$()AB é]{0,40}") {
            let _ = expand(&text, |name| (name == "A").then_some("value"));
        }
    }
}
