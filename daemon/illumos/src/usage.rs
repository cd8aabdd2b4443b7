//! What this machine and what runs on it use: one run of kstat(8), and one of zfs(8) for disks.

use crate::host::{IllumosHost, Shared};
use crate::kstat;
use crate::record;
use crate::{datasets, sandbox};
use async_trait::async_trait;
use nix::unistd::{SysconfVar, sysconf};
use reddwarf_command::{CommandError, Invocation};
use reddwarf_host::usage::{Consumption, DiskUsage, HostPressure, SandboxDisk, SandboxUsage, Traffic, UsageReport};
use reddwarf_host::{HostResult, LinkName, SandboxId, Usage};
use reddwarf_supervise::file_system;
use reddwarf_supervise::files::{io_error, names_in};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

const OP: &str = "read usage";

#[async_trait]
impl Usage for IllumosHost {
    async fn pressure(&self) -> HostResult<HostPressure> {
        let all = ask(&self.shared, &kstat::machine()).await?;
        pressure(&self.shared, kstat::of_machine(&all))
    }

    async fn usage(&self) -> HostResult<UsageReport> {
        let shared = &self.shared;
        let all = ask(shared, &kstat::usage()).await?;
        let (zones, links, machine) = (kstat::zones(&all), kstat::links(&all), kstat::of_machine(&all));
        let marks = shared.paths.marks();
        let mut sandboxes = BTreeMap::new();
        for name in names_in(&marks).map_err(|e| io_error(OP, &marks, e))? {
            let (Some(zone), Ok(id)) = (zones.get(&name), SandboxId::new(&name)) else { continue };
            let total = Consumption {
                cpu_nanos: zone.cpu_nanos,
                memory_bytes: zone.memory_bytes,
                working_set_bytes: zone.memory_bytes,
                rss_bytes: zone.memory_bytes,
                processes: zone.processes,
            };
            let link = links.get(LinkName::for_sandbox(&id).as_str());
            // As its user sees them: what the link receives the pod receives.
            let traffic = link.map(|(received_bytes, sent_bytes)| Traffic {
                received_bytes: *received_bytes,
                sent_bytes: *sent_bytes,
            });
            sandboxes.insert(id.clone(), SandboxUsage { total, traffic, containers: containers(shared, &id, total) });
        }
        let page = page_bytes();
        let used = machine.pages.saturating_mul(page).saturating_sub(machine.available_bytes(page));
        Ok(UsageReport {
            at: shared.clock.boot(),
            time: shared.clock.wall(),
            host: Consumption {
                cpu_nanos: machine.cpu_nanos,
                memory_bytes: used,
                working_set_bytes: used,
                rss_bytes: used,
                processes: machine.processes,
            },
            host_traffic: None,
            pressure: pressure(shared, machine)?,
            sandboxes,
        })
    }

    async fn disk_usage(
        &self,
        sandboxes: &[SandboxId],
        budget: Duration,
    ) -> HostResult<BTreeMap<SandboxId, SandboxDisk>> {
        let _ = budget;
        let shared = &self.shared;
        let found = datasets::found(shared, "read disk usage").await?;
        let mut disks = BTreeMap::new();
        for id in sandboxes {
            if sandbox::own_mark(shared, id)?.is_none() {
                continue;
            }
            disks.insert(id.clone(), disk(shared, id, &found)?);
        }
        Ok(disks)
    }
}

/// Where nothing fits kstat prints nothing and fails.
async fn ask(shared: &Shared, run: &Invocation) -> HostResult<kstat::Kstats> {
    match shared.tools().run(run).await {
        Ok(said) => Ok(kstat::parse(&String::from_utf8_lossy(&said.stdout))),
        Err(CommandError::Failed { stderr, .. }) if stderr.is_empty() => Ok(kstat::Kstats::new()),
        Err(error) => Err(error.into_host(OP, "kernel statistics")),
    }
}

pub(crate) fn page_bytes() -> u64 {
    sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|n| u64::try_from(n).ok()).unwrap_or(4096)
}

