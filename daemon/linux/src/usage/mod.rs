//! What this machine and what runs on it use (`reddwarf_host::Usage`).
//!
//! | file | reads |
//! |---|---|
//! | `cgroup.rs` | control groups' figures, v1 and v2 |
//! | `machine.rs` | /proc and the state directory's file system |
//! | `disk.rs` | files, one by one |

mod cgroup;
mod disk;
mod machine;

use crate::files::{io_error, names_in};
use crate::host::{LinuxHost, Shared};
use crate::roots::Roots;
use async_trait::async_trait;
use machine::Traffics;
use reddwarf_host::usage::{HostPressure, SandboxDisk, SandboxUsage, UsageReport};
use reddwarf_host::{ContainerName, HostResult, LinkName, SandboxId, Usage};
use std::collections::BTreeMap;
use std::time::Duration;

#[async_trait]
impl Usage for LinuxHost {
    async fn pressure(&self) -> HostResult<HostPressure> {
        self.blocking("read pressure", pressure).await
    }

    async fn usage(&self) -> HostResult<UsageReport> {
        self.blocking("read usage", usage).await
    }

    async fn disk_usage(
        &self,
        sandboxes: &[SandboxId],
        budget: Duration,
    ) -> HostResult<BTreeMap<SandboxId, SandboxDisk>> {
        let sandboxes = sandboxes.to_vec();
        self.blocking("read disk usage", move |shared| disk::usage(shared, &sandboxes, budget)).await
    }
}

fn pressure(shared: &Shared) -> HostResult<HostPressure> {
    let roots = shared.roots.as_ref().map(Roots::place);
    machine::pressure(&shared.options.state_dir, roots.as_deref())
}

fn usage(shared: &Shared) -> HostResult<UsageReport> {
    let dir = shared.paths.run.sandboxes();
    let names = names_in(&dir).map_err(|e| io_error("list sandboxes", &dir, e))?;
    let traffics = Traffics::read();
    let mut sandboxes = BTreeMap::new();
    for id in names.into_iter().filter_map(|name| SandboxId::new(name).ok()) {
        if let Some(found) = sandbox(shared, &traffics, &id) {
            sandboxes.insert(id, found);
        }
    }
    Ok(UsageReport {
        at: shared.clock.boot(),
        time: shared.clock.wall(),
        host: machine::consumption()?,
        host_traffic: traffics.uplink(),
        pressure: pressure(shared)?,
        sandboxes,
    })
}

fn sandbox(shared: &Shared, traffics: &Traffics, id: &SandboxId) -> Option<SandboxUsage> {
    let group = shared.cgroup(id);
    let total = cgroup::consumption(&shared.cgroups, &group)?;
    let mut containers: BTreeMap<ContainerName, (u32, _)> = BTreeMap::new();
    for name in shared.cgroups.children_of("memory", &group).unwrap_or_default() {
        let Some((name, attempt)) = instance(&name) else { continue };
        let Some(found) = cgroup::consumption(&shared.cgroups, &shared.container_cgroup(id, &name, attempt)) else {
            continue;
        };
        // An attempt that has ended may not be tidied away yet.
        if found.processes > 0 && containers.get(&name).is_none_or(|(newest, _)| *newest < attempt) {
            containers.insert(name, (attempt, found));
        }
    }
    Some(SandboxUsage { total, traffic: traffics.of_sandbox(&LinkName::for_sandbox(id)), containers })
}

/// Containers' control groups are named `CONTAINER.ATTEMPT`.
fn instance(name: &str) -> Option<(ContainerName, u32)> {
    let (name, attempt) = name.rsplit_once('.')?;
    Some((ContainerName::new(name).ok()?, attempt.parse().ok()?))
}
