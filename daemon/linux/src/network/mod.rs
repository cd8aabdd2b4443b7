//! The pod network: bridge, gateway address, forwarding, masquerade.

pub(crate) mod mark;
pub(crate) mod netlink;
pub(crate) mod sysctl;

use crate::host::{LinuxHost, unwritten};
use async_trait::async_trait;
use reddwarf_host::{Change, HostResult, Network, NetworkObserved, spec::NetworkSpec};

#[async_trait]
impl Network for LinuxHost {
    async fn network_ensure(&self, _spec: &NetworkSpec) -> HostResult<Change> {
        Err(unwritten("network"))
    }

    async fn network_remove(&self) -> HostResult<Change> {
        Err(unwritten("network"))
    }
}

impl LinuxHost {
    /// The pod network as found; `None` when there is none of ours.
    pub(crate) async fn network_observe(&self) -> HostResult<Option<NetworkObserved>> {
        Err(unwritten("network"))
    }
}