fn pressure(shared: &Shared, machine: kstat::Machine) -> HostResult<HostPressure> {
    let page = page_bytes();
    Ok(HostPressure {
        memory_bytes: machine.pages.saturating_mul(page),
        memory_available_bytes: machine.available_bytes(page),
        storage: file_system::figures(&shared.options.state_dir)?,
        // A zone's own bound comes long before the system's, which is not among the statistics.
        processes_max: 30_000,
        processes: machine.processes,
    })
}

/// The system counts zones, not containers: a pod's only container is all of it, several share it unknown to us.
fn containers(
    shared: &Shared,
    id: &SandboxId,
    total: Consumption,
) -> BTreeMap<reddwarf_host::ContainerName, (u32, Consumption)> {
    let running: Vec<_> = shared
        .paths
        .run
        .instances(id)
        .unwrap_or_default()
        .into_iter()
        .filter(|(_, _, dir)| matches!((dir.state(), dir.exit()), (Ok(Some(_)), Ok(None))))
        .collect();
    let shares = u64::try_from(running.len()).unwrap_or(1).max(1);
    let share = Consumption {
        cpu_nanos: total.cpu_nanos / shares,
        memory_bytes: total.memory_bytes / shares,
        working_set_bytes: total.working_set_bytes / shares,
        rss_bytes: total.rss_bytes / shares,
        processes: total.processes / shares,
    };
    if shares > 1 {
        return BTreeMap::new();
    }
    running.into_iter().map(|(name, attempt, _)| (name, (attempt, share))).collect()
}

/// What ZFS says of a pod's datasets: roots by slot, all else as volumes.
fn disk(
    shared: &Shared,
    id: &SandboxId,
    found: &BTreeMap<String, BTreeMap<String, reddwarf_storage::zfs::text::Property>>,
) -> HostResult<SandboxDisk> {
    let used = |name: &str| -> u64 {
        found.get(name).and_then(|of| of.get("used")).and_then(|p| p.value.parse().ok()).unwrap_or_default()
    };
    let mut zone_root = used(datasets::zonepath(shared, id.as_str())?.as_str());
    let mut disk = SandboxDisk { complete: true, ..SandboxDisk::default() };
    for (name, _, dir) in shared.paths.run.instances(id)? {
        let entry = disk.containers.entry(name).or_default();
        let bytes = match record::launch(&dir)?.and_then(|launch| launch.slot) {
            Some(slot) => used(datasets::slot(shared, id, slot)?.as_str()),
            // The zone's own root: what it has beyond its template, counted for the first that writes there.
            None => std::mem::take(&mut zone_root),
        };
        entry.writable = entry.writable.plus(DiskUsage { bytes, inodes: 0 });
        for file in dir.spec()?.iter().flat_map(|spec| spec.log.files()) {
            let bytes = std::fs::metadata(&file).map(|m| m.len()).unwrap_or_default();
            entry.logs = entry.logs.plus(DiskUsage { bytes, inodes: u64::from(bytes > 0) });
        }
    }
    let Some(mark) = sandbox::own_mark(shared, id)? else { return Ok(disk) };
    for (name, volume) in &mark.spec.volumes {
        if let reddwarf_host::spec::VolumeSpec::EmptyDir { memory: false, .. } = volume {
            disk.volumes.insert(name.clone(), tree(&shared.paths.empty_dir(id, name), 0, &mut BTreeSet::new()));
        }
    }
    Ok(disk)
}

/// Bytes and files below a directory, without following links. What can't be read counts nothing.
fn tree(dir: &Path, depth: u32, seen: &mut BTreeSet<(u64, u64)>) -> DiskUsage {
    use std::os::unix::fs::MetadataExt;
    let mut sum = DiskUsage::default();
    if depth > 64 {
        return sum;
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(found) = entry.path().symlink_metadata() else { continue };
        // Further names of a file that was counted add nothing.
        if found.nlink() > 1 && !found.is_dir() && !seen.insert((found.dev(), found.ino())) {
            continue;
        }
        sum = sum.plus(DiskUsage { bytes: found.blocks() * 512, inodes: 1 });
        if found.is_dir() {
            sum = sum.plus(tree(&entry.path(), depth + 1, seen));
        }
    }
    sum
}
