//! Every path of ours. `RUN` is the run directory, `STATE` the state directory.
//!
//! ```text
//! RUN/locks/SANDBOX.CONTAINER.ATTEMPT        flock held by the shim for as long as it lives
//! RUN/private/                               our tmpfs, private propagation
//!   exe                                      our program, bound read-only
//!   ns/SANDBOX/{net,ipc,uts}                 pinned namespaces
//!   shm/SANDBOX                              the pod's /dev/shm (tmpfs)
//!   tmp/SANDBOX/VOLUME                       emptyDir on memory (tmpfs)
//!   files/SANDBOX/VOLUME/                    secret files volumes
//! RUN/sandboxes/SANDBOX/sandbox.json         the mark: written first, removed last
//!   state.json                               Running or Stopped
//!   etc/{hosts,hostname,resolv.conf}
//!   containers/CONTAINER/ATTEMPT/            container.json state.json stop.json exit.json oci/
//! STATE/sandboxes/SANDBOX/volumes/VOLUME/    emptyDir on disk, plain files volumes
//!   containers/CONTAINER/ATTEMPT/            writable layer (the rootfs module's)
//! STATE/images/                              the image module's
//! ```

use crate::record::ContainerRunning;
use reddwarf_host::{ContainerName, SandboxId, VolumeName};
use reddwarf_supervise::instance::RunPaths;
use std::path::{Path, PathBuf};

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

    pub(crate) fn sandbox_mark(&self, id: &SandboxId) -> PathBuf {
        self.run.sandbox(id).join("sandbox.json")
    }

    pub(crate) fn etc(&self, id: &SandboxId) -> PathBuf {
        self.run.sandbox(id).join("etc")
    }

    /// Our tmpfs.
    pub(crate) fn private(&self) -> PathBuf {
        self.run.dir().join("private")
    }

    pub(crate) fn exe(&self) -> PathBuf {
        self.private().join("exe")
    }

    pub(crate) fn namespaces(&self, id: &SandboxId) -> PathBuf {
        self.private().join("ns").join(id.as_str())
    }

    pub(crate) fn shm(&self, id: &SandboxId) -> PathBuf {
        self.private().join("shm").join(id.as_str())
    }

    pub(crate) fn memory_volumes(&self, id: &SandboxId) -> PathBuf {
        self.private().join("tmp").join(id.as_str())
    }

    pub(crate) fn memory_volume(&self, id: &SandboxId, volume: &VolumeName) -> PathBuf {
        self.memory_volumes(id).join(volume.as_str())
    }

    pub(crate) fn secret_volumes(&self, id: &SandboxId) -> PathBuf {
        self.private().join("files").join(id.as_str())
    }

    pub(crate) fn secret_volume(&self, id: &SandboxId, volume: &VolumeName) -> PathBuf {
        self.secret_volumes(id).join(volume.as_str())
    }

    pub(crate) fn disk_sandboxes(&self) -> PathBuf {
        self.state.join("sandboxes")
    }

    pub(crate) fn disk_sandbox(&self, id: &SandboxId) -> PathBuf {
        self.disk_sandboxes().join(id.as_str())
    }

    pub(crate) fn disk_volume(&self, id: &SandboxId, volume: &VolumeName) -> PathBuf {
        self.disk_sandbox(id).join("volumes").join(volume.as_str())
    }

    /// Where the rootfs module keeps one instance's writable layer.
    pub(crate) fn disk_container(&self, id: &SandboxId, name: &ContainerName, attempt: u32) -> PathBuf {
        self.disk_sandbox(id).join("containers").join(name.as_str()).join(attempt.to_string())
    }
}
