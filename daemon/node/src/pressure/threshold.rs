//! When the host runs short of something (Kubernetes: "Node-pressure Eviction"). Pure.

use reddwarf_host::usage::HostPressure;
use reddwarf_objects::Quantity;

/// A part of the whole, or an amount.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes, files, processes.
    Absolute(u64),
    /// Hundredths of what there is, but never more than so many bytes, files or processes.
    Percent(f64, Option<u64>),
}

impl Amount {
    fn of(self, whole: u64) -> u64 {
        match self {
            Self::Absolute(amount) => amount,
            // Whole numbers are exact up to 2^53, more than any host has of anything.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "see above"
            )]
            Self::Percent(percent, most) => ((whole as f64 * percent / 100.0) as u64).min(most.unwrap_or(u64::MAX)),
        }
    }
}

/// Less than this of something is too little; `None`: it is not looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// `memory.available`.
    pub memory_available: Option<Amount>,
    /// `nodefs.available`.
    pub storage_available: Option<Amount>,
    /// `nodefs.inodesFree`.
    pub inodes_free: Option<Amount>,
    /// `pid.available`.
    pub pids_available: Option<Amount>,
}

impl Default for Thresholds {
    /// The kubelet's, and some room for processes; of a large disk 5 GiB are enough.
    fn default() -> Self {
        Self {
            memory_available: Some(Amount::Absolute(100 << 20)),
            storage_available: Some(Amount::Percent(10.0, Some(5 << 30))),
            inodes_free: Some(Amount::Percent(5.0, None)),
            pids_available: Some(Amount::Percent(5.0, None)),
        }
    }
}

/// What may run short, in the order in which it is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Memory.
    Memory,
    /// Bytes on disk.
    Storage,
    /// Files on disk.
    Inodes,
    /// Processes and threads.
    Pids,
}

impl Resource {
    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Storage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// The signal that thresholds name it by.
    pub fn signal(self) -> &'static str {
        match self {
            Self::Memory => "memory.available",
            Self::Storage => "nodefs.available",
            Self::Inodes => "nodefs.inodesFree",
            Self::Pids => "pid.available",
        }
    }

    /// The node's condition that tells of it.
    pub fn condition(self) -> NodeCondition {
        match self {
            Self::Memory => NodeCondition::Memory,
            Self::Storage | Self::Inodes => NodeCondition::Disk,
            Self::Pids => NodeCondition::Pid,
        }
    }
}

/// What a node says of itself when it runs short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeCondition {
    /// `MemoryPressure`.
    Memory,
    /// `DiskPressure`.
    Disk,
    /// `PIDPressure`.
    Pid,
}

impl NodeCondition {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Pid];

    /// The condition's type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }

    /// The key of the taint that keeps pods away.
    pub fn taint(self) -> &'static str {
        match self {
            Self::Memory => "node.kubernetes.io/memory-pressure",
            Self::Disk => "node.kubernetes.io/disk-pressure",
            Self::Pid => "node.kubernetes.io/pid-pressure",
        }
    }

    /// Reason and message of the condition, as the kubelet has them.
    pub fn words(self, holds: bool) -> (&'static str, &'static str) {
        match (self, holds) {
            (Self::Memory, true) => ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            (Self::Memory, false) => ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            (Self::Disk, true) => ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            (Self::Disk, false) => ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            (Self::Pid, true) => ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            (Self::Pid, false) => ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        }
    }

    /// The event that tells of a change.
    pub fn event(self, holds: bool) -> &'static str {
        match (self, holds) {
            (Self::Memory, true) => "NodeHasInsufficientMemory",
            (Self::Memory, false) => "NodeHasSufficientMemory",
            (Self::Disk, true) => "NodeHasDiskPressure",
            (Self::Disk, false) => "NodeHasNoDiskPressure",
            (Self::Pid, true) => "NodeHasInsufficientPID",
            (Self::Pid, false) => "NodeHasSufficientPID",
        }
    }
}

/// There is too little of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Of what.
    pub resource: Resource,
    /// How much there should be at least.
    pub threshold: u64,
    /// How much there is.
    pub available: u64,
}

