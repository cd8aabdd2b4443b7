//! What a host, its sandboxes and its containers use: plain figures, the same for every system. Rates are the caller's:
//! counters only grow for as long as what they count lives.

use crate::names::{ContainerName, SandboxId, VolumeName};
use crate::time::BootTime;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;

/// Processor, memory and processes of a container, a sandbox or the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consumption {
    /// Processor time since it came into being, over all processors, in nanoseconds.
    pub cpu_nanos: u64,
    /// All memory charged to it, page cache included, in bytes.
    pub memory_bytes: u64,
    /// Memory that can't be taken from it at once: without page cache that has not been used of late.
    pub working_set_bytes: u64,
    /// Memory that is no page cache.
    pub rss_bytes: u64,
    /// Processes and threads.
    pub processes: u64,
}

/// Bytes over a network interface since it came into being, as its user sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

/// A file system, or a part of one. The default is unknown: all zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes that can be filled in all, those that are in use among them: as df(1), without what is reserved.
    pub capacity_bytes: u64,
    /// Bytes that can still be written.
    pub available_bytes: u64,
    /// Files in all; 0 where files are not counted.
    pub inodes: u64,
    /// Files that can still be made.
    pub inodes_free: u64,
}

/// The few figures that tell whether the host is short of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostPressure {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Memory that new work can have without swapping, by the system's own estimate.
    pub memory_available_bytes: u64,
    /// The file system under the state directory.
    pub storage: FileSystem,
    /// Processes and threads that there can be.
    pub processes_max: u64,
    /// Processes and threads that there are.
    pub processes: u64,
}

/// Everything but disks at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageReport {
    /// When, for rates.
    pub at: BootTime,
    /// When, for people.
    pub time: DateTime<Utc>,
    /// The host as a whole, what is not ours included.
    pub host: Consumption,
    /// The host's uplink.
    pub host_traffic: Option<Traffic>,
    /// What may run short.
    pub pressure: HostPressure,
    /// Sandboxes that run. One that could not be read is left out.
    pub sandboxes: BTreeMap<SandboxId, SandboxUsage>,
}

/// One sandbox's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxUsage {
    /// All of it: its containers and what keeps them.
    pub total: Consumption,
    /// Its own network; `None` on the host's.
    pub traffic: Option<Traffic>,
    /// Containers that run: the attempt, and its figures.
    pub containers: BTreeMap<ContainerName, (u32, Consumption)>,
}

/// Bytes and files on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes that are allocated, not lengths of files.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl DiskUsage {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }
}

/// What one sandbox has on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxDisk {
    /// By container: the writable layers and logs of all its attempts that are still there.
    pub containers: BTreeMap<ContainerName, ContainerDisk>,
    /// `emptyDir` volumes on disk.
    pub volumes: BTreeMap<VolumeName, DiskUsage>,
    /// Nothing was left out for want of time. When false, figures are lower bounds.
    pub complete: bool,
}

/// What one container has on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerDisk {
    /// What it changed in its root file system.
    pub writable: DiskUsage,
    /// Its logs.
    pub logs: DiskUsage,
}

impl SandboxDisk {
    /// What counts against a pod's ephemeral storage: writable layers, logs, volumes.
    pub fn total(&self) -> DiskUsage {
        let containers = self.containers.values().flat_map(|c| [c.writable, c.logs]);
        containers.chain(self.volumes.values().copied()).fold(DiskUsage::default(), DiskUsage::plus)
    }
}

/// How much of a file system can be filled, in the unit of its three figures of statvfs(3): without what it keeps for itself
/// and for root, which is `free` but not `available`. So reckons df(1); a disk that reserves much would else pass for nearly
/// full when it is empty.
pub fn fillable(all: u64, free: u64, available: u64) -> u64 {
    all.saturating_sub(free.saturating_sub(available))
}
