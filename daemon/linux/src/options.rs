//! What a Linux host is made with.

use reddwarf_pull::RegistryOptions;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The run directory of the daemon that a distribution's service unit starts.
pub const DEFAULT_RUN_DIR: &str = "/run/reddwarf";

/// What creates containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Runtime {
    /// The libcontainer crate inside our own shim: nothing to install.
    #[default]
    Libcontainer,
    /// crun(1) by path.
    Crun(PathBuf),
    /// runc(8) by path.
    Runc(PathBuf),
}

/// Everything that a [`crate::LinuxHost`] needs to know. Shims get a copy, so it is plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxOptions {
    /// Tells several daemons on one machine apart: root of our cgroups, part of marks on links and the name of our
    /// nftables table. See [`instance_name`].
    pub instance: String,
    /// Files that must not outlive a boot: sandboxes' marks, pinned namespaces, locks.
    pub run_dir: PathBuf,
    /// Files that do: images, writable layers, volumes on disk.
    pub state_dir: PathBuf,
    /// Where the cgroup hierarchies are mounted, `/sys/fs/cgroup`.
    pub cgroup_root: PathBuf,
    /// The program with the helpers, started as `PROGRAM __shim …`, `PROGRAM __exec …`: `reddwarf-shim`, or the daemon's own.
    pub helpers: PathBuf,
    /// What creates containers.
    pub runtime: Runtime,
    /// Bridge of the pod network.
    pub bridge: String,
    /// Paths of the host that pods may mount lie at or below one of these.
    #[serde(default)]
    pub host_path_allow: Vec<PathBuf>,
    /// Extra sources for `sparse` root file systems; empty for the host's own `/usr`.
    pub sparse_usr: Option<PathBuf>,
    /// Public keys, one of which must have signed a `.zar` that is imported; none: any is taken.
    #[serde(default)]
    pub zar_keys: Vec<String>,
    /// How registries are spoken with; no affair of shims.
    #[serde(skip)]
    pub registries: RegistryOptions,
    /// Profiles of system calls for containers that name one ([`reddwarf_host::spec::Seccomp::Localhost`]).
    #[serde(default)]
    pub seccomp_dir: PathBuf,
}

impl LinuxOptions {
    /// Options for the given directories and otherwise defaults.
    pub fn new(run_dir: impl Into<PathBuf>, state_dir: impl Into<PathBuf>, helpers: impl Into<PathBuf>) -> Self {
        let (run_dir, state_dir) = (run_dir.into(), state_dir.into());
        Self {
            instance: instance_name(&run_dir),
            seccomp_dir: state_dir.join("seccomp"),
            run_dir,
            state_dir,
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            helpers: helpers.into(),
            runtime: Runtime::Libcontainer,
            bridge: "reddwarf0".to_owned(),
            host_path_allow: Vec::new(),
            sparse_usr: None,
            zar_keys: Vec::new(),
            registries: RegistryOptions::default(),
        }
    }
}

/// The instance's name: `reddwarf` for the default run directory, else `reddwarf-` and 8 hexadecimal digits of the
/// path's SHA-256, so that daemons with different run directories never see each other's things.
pub fn instance_name(run_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    if run_dir == Path::new(DEFAULT_RUN_DIR) {
        return "reddwarf".to_owned();
    }
    let digest = Sha256::digest(run_dir.as_os_str().as_bytes());
    let short = reddwarf_host::hex(digest.get(..4).unwrap_or_default());
    format!("reddwarf-{short}")
}
