//! The model of a system: what its tools would tell about it.

use crate::system::System;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// All of it. Kept as one JSON file, replaced as a whole under a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Which illumos it is.
    pub system: System,
    /// The directory that holds all of it.
    pub home: PathBuf,
    /// How long things take.
    pub times: Times,
    /// Where something is mounted by NFS.
    pub nfs: BTreeSet<PathBuf>,
    /// Zones by name, the global one left out.
    pub zones: BTreeMap<String, Zone>,
    /// Data links by name.
    pub links: BTreeMap<String, Link>,
    /// Interfaces of the global zone by link.
    pub interfaces: BTreeMap<String, Interface>,
    /// Protocol properties by `proto/name`.
    pub protocols: BTreeMap<String, String>,
    /// Routes of the global zone: destination and router.
    pub routes: BTreeSet<(String, String)>,
    /// States of pools that are not ONLINE, by name: for a test to say. A SUSPENDED one answers nobody.
    pub pools: BTreeMap<String, String>,
    /// Datasets and snapshots by name.
    pub datasets: BTreeMap<String, Dataset>,
    /// ipnat's rules in canonical form, in order.
    pub nat: Vec<String>,
    /// ipf's active and inactive rules by set: `` is the global zone's, `zone/NAME` one that it holds for a zone.
    pub filters: BTreeMap<String, Filters>,
    /// ILB's health checks, groups and rules.
    pub balancer: Balancer,
    /// Addresses that other machines have.
    pub neighbours: BTreeSet<std::net::IpAddr>,
    /// Services of the global zone by FMRI.
    pub services: BTreeMap<String, Service>,
    /// The id of the next zone that comes up.
    pub next_zone: u32,
    /// Counts uuids, debug ids and clones' snapshots.
    pub next_number: u64,
}

/// How long what takes, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Times {
    /// An installation.
    pub install: u64,
    /// From boot to running.
    pub boot: u64,
    /// From running to the milestone multi-user-server.
    pub milestone: u64,
    /// A zone's own shutdown; beyond `shutdown_limit` it fails.
    pub shutdown: u64,
    /// Until it is known that nobody else has a new address.
    pub dad: u64,
    /// How long zoneadm waits for a shutdown; 0 stands for the 100 s of the real one.
    pub shutdown_limit: u64,
}

/// One zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Zone {
    /// Its configuration as saved.
    pub config: Config,
    /// Its state.
    pub state: ZoneState,
    /// Given at installation.
    pub uuid: String,
    /// Its number while it is up.
    pub id: Option<u32>,
    /// Its init while it runs.
    pub init: Option<Process>,
    /// OmniOS and SmartOS number their zones.
    pub debug_id: u64,
    /// The configuration that it was booted with: changes count from the next boot on.
    pub booted: Option<Config>,
    /// How many more halts end in `down`.
    pub stuck: u32,
    /// Whether its init does what a shutdown asks for.
    pub deaf: bool,
    /// What its init ends with, however it ends: a guest's own business.
    pub exits: Option<i32>,
    /// Wall time of its boot in milliseconds.
    pub booted_at: u64,
}

/// A process that can be told from a later one with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, in ticks since boot.
    pub start: u64,
}

impl Process {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let rest: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        if rest.first() == Some(&"Z") {
            return None;
        }
        Some(Self { pid, start: rest.get(19)?.parse().ok()? })
    }

    /// Whether it is still there.
    pub fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// zones(7)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "zones(7) tells")]
pub enum ZoneState {
    #[default]
    Configured,
    Incomplete,
    Unavailable,
    Installed,
    Ready,
    Mounted,
    Running,
    ShuttingDown,
    Down,
}

impl ZoneState {
    /// All that a zone of ours may be in, in the order of a zone's life.
    pub const ALL: [Self; 8] = [
        Self::Configured,
        Self::Incomplete,
        Self::Installed,
        Self::Ready,
        Self::Mounted,
        Self::Running,
        Self::ShuttingDown,
        Self::Down,
    ];

    /// As `zoneadm list` prints it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Incomplete => "incomplete",
            Self::Unavailable => "unavailable",
            Self::Installed => "installed",
            Self::Ready => "ready",
            Self::Mounted => "mounted",
            Self::Running => "running",
            Self::ShuttingDown => "shutting_down",
            Self::Down => "down",
        }
    }

    /// Whether the kernel knows the zone: its platform is up.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Ready | Self::Mounted | Self::Running | Self::ShuttingDown | Self::Down)
    }
}

/// A zone's configuration as zonecfg holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Global properties that are set.
    pub globals: BTreeMap<String, String>,
    /// Resources in the order of their making.
    pub resources: Vec<Resource>,
}

impl Config {
    /// A global property; empty when it is not set.
    pub fn global(&self, name: &str) -> &str {
        self.globals.get(name).map_or("", String::as_str)
    }

    /// The zone's directory.
    pub fn zonepath(&self) -> PathBuf {
        PathBuf::from(self.global("zonepath"))
    }

    /// All resources of a kind.
    pub fn all<'c>(&'c self, kind: &'c str) -> impl Iterator<Item = &'c Resource> {
        self.resources.iter().filter(move |r| r.kind == kind)
    }

    /// The value of an attribute.
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.all("attr").find(|a| a.get("name") == name).map(|a| a.get("value"))
    }
}

/// One resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// `net`, `fs`, `rctl`, ….
    pub kind: String,
    /// Members with one value.
    pub members: BTreeMap<String, String>,
    /// Members with several: options of fs; values of rctl as `(priv=…,limit=…,action=…)`; properties of net.
    pub lists: BTreeMap<String, Vec<String>>,
}

