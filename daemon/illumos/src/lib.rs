//! The illumos host: pods as zones, driven by the system's own tools, which are built and read by types.
//!
//! ```text
//! reddwarfd (IllumosHost)               reddwarfd __zone-supervisor DIR (one per container, global zone)
//!   zone      mark → datasets →            zlogin ZONE, log, exit record; holds the lock; outlives the daemon
//!             VNIC → zonecfg → clone →        │
//!             boot                            └─ in the zone: reddwarfd __zone-start FILE
//!   observe   zoneadm, dladm, ipadm:              volumes, root, user, environment → the program; says how it ends
//!             a constant number of runs
//!
//! ZoneConfig ──create──→ a zonecfg command file      zonecfg export ──export──→ ZoneConfig      edit(live, wanted)
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`options`], `paths`, `record` | what a host is made with, every path of ours, the records that lie there |
//! | `host`, `sandboxes` | [`IllumosHost`] and its wiring to the traits |
//! | [`zone`] | a zone's way from any state to any other: decision, configuration, brands, templates, carrying out |
//! | `sandbox`, `volumes`, `datasets`, `vnic` | sandboxes and their parts (what is said to zfs(8) is `reddwarf_storage`'s) |
//! | `container`, `slots`, `inside` | container instances, places for their roots; commands and signals in zones |
//! | `project` | limits of single containers |
//! | [`supervisor`], `stream` | watching over one container, who is attached |
//! | [`starter`], `terminal`, [`tree`], `linux` | starting a program inside, its terminal, ending all that it started; lx zones |
//! | `init` | the first process of zones of our own brand (`smf/brand`) |
//! | `machine` | a virtual machine as the container of its pod |
//! | `delegated` | datasets that pods administer themselves |
//! | `exec`, `attach`, [`connect`] | commands in running containers, their own streams, connections into zones |
//! | `observe`, `leftovers`, `watch`, `usage`, `info` | what there is, what is too much, what ended, figures |
//! | `network`, `services`, `policies` | etherstub and gateway; services by ipnat, policies by ipf |
//! | `guards` | policies of pods that meet by way of a service, in the global zone |
//! | `announced` | load balancers' addresses: which interface has them, what is ours |
//! | `ilb` | services by ILB, if so asked: what it can do, what is to be changed, carrying that out |
//! | `images` | the image store, on ZFS; layers are unpacked in a child without rights |
//! | `port`, `sysevent` | what the kernel tells: changes of files by event ports, of zones by a channel (on illumos only) |
//! | [`zone_events`] | whose changes of zones are looked at |
//! | [`zonecfg`] | configurations, the command files that make them, the grammar, the smallest edit between two |
//! | [`zoneadm`] | zones' states and the list of zones |
//! | [`dladm`], [`ipadm`], [`route`], [`ipnat`], [`ilbadm`], [`ipf`], [`zlogin`], [`kstat`] | the tools' texts as values |
//! | [`parsable`] | fields as `zoneadm list -p` and `dladm … -p -o` escape them |
//!
//! Nothing here knows a Kubernetes object. All of it compiles and runs on every system: on Linux against stand-ins for the
//! tools (`vm-tests/hostsim`). What asks the kernel itself is there on illumos only, and the only code that is unsafe: `port`, `sysevent`.

mod announced;
mod attach;
pub mod connect;
mod container;
mod datasets;
mod delegated;
pub mod dladm;
mod exec;
mod guards;
mod host;
mod ilb;
pub mod ilbadm;
mod images;
mod info;
mod init;
mod inside;
pub mod ipadm;
pub mod ipf;
pub mod ipnat;
pub mod kstat;
mod leftovers;
mod linux;
mod machine;
mod network;
mod observe;
pub mod options;
pub mod parsable;
mod paths;
mod policies;
#[cfg(target_os = "illumos")]
mod port;
mod project;
mod record;
mod rooted;
pub mod route;
mod sandbox;
mod sandboxes;
mod services;
mod slots;
pub mod starter;
mod stream;
pub mod supervisor;
#[cfg(target_os = "illumos")]
mod sysevent;
mod terminal;
pub mod tree;
mod usage;
mod vnic;
mod volumes;
mod watch;
pub mod zlogin;
pub mod zone;
pub mod zone_events;
pub mod zoneadm;
pub mod zonecfg;

pub use host::IllumosHost;
pub use network::gateways;
pub use options::{Balancer, IllumosOptions};
#[cfg(target_os = "illumos")]
pub use port::FilePort;
pub use reddwarf_pull::{Endpoint, RegistryOptions};

pub use init::called as as_init;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs this process as one of the host's helpers when its first argument names one. To be asked first thing in `main`.
pub fn helper(name: &str, arguments: &[OsString]) -> Option<ExitCode> {
    match name {
        supervisor::ARGUMENT => Some(supervisor::main(arguments)),
        starter::ARGUMENT => Some(starter::main(arguments)),
        starter::BECOME => Some(starter::become_program(arguments)),
        tree::ARGUMENT => Some(tree::main(arguments)),
        connect::ARGUMENT => Some(connect::main(arguments)),
        machine::ARGUMENT => Some(machine::main(arguments)),
        images::unpack::ARGUMENT => Some(images::unpack::main(arguments)),
        _ => None,
    }
}
