//! Every path of ours. `RUN` is the run directory, `STATE` the state directory.
//!
//! ```text
//! RUN/locks/SANDBOX.CONTAINER.ATTEMPT       flock held by the supervisor for as long as it lives
//! RUN/sockets/DIGEST                        where a supervisor listens (a socket's path may hold only 107 bytes)
//! RUN/network.json ipnat.json guards.json   what the pod network, translation and guards were told last
//! RUN/sandboxes/SANDBOX/state.json          there while the sandbox is Running; gone with a boot
//!   containers/CONTAINER/ATTEMPT/           container.json launch.json state.json stop.json exit.json
//!   inside/                                 zone: /.reddwarf/run, read-only. Secrets: start/ secret/VOLUME/
//! STATE/sandboxes/SANDBOX/sandbox.json      the mark: written first, removed last
//! STATE/zonecfg/SANDBOX                     the command file that was given to zonecfg last
//! STATE/bin/reddwarfd                       our program: zones see it, read-only, at /.reddwarf/bin
//! STATE/ilb.json                            there while ILB may have rules of ours: how their names begin
//! STATE/iso/                                ISO images for virtual machines: the administrator's
//! STATE/pool/                               our dataset
//!   zones/SANDBOX                           zonepaths
//!   images/HEX/root/                        root file systems of images, each a dataset with the snapshot @golden
//!   pods/SANDBOX/                           a dataset for each pod
//!     ro/                                   zone: /.reddwarf/ro, read-only. What we write: etc/ files/VOLUME/
//!     rw/                                   zone: /.reddwarf/rw. What the pod writes: out/ volumes/VOLUME/
//!     roots/                                zone: /.reddwarf/roots. Read-only itself, with a directory for each slot, on
//!       00/ 01/ …                           which containers' root file systems (clones of images) are mounted
//! ```
//!
//! The pod's root user may do in `rw` what it likes, so we never write there by path once the zone has run, and read from
//! `out` without following links. It can't rename what it sees in `roots`, so that a mount there never lands elsewhere.

use crate::record::ContainerRunning;
use reddwarf_host::{ImageId, SandboxId, VolumeName};
use reddwarf_supervise::instance::RunPaths;
use std::path::{Path, PathBuf};

/// Where a zone sees what we give it, from its root. Relative on purpose: commands of zlogin(1) begin in the zone's root.
pub(crate) const INSIDE: &str = ".reddwarf";

/// Containers of one pod that are there at the same time, ended ones that are not removed yet included.
pub(crate) const SLOTS: u32 = 64;

/// Paths below one run and one state directory.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) run: RunPaths<ContainerRunning>,
    state: PathBuf,
}

impl Paths {
    pub(crate) fn new(run: &Path, state: &Path) -> Self {
        Self { run: RunPaths::new(run), state: state.to_owned() }
    }

    pub(crate) fn sockets(&self) -> PathBuf {
        self.run.dir().join("sockets")
    }

    pub(crate) fn network(&self) -> PathBuf {
        self.run.dir().join("network.json")
    }

    pub(crate) fn nat(&self) -> PathBuf {
        self.run.dir().join("ipnat.json")
    }

    pub(crate) fn guards(&self) -> PathBuf {
        self.run.dir().join("guards.json")
    }

    pub(crate) fn ilb(&self) -> PathBuf {
        self.state.join("ilb.json")
    }

    pub(crate) fn marks(&self) -> PathBuf {
        self.state.join("sandboxes")
    }

    pub(crate) fn marked(&self, id: &SandboxId) -> PathBuf {
        self.marks().join(id.as_str())
    }

    pub(crate) fn mark(&self, id: &SandboxId) -> PathBuf {
        self.marked(id).join("sandbox.json")
    }

    pub(crate) fn zonecfg(&self) -> PathBuf {
        self.state.join("zonecfg")
    }

    pub(crate) fn isos(&self) -> PathBuf {
        self.state.join("iso")
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.state.join("bin")
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.bin().join("reddwarfd")
    }

    pub(crate) fn pool(&self) -> PathBuf {
        self.state.join("pool")
    }

    pub(crate) fn zonepaths(&self) -> PathBuf {
        self.pool().join("zones")
    }

    pub(crate) fn zonepath(&self, zone: &str) -> PathBuf {
        self.zonepaths().join(zone)
    }

    pub(crate) fn image_root(&self, id: &ImageId) -> PathBuf {
        self.pool().join("images").join(image_component(id)).join("root")
    }

    pub(crate) fn pod(&self, id: &SandboxId) -> PathBuf {
        self.pool().join("pods").join(id.as_str())
    }

    /// What the zone can only read.
    pub(crate) fn read_only(&self, id: &SandboxId) -> PathBuf {
        self.pod(id).join("ro")
    }

    pub(crate) fn etc(&self, id: &SandboxId) -> PathBuf {
        self.read_only(id).join("etc")
    }

    /// What the zone can only read and must not lie on a disk.
    pub(crate) fn in_memory(&self, id: &SandboxId) -> PathBuf {
        self.run.sandbox(id).join("inside")
    }

    pub(crate) fn starts(&self, id: &SandboxId) -> PathBuf {
        self.in_memory(id).join("start")
    }

    pub(crate) fn secret_volume(&self, id: &SandboxId, volume: &VolumeName) -> PathBuf {
        self.in_memory(id).join("secret").join(volume.as_str())
    }

    pub(crate) fn files_volume(&self, id: &SandboxId, volume: &VolumeName) -> PathBuf {
        self.read_only(id).join("files").join(volume.as_str())
    }

    /// What the pod may write.
    pub(crate) fn writable(&self, id: &SandboxId) -> PathBuf {
        self.pod(id).join("rw")
    }

    pub(crate) fn out(&self, id: &SandboxId) -> PathBuf {
        self.writable(id).join("out")
    }

    pub(crate) fn empty_dir(&self, id: &SandboxId, volume: &VolumeName) -> PathBuf {
        self.writable(id).join("volumes").join(volume.as_str())
    }

    pub(crate) fn roots(&self, id: &SandboxId) -> PathBuf {
        self.pod(id).join("roots")
    }
}

/// A slot's directory and dataset.
pub(crate) fn slot_name(slot: u32) -> String {
    format!("{slot:02}")
}

/// An image as one component of a dataset's name.
pub(crate) fn image_component(id: &ImageId) -> String {
    id.as_str().trim_start_matches("sha256:").to_owned()
}
