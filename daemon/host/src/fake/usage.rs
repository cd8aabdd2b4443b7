//! What the fake machine and its containers use: modest figures by default, others by script.

use super::state::Instance;
use super::{FakeHost, For, Op, lock};
use crate::error::HostResult;
use crate::names::{SandboxId, VolumeName};
use crate::observe::ContainerState;
use crate::spec::{SandboxNetwork, SandboxSpec};
use crate::time::BootTime;
use crate::traits::Usage;
use crate::usage::{
    Consumption, ContainerDisk, DiskUsage, FileSystem, HostPressure, SandboxDisk, SandboxUsage, Traffic, UsageReport,
};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a fake container uses for as long as it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Processor in thousandths.
    pub cpu_millis: u64,
    /// Memory: all of it working set and no page cache.
    pub memory_bytes: u64,
    /// Processes.
    pub processes: u64,
    /// Changes of its root file system.
    pub writable: DiskUsage,
    /// In volumes of its sandbox.
    pub volumes: BTreeMap<VolumeName, DiskUsage>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            cpu_millis: 1,
            memory_bytes: 1 << 20,
            processes: 1,
            writable: DiskUsage::default(),
            volumes: BTreeMap::new(),
        }
    }
}

/// What tests set of the machine's figures.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pressure: Option<HostPressure>,
    loads: BTreeMap<For, Load>,
}

impl FakeHost {
    /// What the machine runs short of from now on; `None`: nothing.
    pub fn set_pressure(&self, pressure: Option<HostPressure>) {
        lock(&self.shared.figures).pressure = pressure;
    }

    /// What containers use from now on; [`For::Pod`] comes before [`For::Container`], the rest is not looked at.
    pub fn set_load(&self, which: For, load: Load) {
        lock(&self.shared.figures).loads.insert(which, load);
    }

    /// The figures of a machine that has plenty.
    pub fn no_pressure(&self) -> HostPressure {
        let info = &self.shared.options.info;
        HostPressure {
            memory_bytes: info.memory_bytes,
            memory_available_bytes: info.memory_bytes / 4 * 3,
            storage: FileSystem {
                capacity_bytes: info.storage_bytes,
                available_bytes: info.storage_bytes / 4 * 3,
                inodes: 1 << 20,
                inodes_free: 1 << 19,
            },
            processes_max: 32768,
            processes: 200,
        }
    }

    fn pressure_now(&self) -> HostPressure {
        let scripted = lock(&self.shared.figures).pressure;
        scripted.unwrap_or_else(|| self.no_pressure())
    }

    fn load(&self, sandbox: &SandboxSpec, instance: &Instance) -> Load {
        let name = instance.spec.name.to_string();
        let pod = For::Pod(format!("{}/{}", sandbox.pod.namespace, sandbox.pod.name), name.clone());
        let figures = lock(&self.shared.figures);
        let found = [pod, For::Container(name)].iter().find_map(|which| figures.loads.get(which).cloned());
        found.unwrap_or_else(|| Load {
            memory_bytes: instance.memory_bytes().max(Load::default().memory_bytes),
            ..Load::default()
        })
    }
}

fn consumption(load: &Load, since: BootTime, now: BootTime) -> Consumption {
    let nanos = u64::try_from(now.since(since).as_nanos()).unwrap_or(u64::MAX);
    Consumption {
        cpu_nanos: (nanos / 1000).saturating_mul(load.cpu_millis),
        memory_bytes: load.memory_bytes,
        working_set_bytes: load.memory_bytes,
        rss_bytes: load.memory_bytes,
        processes: load.processes,
    }
}

fn add(total: &mut Consumption, one: Consumption) {
    total.cpu_nanos += one.cpu_nanos;
    total.memory_bytes += one.memory_bytes;
    total.working_set_bytes += one.working_set_bytes;
    total.rss_bytes += one.rss_bytes;
    total.processes += one.processes;
}

#[async_trait]
impl Usage for FakeHost {
    async fn pressure(&self) -> HostResult<HostPressure> {
        let call = self.begin(Op::Pressure, "host", None).await?;
        call.end_with(Ok(self.pressure_now()), false).await
    }

    async fn usage(&self) -> HostResult<UsageReport> {
        let call = self.begin(Op::Usage, "host", None).await?;
        let now = self.now();
        let mut host = Consumption::default();
        let mut sandboxes = BTreeMap::new();
        for (id, sandbox) in self.world().sandboxes() {
            let mut usage = SandboxUsage::default();
            let pod = matches!(sandbox.spec.network, SandboxNetwork::Pod { .. });
            usage.traffic = pod.then(Traffic::default);
            for instance in sandbox.live() {
                let ContainerState::Running { started, .. } = instance.state else { continue };
                let one = consumption(&self.load(&sandbox.spec, instance), started, now.boot);
                add(&mut usage.total, one);
                usage.containers.insert(instance.spec.name.clone(), (instance.spec.attempt, one));
            }
            add(&mut host, usage.total);
            sandboxes.insert(id.clone(), usage);
        }
        let pressure = self.pressure_now();
        let used = pressure.memory_bytes.saturating_sub(pressure.memory_available_bytes);
        // A machine does something by itself as well.
        host.cpu_nanos += u64::try_from(now.boot.since_boot().as_nanos() / 100).unwrap_or(u64::MAX).saturating_add(1);
        host = Consumption { memory_bytes: used, working_set_bytes: used, processes: pressure.processes, ..host };
        let report = UsageReport {
            at: now.boot,
            time: now.wall,
            host,
            host_traffic: Some(Traffic::default()),
            pressure,
            sandboxes,
        };
        call.end_with(Ok(report), false).await
    }

    async fn disk_usage(
        &self,
        sandboxes: &[SandboxId],
        _budget: Duration,
    ) -> HostResult<BTreeMap<SandboxId, SandboxDisk>> {
        let call = self.begin(Op::DiskUsage, "host", None).await?;
        let mut found = BTreeMap::new();
        for id in sandboxes {
            let world = self.world();
            let Some(sandbox) = world.sandboxes().get(id) else { continue };
            let mut disk = SandboxDisk { complete: true, ..SandboxDisk::default() };
            for instance in sandbox.instances.values().flat_map(BTreeMap::values) {
                let container = disk.containers.entry(instance.spec.name.clone()).or_default();
                let log = std::fs::metadata(&instance.spec.log.path);
                let logs = log.map_or_else(|_| DiskUsage::default(), |m| DiskUsage { bytes: m.len(), inodes: 1 });
                let load = self.load(&sandbox.spec, instance);
                *container = ContainerDisk { writable: load.writable, logs: container.logs.plus(logs) };
                for (volume, used) in load.volumes {
                    let volume = disk.volumes.entry(volume).or_default();
                    *volume = volume.plus(used);
                }
            }
            found.insert(id.clone(), disk);
        }
        call.end_with(Ok(found), false).await
    }
}
