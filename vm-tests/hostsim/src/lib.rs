//! illumos' tools, played: one program that is called by their names, models what they would do to a system, refuses what
//! they refuse in their words, and runs zones as local processes. For tests only; nothing of it is ever installed.
//!
//! ```text
//! <dir>/bin/zoneadm, …     this program, by hard links       <dir>/root/rpool/…   what datasets hold
//! <dir>/state/             the model, under a lock           <dir>/faults         which calls go wrong, and how
//! <dir>/brands/NAME/       config.xml of each brand          <dir>/transcript     one line of JSON a call
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`call`] | one call: where the model is, faults, transcript, which tool |
//! | [`fault`] | the plan of faults |
//! | [`lab`] | a directory with all of it, for tests |
//! | [`state`] | the model: zones, links, addresses, datasets, rules, services |
//! | [`system`] | what differs between illumos-gate, OmniOS and SmartOS |
//! | `zonecfg` | the command language with its quirks, on the same grammar that holds the daemon to its files |
//! | `zoneadm` | the zones' states, brands' installation, what boots and halts do |
//! | [`platform`] | what zoneadmd and a zone's init do: namespaces and processes for a running zone |
//! | `bhyve` | what the boot of a virtual machine wants of its attributes |
//! | `brand` | brands by their real files: install scripts, platform.xml, hooks |
//! | `stack` | the IP stack of a zone from inside: ipmgmtd and ipadm there |
//! | `zlogin` | commands in running zones |
//! | `dladm`, `ipadm`, `route` | links, addresses, routes |
//! | `zfs`, `zpool` | datasets, snapshots, clones, properties, as directories |
//! | `ipnat`, `ipf`, `ilbadm` | rules by a strict grammar |
//! | [`packet`] | where packets go by the rules that are loaded, for tests to ask |
//! | `privileges` | ppriv: a command with fewer privileges |
//! | `project` | projects of a zone, and their controls |
//! | `rctl` | bounds of running zones: prctl and rcapadm |
//! | `smf` | svcs, svcprop, svccfg, svcadm |
//! | `figures` | kstat, prstat and other small ones |
//!
//! What facts are not known of is refused rather than guessed: an unknown option is a usage error.

mod bhyve;
mod brand;
mod dladm;
mod figures;
mod ilbadm;
mod ipadm;
mod ipf;
mod ipnat;
mod privileges;
mod project;
mod rctl;
mod route;
mod smf;
mod stack;
mod zfs;
mod zlogin;
mod zoneadm;
mod zonecfg;
mod zpool;

pub mod call;
pub mod fault;
pub mod lab;
pub mod packet;
pub mod platform;
pub mod state;
pub mod system;
