//! The Linux host: pods as sandboxes of namespaces and cgroups, containers run by libcontainer under a shim of ours.
//!
//! What runs where:
//!
//! ```text
//! reddwarfd (LinuxHost)                 reddwarfd __shim DIR  (one per container)      reddwarfd __exec DIR
//!   sandbox   namespaces, cgroup,         shim::main: session leader, subreaper          exec: joins a container's
//!             volumes, /etc files           keeps stdio, writes the log                  namespaces and cgroup, runs
//!   container starts shims, signals       creator (forked, own mount namespace):         one command
//!   observe   reads the run directory       rootfs, OCI config, libcontainer or crun
//!   watch     one inotify on locks/       writes state.json, exit.json; holds the lock
//!   network, link, nft, image, info   reddwarfd __unpack  (one per import step): reads images, confined
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | what a host is made with |
//! | `paths`, `record` | every path of ours, the records that lie there |
//! | `host`, `sandboxes` | [`LinuxHost`] and its wiring to the traits |
//! | [`claim`](claim()) | one daemon an instance |
//! | `sandbox`, `namespaces`, `pause`, `volumes` | sandboxes and their parts |
//! | `container`, `process`, `cgroup` | container instances, whether their shims live, signals, limits |
//! | `host_path` | the host's paths for pods |
//! | [`shim`], `runtime`, `oci`, `devices`, `seccomp`, `inside`, `program` | making one container and watching over it |
//! | [`exec`], `attach`, `connect` | commands in running containers, their own streams, connections into sandboxes |
//! | `observe`, `leftovers`, `watch`, `mounts` | what there is, what is too much, what changed by itself |
//! | `usage` | figures of the machine, of control groups, of disks |
//! | `network`, `link`, `nft`, `nfnetlink` | bridge, veths, masquerade; netfilter by its tool and by its messages |
//! | `services` | services and network policies: one nftables table |
//! | `image`, `unpack`, `rootfs`, `roots` | the image store, what `reddwarf-pull` brings into it, containers' root file systems: overlays, or clones on a storage engine |
//! | [`btrfs`] | subvolumes by the kernel's calls, for the engine |
//! | `info`, [`memory`] | what this machine is; the daemon's own heap |
//! | [`inherited`], [`resolved`] | sockets that the service manager kept; names of services on this host |
//!
//! All state lies in files: a new daemon finds sandboxes, shims and containers again by reading them.
//! What both hosts have in common (logs, records, locks, users, files) is `reddwarf_supervise`'s. Nothing here knows a
//! Kubernetes object.

mod attach;
pub mod btrfs;
mod cgroup;
mod claim;
mod connect;
mod container;
mod devices;
pub mod exec;
mod host;
mod host_path;
mod image;
mod info;
pub mod inherited;
mod inside;
mod leftovers;
mod link;
pub mod memory;
mod mounts;
mod namespaces;
mod network;
mod nfnetlink;
mod nft;
mod observe;
mod oci;
pub mod options;
mod paths;
pub mod pause;
mod process;
mod program;
mod record;
pub mod resolved;
mod rootfs;
mod roots;
mod runtime;
mod sandbox;
mod sandboxes;
mod seccomp;
mod services;
pub mod shim;
pub mod unpack;
mod usage;
mod users;
mod volumes;
mod watch;

use reddwarf_supervise::{env_file, etc, files, files_volume, lock, ownership, user};
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs this process as one of the host's helpers when its first argument names one (`__shim`, `__exec`, `__pause`,
/// `__unpack`, `__version`).
/// To be asked first thing in `main`: helpers are single-threaded and small.
pub fn helper(name: &str, arguments: &[OsString]) -> Option<ExitCode> {
    match name {
        "__shim" => Some(shim::main(arguments)),
        "__exec" => Some(exec::helper::main(arguments)),
        "__pause" => Some(pause::main(arguments)),
        "__unpack" => Some(unpack::main()),
        "__version" => {
            println!("{VERSION}");
            Some(ExitCode::SUCCESS)
        }
        _ => None,
    }
}

/// The version of the helpers: a daemon starts those of its own only.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A program that is nothing but the helpers: its arguments are [`helper`]'s.
pub fn helper_main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let name = arguments.next();
    let rest: Vec<OsString> = arguments.collect();
    name.as_ref().and_then(|name| helper(name.to_str()?, &rest)).unwrap_or_else(|| {
        eprintln!(
            "usage: __shim|__exec DIRECTORY, __pause FILE, __unpack or __version; reddwarfd starts these by itself"
        );
        ExitCode::from(2)
    })
}

pub use claim::claim;
pub use host::LinuxHost;
pub use network::gateways;
pub use options::{LinuxOptions, Runtime};
pub use reddwarf_pull::{Endpoint, RegistryOptions};
pub use services::guard_socket;
