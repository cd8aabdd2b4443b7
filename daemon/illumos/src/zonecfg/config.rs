//! A zone's configuration as we make it, and as an export is read back.

use super::value::{AttrName, CpuCap, RctlName, Text};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// All of a zone's configuration that matters to us. The network stack is always the zone's own (`ip-type=exclusive`).
///
/// Bounds that zonecfg knows by short names (cpu-shares, capped-cpu, capped-memory, max-lwps, max-processes) have fields
/// of their own, whichever way a system stores them; `rctls` are the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneConfig {
    /// How it is made and run: `lipkg`, `lx`, `bhyve`, ….
    pub brand: Text,
    /// Its directory, absolute.
    pub zonepath: Text,
    /// Whether the system boots it. For pods it does not: we decide.
    pub autoboot: bool,
    /// Arguments of its boot.
    pub bootargs: Option<Text>,
    /// Its privileges: `default` or `default,+priv,!priv` (privileges(7)).
    pub limitpriv: Option<Text>,
    /// File system types that may be mounted inside, between commas.
    pub fs_allowed: Option<Text>,
    /// Its share of contended CPUs, against the other zones' shares.
    pub cpu_shares: Option<u64>,
    /// Most CPU it gets.
    pub cpu_cap: Option<CpuCap>,
    /// Bounds on its memory, in bytes.
    pub memory: Memory,
    /// Most threads; from 100.
    pub max_lwps: Option<u64>,
    /// Most processes; from 100.
    pub max_processes: Option<u64>,
    /// Further resource controls.
    pub rctls: BTreeMap<RctlName, Vec<RctlValue>>,
    /// Protections against exploits (security-flags(7)).
    pub security_flags: SecurityFlags,
    /// Its links, one entry an address.
    pub nets: Vec<Net>,
    /// What is mounted inside, by the place where.
    pub fs: BTreeMap<Text, Fs>,
    /// Patterns below /dev that it sees.
    pub devices: BTreeSet<Text>,
    /// ZFS datasets that it administers itself.
    pub datasets: BTreeSet<Text>,
    /// Words about it: our marks, and what brands read.
    pub attrs: BTreeMap<AttrName, Attr>,
}

impl ZoneConfig {
    /// A zone of that brand in that directory, and nothing else.
    pub fn new(brand: Text, zonepath: Text) -> Self {
        Self {
            brand,
            zonepath,
            autoboot: false,
            bootargs: None,
            limitpriv: None,
            fs_allowed: None,
            cpu_shares: None,
            cpu_cap: None,
            memory: Memory::default(),
            max_lwps: None,
            max_processes: None,
            rctls: BTreeMap::new(),
            security_flags: SecurityFlags::default(),
            nets: Vec::new(),
            fs: BTreeMap::new(),
            devices: BTreeSet::new(),
            datasets: BTreeSet::new(),
            attrs: BTreeMap::new(),
        }
    }
}

/// capped-memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident memory: beyond it pages go out (OmniOS, SmartOS: by the kernel; elsewhere by rcapd).
    pub physical: Option<u64>,
    /// Reservations of memory: beyond it allocations fail; from 50 MiB.
    pub swap: Option<u64>,
    /// Memory that can't be paged out; at most `physical`.
    pub locked: Option<u64>,
}

/// One value of a resource control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RctlValue {
    /// Who may raise it.
    pub privilege: RctlPriv,
    /// The bound.
    pub limit: u64,
    /// What happens at it.
    pub action: RctlAction,
}

/// Who may raise a resource control's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RctlPriv {
    /// Whoever owns it.
    Basic,
    /// The global zone's administrator.
    Privileged,
}

/// What happens at a resource control's bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RctlAction {
    /// Nothing.
    None,
    /// The request fails.
    Deny,
}

/// security-flags: which protections are on, and which may be turned off and on. Unset: the system's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityFlags {
    /// On in new processes.
    pub default: Option<Text>,
    /// Always on.
    pub lower: Option<Text>,
    /// All that may be on.
    pub upper: Option<Text>,
}

/// One address on one of the zone's links.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net {
    /// The link, which ends in a number (`LinkName`).
    pub physical: Text,
    /// The only address it may use: zoneadmd sets it inside, with protection against others.
    pub allowed_address: Option<IpNet>,
    /// The default router; only with an address.
    pub defrouter: Option<IpAddr>,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fs {
    /// What is mounted: a directory of the global zone, a dataset.
    pub special: Text,
    /// `lofs`, `zfs`, `tmpfs`, ….
    pub kind: Text,
    /// The raw device, where the type has one.
    pub raw: Option<Text>,
    /// Options in order: `ro`, `nodevices`, ….
    pub options: Vec<Text>,
}

/// One word about a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    /// How its value is to be read.
    pub kind: AttrKind,
    /// Its value.
    pub value: Text,
}

/// The types of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrKind {
    /// Text.
    String,
    /// true or false.
    Boolean,
    /// A signed number.
    Int,
    /// An unsigned number.
    Uint,
}