impl Shortage {
    /// What the threshold and the rest are, for messages.
    pub(super) fn amounts(self) -> (String, String) {
        (amount(self.resource, self.threshold), amount(self.resource, self.available))
    }
}

/// An amount of something as a quantity.
pub(super) fn amount(resource: Resource, value: u64) -> String {
    match resource {
        Resource::Memory | Resource::Storage => {
            // Exact below a KiB, in whole KiB above it: quantities print the largest unit that loses nothing.
            let rounded = if value > 1024 { value / 1024 * 1024 } else { value };
            Quantity::from_bytes(i64::try_from(rounded).unwrap_or(i64::MAX)).to_string()
        }
        Resource::Inodes | Resource::Pids => value.to_string(),
    }
}

/// What there is too little of, most urgent first.
pub fn shortages(host: &HostPressure, thresholds: &Thresholds) -> Vec<Shortage> {
    let disk = host.storage;
    let pids = host.processes_max.saturating_sub(host.processes);
    // What the host can't tell (0 in all) is no shortage.
    [
        (Resource::Memory, thresholds.memory_available, host.memory_bytes, host.memory_available_bytes),
        (Resource::Storage, thresholds.storage_available, disk.capacity_bytes, disk.available_bytes),
        (Resource::Inodes, thresholds.inodes_free, disk.inodes, disk.inodes_free),
        (Resource::Pids, thresholds.pids_available, host.processes_max, pids),
    ]
    .into_iter()
    .filter(|(_, _, whole, _)| *whole > 0)
    .filter_map(|(resource, wanted, whole, available)| {
        let threshold = wanted?.of(whole);
        (available < threshold).then_some(Shortage { resource, threshold, available })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_host::usage::FileSystem;

    fn host() -> HostPressure {
        HostPressure {
            memory_bytes: 16 << 30,
            memory_available_bytes: 8 << 30,
            storage: FileSystem { capacity_bytes: 20 << 30, available_bytes: 10 << 30, inodes: 1000, inodes_free: 500 },
            processes_max: 1000,
            processes: 100,
        }
    }

    #[test]
    fn the_defaults_are_the_kubelets_but_for_large_disks() {
        let all = |host: HostPressure| -> Vec<(Resource, u64)> {
            shortages(&host, &Thresholds::default()).iter().map(|s| (s.resource, s.threshold)).collect()
        };
        let disk = |available_bytes, inodes_free| HostPressure {
            storage: FileSystem { available_bytes, inodes_free, ..host().storage },
            ..host()
        };
        assert_eq!(all(host()), []);
        assert_eq!(all(HostPressure { memory_available_bytes: 100 << 20, ..host() }), []);
        assert_eq!(
            all(HostPressure { memory_available_bytes: (100 << 20) - 1, ..host() }),
            [(Resource::Memory, 100 << 20)]
        );
        assert_eq!(all(disk(2 << 30, 50)), []);
        assert_eq!(all(disk((2 << 30) - 1, 49)), [(Resource::Storage, 2 << 30), (Resource::Inodes, 50)]);
        let large = |available_bytes| HostPressure {
            storage: FileSystem { capacity_bytes: 250 << 30, available_bytes, ..host().storage },
            ..host()
        };
        assert_eq!(all(large(14 << 30)), [], "a twentieth of a large disk is room enough");
        assert_eq!(all(large((5 << 30) - 1)), [(Resource::Storage, 5 << 30)]);
        assert_eq!(all(HostPressure { processes: 951, ..host() }), [(Resource::Pids, 50)]);
        assert_eq!(all(HostPressure::default()), [], "nothing is known");
        let off = Thresholds { memory_available: None, ..Thresholds::default() };
        assert_eq!(shortages(&HostPressure { memory_available_bytes: 0, ..host() }, &off), []);
    }

    #[test]
    fn amounts_are_quantities() {
        let shortage = Shortage { resource: Resource::Memory, threshold: 100 << 20, available: (87 << 20) + 5 };
        assert_eq!(shortage.amounts(), ("100Mi".into(), "87Mi".into()));
        assert_eq!(amount(Resource::Pids, 12), "12");
    }
}
