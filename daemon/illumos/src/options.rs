//! What an illumos host is made with.

use reddwarf_command::Tools;
use reddwarf_pull::RegistryOptions;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The run directory of the daemon that the service's manifest starts.
pub const DEFAULT_RUN_DIR: &str = "/var/run/reddwarf";

/// Everything that an [`IllumosHost`](crate::IllumosHost) needs to know.
#[derive(Clone, Debug)]
pub struct IllumosOptions {
    /// Tells several daemons on one machine apart: value of our marks. See [`instance_name`].
    pub instance: String,
    /// Files that must not outlive a boot: containers' records, locks, sockets.
    pub run_dir: PathBuf,
    /// Files that do: sandboxes' marks; below it our datasets are mounted.
    pub state_dir: PathBuf,
    /// Our own program, which is also the supervisor and, inside of zones, the starter.
    pub self_exe: PathBuf,
    /// The dataset below which everything of ours lies, e.g. `rpool/reddwarf-zones`; made when it is not there.
    pub dataset: String,
    /// The global zone's own link on the pod network's etherstub: the pods' default router.
    pub gateway_link: String,
    /// The NIC, aggregation or etherstub that pods' links and the gateway's are put on instead of an etherstub of ours.
    pub direct_link: Option<String>,
    /// VLAN of pods' links and the gateway's, 1 to 4094.
    pub vlan: Option<u16>,
    /// What balances connections to services.
    pub balancer: Balancer,
    /// Where brands are described, `/usr/lib/brand`.
    pub brand_dir: PathBuf,
    /// Paths of the host that pods may mount lie at or below one of these.
    pub host_path_allow: Vec<PathBuf>,
    /// How images are pulled.
    pub registries: RegistryOptions,
    /// Keys of which one must have signed a `.zar` archive (docs/zar.md); none: any archive is taken.
    pub zar_keys: Vec<String>,
    /// The system's tools.
    pub tools: Tools,
}

/// What balances connections to services among pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balancer {
    /// Redirections of ipnat(8).
    #[default]
    Ipnat,
    /// ILB, the integrated load balancer, for what it can do; ipnat for the rest.
    Ilb,
}

impl IllumosOptions {
    /// Options for the given directories and otherwise defaults.
    pub fn new(run_dir: impl Into<PathBuf>, state_dir: impl Into<PathBuf>, self_exe: impl Into<PathBuf>) -> Self {
        let run_dir = run_dir.into();
        let instance = instance_name(&run_dir);
        let gateway_link = gateway_link(&instance);
        Self {
            dataset: format!("rpool/{instance}-zones"),
            instance,
            run_dir,
            state_dir: state_dir.into(),
            self_exe: self_exe.into(),
            gateway_link,
            direct_link: None,
            vlan: None,
            balancer: Balancer::default(),
            brand_dir: PathBuf::from("/usr/lib/brand"),
            host_path_allow: Vec::new(),
            registries: RegistryOptions::default(),
            zar_keys: Vec::new(),
            tools: Tools::illumos(),
        }
    }

    /// With stand-ins for the system's tools, for tests. Brands are those below `brands` beside their directory.
    #[must_use]
    pub fn with_tools(mut self, tools: Tools, directory: &Path) -> Self {
        self.tools = tools;
        self.brand_dir = directory.parent().unwrap_or(directory).join("brands");
        self
    }
}

/// The instance's name: `reddwarf` for the default run directory, else `reddwarf-` and 8 hexadecimal digits of the
/// path's SHA-256, so that daemons with different run directories never see each other's things.
pub fn instance_name(run_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    if run_dir == Path::new(DEFAULT_RUN_DIR) || run_dir == Path::new("/run/reddwarf") {
        return "reddwarf".to_owned();
    }
    let digest = Sha256::digest(run_dir.as_os_str().as_bytes());
    let short = reddwarf_host::hex(digest.get(..4).unwrap_or_default());
    format!("reddwarf-{short}")
}

/// `rwgw0`, or for further daemons on the machine a name of their own: letters between, a number at its end (libdladm).
fn gateway_link(instance: &str) -> String {
    let own: String = match instance.strip_prefix("reddwarf-") {
        Some(digest) => digest.bytes().map(|b| char::from(b'a' + b % 26)).collect(),
        None => String::new(),
    };
    format!("rwgw{own}0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_host::LinkName;

    #[test]
    fn several_daemons_have_links_of_their_own() {
        let link = |run: &str| IllumosOptions::new(run, "/state", "/bin/reddwarf-shim").gateway_link;
        assert_eq!(link("/var/run/reddwarf"), "rwgw0");
        assert_ne!(link("/tmp/a"), link("/tmp/b"));
        assert!(LinkName::new(link("/tmp/a")).is_ok(), "{}", link("/tmp/a"));
    }
}
