//! Veth pairs of sandboxes (rtnetlink). Every link of ours bears its mark as an alias.

use crate::options::LinuxOptions;
use reddwarf_host::{Change, HostResult, SandboxId, spec::SandboxSpec};
use std::collections::BTreeSet;
use std::path::Path;

/// Connects the network namespace pinned at `netns` to the bridge: veth, address, default route (the loopback is up
/// already). Idempotent; finishes what a crash left half-made. Only called for `SandboxNetwork::Pod`.
pub(crate) async fn attach(options: &LinuxOptions, spec: &SandboxSpec, netns: &Path) -> HostResult<Change> {
    let _ = (options, spec, netns);
    Err(crate::host::unwritten("link"))
}

/// Removes the sandbox's veth. Absent is `Unchanged`.
pub(crate) async fn detach(options: &LinuxOptions, id: &SandboxId) -> HostResult<Change> {
    let _ = (options, id);
    Err(crate::host::unwritten("link"))
}

/// All sandboxes that have a veth with our mark and this instance's name, in one dump.
pub(crate) async fn list_marked(options: &LinuxOptions) -> HostResult<BTreeSet<SandboxId>> {
    let _ = options;
    Err(crate::host::unwritten("link"))
}
