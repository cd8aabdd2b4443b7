//! Our marks on links: the alias `reddwarf:INSTANCE` on the bridge, `reddwarf:INSTANCE:SANDBOX` on a sandbox's veth.
//! What does not bear them is never changed.

use super::netlink::{Link, Mac};
use reddwarf_host::{PodUid, SandboxId};
use sha2::{Digest, Sha256};

/// The bridge's alias.
pub(crate) fn bridge_alias(instance: &str) -> String {
    format!("reddwarf:{instance}")
}

/// A sandbox's link's alias. 255 bytes are allowed (IFALIASZ), 63 + 63 + 10 are the most that this can be.
pub(crate) fn link_alias(instance: &str, sandbox: &SandboxId) -> String {
    format!("reddwarf:{instance}:{sandbox}")
}

/// The sandbox that a link of this instance belongs to.
pub(crate) fn sandbox_of(instance: &str, link: &Link) -> Option<SandboxId> {
    let rest = link.alias.as_deref()?.strip_prefix("reddwarf:")?.strip_prefix(instance)?.strip_prefix(':')?;
    SandboxId::new(rest).ok()
}

/// The bridge's hardware address: fixed, so that neighbours' tables stay true, and the bridge's mark until its alias
/// is set (a bridge can't be made with its alias in one request).
pub(crate) fn bridge_mac(instance: &str) -> Mac {
    local_mac("bridge", instance)
}

/// The hardware address of a sandbox's link on the host's side: its mark until its alias is set.
pub(crate) fn link_mac(instance: &str, sandbox: &SandboxId) -> Mac {
    local_mac("link", &link_alias(instance, sandbox))
}

/// A pod's hardware address.
pub(crate) fn pod_mac(uid: &PodUid) -> Mac {
    local_mac("pod", uid.as_str())
}

/// `02` (locally administered, unicast: IEEE 802c) and 40 bits of SHA-256.
fn local_mac(kind: &str, of: &str) -> Mac {
    let digest = Sha256::new().chain_update(kind).chain_update([0]).chain_update(of).finalize();
    let mut mac = [2; 6];
    for (to, from) in mac.iter_mut().skip(1).zip(digest.iter()) {
        *to = *from;
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_instance_and_sandbox() {
        let id = SandboxId::new("default-web-abc").unwrap();
        let link = |alias: &str| Link { alias: Some(alias.to_owned()), ..Link::default() };
        let alias = link_alias("reddwarf", &id);
        assert_eq!(alias, "reddwarf:reddwarf:default-web-abc");
        assert_eq!(sandbox_of("reddwarf", &link(&alias)), Some(id));
        assert_eq!(sandbox_of("reddwarf-12345678", &link(&alias)), None);
        assert_eq!(sandbox_of("reddwarf", &link(&bridge_alias("reddwarf"))), None);
        assert_eq!(sandbox_of("reddwarf", &link("reddwarf:reddwarf-12345678:x")), None);
        assert_eq!(sandbox_of("reddwarf", &Link::default()), None);
    }

    #[test]
    fn hardware_addresses_are_stable_local_and_distinct() {
        let one = pod_mac(&PodUid::new("0b5c3f4e-95c1-4bb0-9b8e-6f7a3a2d1c00").unwrap());
        assert_eq!(one, pod_mac(&PodUid::new("0b5c3f4e-95c1-4bb0-9b8e-6f7a3a2d1c00").unwrap()));
        assert_eq!(one[0], 2);
        assert_ne!(one, pod_mac(&PodUid::new("0b5c3f4e-95c1-4bb0-9b8e-6f7a3a2d1c01").unwrap()));
        assert_ne!(bridge_mac("a"), bridge_mac("b"));
    }
}