impl Resource {
    /// A member; empty when it is not set.
    pub fn get(&self, name: &str) -> &str {
        self.members.get(name).map_or("", String::as_str)
    }

    /// A member with several values.
    pub fn list(&self, name: &str) -> &[String] {
        self.lists.get(name).map_or(&[], Vec::as_slice)
    }
}

/// One data link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// `phys`, `etherstub`, `vnic`, ….
    pub class: String,
    /// What it is on.
    pub over: String,
    /// Its address, lower-case and without leading zeros.
    pub mac: String,
    /// 0 for none.
    pub vid: u16,
    /// Bytes.
    pub mtu: u32,
    /// Gone at the next boot of the system.
    pub temporary: bool,
    /// The zone that has it.
    pub zone: Option<String>,
    /// Link properties that are set.
    pub properties: BTreeMap<String, String>,
    /// zoneadmd set its protection: it takes it back at the halt.
    pub protected_by_zone: bool,
}

/// One plumbed interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Gone at the next boot of the system.
    pub temporary: bool,
    /// Interface properties by `proto/name`.
    pub properties: BTreeMap<String, String>,
    /// Address objects by the part behind the slash.
    pub addresses: BTreeMap<String, Address>,
}

/// One address object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Address {
    /// `static`, `addrconf`, `dhcp`.
    pub kind: String,
    /// With its prefix.
    pub address: String,
    /// Gone at the next boot of the system.
    pub temporary: bool,
    /// Wall time in milliseconds until which it is being asked whether somebody else has it.
    pub tentative_until: u64,
}

/// One dataset or snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dataset {
    /// `filesystem`, `volume`, `snapshot`.
    pub kind: String,
    /// Properties that are set on it.
    pub local: BTreeMap<String, String>,
    /// The snapshot that it is a clone of.
    pub origin: String,
    /// Tags that hold a snapshot.
    pub holds: BTreeSet<String>,
    /// Counts what was made: the order of snapshots.
    pub created: u64,
    /// Whose content it is, where it was received; 0: its own.
    pub guid: u64,
    /// How many more destructions say that it is busy.
    pub busy: u32,
    /// Whether it is mounted.
    pub mounted: bool,
}

/// The packet filters of one stack: an active and an inactive set, of which each family has its own rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filters {
    /// Whether they do anything, and take anything.
    pub enabled: bool,
    /// In force.
    pub active: FilterSet,
    /// Being prepared.
    pub inactive: FilterSet,
}

/// Rules in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilterSet {
    /// For IPv4.
    pub v4: Vec<String>,
    /// For IPv6.
    pub v6: Vec<String>,
}

/// The integrated load balancer. Its configuration outlasts boots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balancer {
    /// Health checks by name.
    pub checks: BTreeMap<String, BTreeMap<String, String>>,
    /// Server groups by name.
    pub groups: BTreeMap<String, ServerGroup>,
    /// Rules by name.
    pub rules: BTreeMap<String, BalancerRule>,
    /// Servers that have connections, by name: for a test to say.
    pub connected: BTreeSet<String>,
    /// Rules and servers that were taken away from them while they had connections: the kernel holds their names.
    pub held: BTreeSet<(String, String)>,
}

/// A server group of ILB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerGroup {
    /// By name.
    pub servers: BTreeMap<String, BalancerServer>,
    /// The number that was given last: looking for a free one begins there.
    pub last: u32,
}

/// A server of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerServer {
    /// Its address.
    pub address: std::net::IpAddr,
    /// Its ports; none: the rule's.
    pub ports: Option<(u16, u16)>,
    /// Whether it takes connections.
    pub enabled: bool,
}

/// A rule of ILB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerRule {
    /// Whether it is in force.
    pub enabled: bool,
    /// Where connections arrive.
    pub vip: std::net::IpAddr,
    /// At which ports; none: all.
    pub ports: Option<(u16, u16)>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `roundrobin`, ….
    pub algorithm: String,
    /// `DSR`, `NAT`, `HALF-NAT`.
    pub kind: String,
    /// The addresses that full NAT shows to servers, or nothing.
    pub proxy_source: String,
    /// Bits of the mask by which clients stay with their server; none: they don't.
    pub mask: Option<u8>,
    /// The health check, or nothing.
    pub check: String,
    /// The port that it asks, or nothing.
    pub check_port: String,
    /// Seconds; none: the kernel's own.
    pub conn_drain: Option<u32>,
    /// Seconds; none: the kernel's own.
    pub nat_timeout: Option<u32>,
    /// Seconds; none: the kernel's own.
    pub persist_timeout: Option<u32>,
    /// The server group.
    pub group: String,
}

/// One service instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// `online`, `disabled`, ….
    pub state: String,
    /// Properties by `group/name`: type and value.
    pub properties: BTreeMap<String, (String, String)>,
}

impl State {
    /// A number that was never given before.
    pub fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Whether a dataset, or a snapshot, lies on a pool that does what it is told.
    ///
    /// # Errors
    /// So does zfs(8) say it.
    pub fn answers(&self, name: &str) -> Result<(), String> {
        let pool = name.split(['/', '@']).next().unwrap_or_default();
        match self.pools.get(pool).is_some_and(|health| health == "SUSPENDED") {
            true => Err(format!("cannot open '{name}': pool I/O is currently suspended")),
            false => Ok(()),
        }
    }

    /// The file system that is mounted exactly there.
    pub fn mounted_at(&self, path: &Path) -> Option<&str> {
        let found = self.datasets.iter().find(|(name, d)| {
            d.kind == "filesystem" && crate::zfs::mountpoint(self, name).is_some_and(|m| Path::new(&m) == path)
        });
        found.map(|(name, _)| name.as_str())
    }
}
