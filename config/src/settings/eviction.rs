//! When the host is short of something: thresholds as the kubelet takes them, `memory.available<100Mi`.

use super::Settings;
use std::fmt;

words! {
    /// What is looked at to tell whether the host is short of something; named as the kubelet names it.
    EvictionSignal {
        /// Memory.
        Memory = "memory.available",
        /// Bytes on the disk of `state`.
        Storage = "nodefs.available",
        /// Files on the disk of `state`.
        Inodes = "nodefs.inodesFree",
        /// Processes and threads.
        Pids = "pid.available",
    }
}

/// How much there must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EvictionAmount {
    /// It is not looked at.
    Off,
    /// Bytes, files, processes.
    Absolute(u64),
    /// Hundredths of what there is, but never more than so many bytes, files or processes.
    Percent(f64, Option<u64>),
}

/// Less than this is too little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvictionThreshold {
    /// Of what.
    pub signal: EvictionSignal,
    /// How much.
    pub amount: EvictionAmount,
}

/// The kubelet's thresholds, and some room for processes. A tenth of a large disk is more than anybody wants to leave
/// empty on a host that does other things as well: with so much free no pod is turned away.
pub(super) const DEFAULTS: [EvictionThreshold; 4] = [
    EvictionThreshold { signal: EvictionSignal::Memory, amount: EvictionAmount::Absolute(100 << 20) },
    EvictionThreshold { signal: EvictionSignal::Storage, amount: EvictionAmount::Percent(10.0, Some(5 << 30)) },
    EvictionThreshold { signal: EvictionSignal::Inodes, amount: EvictionAmount::Percent(5.0, None) },
    EvictionThreshold { signal: EvictionSignal::Pids, amount: EvictionAmount::Percent(5.0, None) },
];

impl fmt::Display for EvictionThreshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signal = self.signal.as_str();
        match self.amount {
            EvictionAmount::Off => write!(f, "{signal}<off"),
            EvictionAmount::Absolute(amount) => write!(f, "{signal}<{}", quantity(amount)),
            EvictionAmount::Percent(percent, None) => write!(f, "{signal}<{percent}%"),
            EvictionAmount::Percent(percent, Some(most)) => write!(f, "{signal}<{percent}%&{}", quantity(most)),
        }
    }
}

fn quantity(amount: u64) -> reddwarf_objects::Quantity {
    reddwarf_objects::Quantity::from_bytes(i64::try_from(amount).unwrap_or(i64::MAX))
}

impl Settings {
    /// Less than this of something is too little: as given, the last one counting, or by default.
    pub fn eviction(&self, signal: EvictionSignal) -> EvictionAmount {
        let all = self.eviction_hard.iter().rev().chain(&DEFAULTS);
        all.into_iter().find(|t| t.signal == signal).map_or(EvictionAmount::Off, |t| t.amount)
    }
}
