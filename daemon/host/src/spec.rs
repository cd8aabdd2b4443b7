//! What is asked of a host. Every value here is final: nothing is left for the host to choose.
//!
//! A host keeps the specs it applied as its mark (files in the run directory, zone attributes) and gives them back
//! in observations, so that the planner compares field by field and a lost database costs nothing.

pub use crate::signal::{Signal, UnknownSignal};
pub use crate::termination::TerminationMessage;

use crate::names::{Brand, ContainerName, ImageId, PodUid, SandboxId, VolumeName};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The pod that a sandbox belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Pod uid: tells a pod from its namesake of yesterday.
    pub uid: PodUid,
}

/// Bytes that must never show in logs, plans or errors.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sensitive<T>(T);

impl<T> Sensitive<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }
    /// The value itself; callers take care where it goes.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// One sandbox: a zone on illumos, a set of namespaces with a cgroup and an address on Linux.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Its name on the host.
    pub id: SandboxId,
    /// The pod it is for.
    pub pod: PodIdentity,
    /// How it is made.
    pub brand: Brand,
    /// The host name inside.
    pub hostname: String,
    /// Its network.
    pub network: SandboxNetwork,
    /// `/etc/resolv.conf` inside.
    pub dns: ResolvConf,
    /// Further lines of `/etc/hosts` inside, after the standard ones. One of the sandbox's own address takes the place
    /// of its standard line.
    pub hosts: Vec<HostsEntry>,
    /// Limits for the whole pod.
    pub resources: Resources,
    /// Containers see one another's processes, and a small process of the host's is the first one.
    #[serde(default)]
    pub share_processes: bool,
    /// The host's own System V IPC and /dev/shm instead of the sandbox's.
    #[serde(default)]
    pub host_ipc: bool,
    /// Kernel settings of the sandbox's own namespaces, dotted names (sysctl(8)) to values.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Group that owns the sandbox's volumes, host paths aside.
    #[serde(default)]
    pub fs_group: Option<FsGroup>,
    /// Users and groups inside are none of the host's: 0 to 65535 inside is a range that only this sandbox has. Volumes and
    /// images look inside as they are on the host.
    #[serde(default)]
    pub own_users: bool,
    /// The pod asked for nothing and gets what others leave: all sandboxes like it together weigh no more than one. Where a
    /// sandbox is for that is settled when it is made; specs of earlier versions don't tell.
    #[serde(default)]
    pub best_effort: bool,
    /// Of brands that are virtual machines: what the pod says of its machine, by the brand's own words (`bootdisk`, `vnc`, …).
    #[serde(default)]
    pub machine: BTreeMap<String, String>,
    /// ZFS datasets of the host's that the pod administers itself, by name; each says on itself whose it is to have. Hosts without
    /// zones refuse them.
    #[serde(default)]
    pub datasets: BTreeSet<String>,
    /// The sandbox's volumes; containers mount them by name.
    pub volumes: BTreeMap<VolumeName, VolumeSpec>,
}

/// A group that owns volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsGroup {
    /// Group id inside.
    pub gid: u32,
    /// When what is in a volume already is given to it.
    pub change: FsGroupChange,
}

/// When the content of a volume that is there already changes hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FsGroupChange {
    /// Whenever the sandbox comes up.
    Always,
    /// When the volume's root has another owner or other permissions than it should.
    OnRootMismatch,
}

/// How a sandbox is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SandboxNetwork {
    /// An address of its own on our bridge or etherstub.
    Pod {
        /// Address with the pod network's prefix length.
        address: IpNet,
        /// Default router.
        gateway: IpAddr,
        /// The address of the other family, where pods have both.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        second: Option<PodAddress>,
    },
    /// The host's own network (`hostNetwork: true`).
    Host,
}

/// An address of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodAddress {
    /// Address with the pod network's prefix length.
    pub address: IpNet,
    /// Default router.
    pub gateway: IpAddr,
}

impl SandboxNetwork {
    /// Its own addresses, the main one first; none on the host's network.
    pub fn addresses(&self) -> Vec<PodAddress> {
        match self {
            Self::Pod { address, gateway, second } => {
                std::iter::once(PodAddress { address: *address, gateway: *gateway }).chain(*second).collect()
            }
            Self::Host => Vec::new(),
        }
    }

    /// The same without prefix lengths.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.addresses().iter().map(|a| a.address.addr()).collect()
    }
}

/// resolv.conf(5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvConf {
    /// Name servers in order.
    pub nameservers: Vec<IpAddr>,
    /// Search domains in order.
    pub searches: Vec<String>,
    /// Options such as `ndots:5`.
    pub options: Vec<String>,
}

/// One line of hosts(5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsEntry {
    /// The address.
    pub ip: IpAddr,
    /// Its names.
    pub names: Vec<String>,
}

/// Limits and weights. `None` means "not limited".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Guaranteed share under contention, in thousandths of a CPU (requests.cpu).
    pub cpu_request_millis: Option<u64>,
    /// Hard limit in thousandths of a CPU (limits.cpu).
    pub cpu_limit_millis: Option<u64>,
    /// Hard limit in bytes (limits.memory).
    pub memory_limit_bytes: Option<u64>,
    /// Most processes and threads.
    pub pids_limit: Option<u64>,
    /// Huge pages of 2 MiB, in bytes.
    #[serde(default)]
    pub huge_pages_2mi_bytes: Option<u64>,
    /// The same for pages of 1 GiB.
    #[serde(default)]
    pub huge_pages_1gi_bytes: Option<u64>,
}

/// A directory tree that containers of one sandbox share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VolumeSpec {
    /// Empty at first, gone with the sandbox.
    EmptyDir {
        /// On memory (tmpfs) instead of disk.
        memory: bool,
        /// Most bytes. Enforced at once on memory; on disk by whoever watches what it takes.
        size_limit_bytes: Option<u64>,
    },
    /// Files given by content (ConfigMap, Secret, downward API, tokens). Updated as a whole, atomically, by
    /// `volume_update`. Containers can't write to them, whatever their mount says.
    Files {
        /// Relative path (no `..`, no leading `/`, not beginning with `..`) to content.
        files: BTreeMap<String, FileContent>,
        /// Kept in memory, never on disk.
        secret: bool,
    },
    /// A path of the host. It must lie below a directory that the host's own settings allow; from there no symlink is
    /// followed. Looked up and checked each time that a container mounts it, and mounted as what was checked.
    HostPath {
        /// Absolute path on the host.
        path: PathBuf,
        /// What must be there.
        kind: HostPathKind,
    },
    /// The data of a dataset of the host's storage engine ([`crate::StorageEngine::data`]), which outlives the sandbox.
    /// It must be there: a sandbox never makes or removes it.
    Persistent {
        /// Absolute path on the host.
        path: PathBuf,
    },
}

/// hostPath's `type` (Kubernetes API, HostPathVolumeSource).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPathKind {
    /// No check ("").
    Any,
    /// Make a directory (0755) when nothing is there.
    DirectoryOrCreate,
    /// Must be a directory.
    Directory,
    /// Make an empty file (0644) when nothing is there.
    FileOrCreate,
    /// Must be a regular file.
    File,
    /// Must be a socket.
    Socket,
    /// Must be a character device.
    CharDevice,
    /// Must be a block device.
    BlockDevice,
}

/// One file of a [`VolumeSpec::Files`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileContent {
    /// The bytes; text is stored as text, which is much shorter in the mark than a list of numbers.
    #[serde(with = "text_or_list")]
    pub bytes: Sensitive<Vec<u8>>,
    /// Permission bits, e.g. `0o644`.
    pub mode: u32,
    /// The user who owns it; root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
}

/// Bytes as a string where they are UTF-8, else as a list of numbers; both are read.
mod text_or_list {
    use super::Sensitive;
    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserializer, Serialize, Serializer};
    use std::fmt;

    pub(super) fn serialize<S: Serializer>(bytes: &Sensitive<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes.expose()) {
            Ok(text) => to.serialize_str(text),
            Err(_) => bytes.expose().serialize(to),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Sensitive<Vec<u8>>, D::Error> {
        from.deserialize_any(Either).map(Sensitive::new)
    }

    struct Either;

    impl<'de> Visitor<'de> for Either {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a list of bytes")
        }

        fn visit_str<E>(self, text: &str) -> Result<Vec<u8>, E> {
            Ok(text.as_bytes().to_vec())
        }

        fn visit_string<E>(self, text: String) -> Result<Vec<u8>, E> {
            Ok(text.into_bytes())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = list.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}

/// One container: its process and what it sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Name within the sandbox.
    pub name: ContainerName,
    /// Which start of this container this is, from 0: `restartCount` of the pod's status.
    pub attempt: u32,
    /// The back-off that was waited before this start: the next one is computed from it.
    pub backoff: Duration,
    /// Init container (runs to completion, in order) or main container.
    pub role: ContainerRole,
    /// Root file system.
    pub image: ContainerImage,
    /// The image as the user wrote it, for status.
    pub image_name: String,
    /// Program and arguments, complete; never empty.
    pub argv: Vec<String>,
    /// The whole environment, in order.
    pub env: Vec<EnvVar>,
    /// The part of `env` that tells of services, as it was at the start: services come and go while it runs. For the
    /// planner; a host only keeps it.
    #[serde(default)]
    pub service_env: Vec<EnvVar>,
    /// What the references among its variables led to when it started: they lead there for as long as it runs. `None`: a
    /// version made it that did not keep them. For the planner; a host only keeps it.
    #[serde(default)]
    pub references: Option<References>,
    /// Variables that are read from files of volumes when it starts; they win over `env`.
    #[serde(default)]
    pub env_files: Vec<EnvFile>,
    /// Working directory inside; `/` when neither pod nor image says.
    pub working_dir: String,
    /// Who runs it.
    pub user: UserSpec,
    /// Volumes mounted inside.
    pub mounts: Vec<MountSpec>,
    /// Limits of this container.
    pub resources: Resources,
    /// What it may do.
    pub security: Security,
    /// How readily the kernel kills it for want of memory, -1000 to 1000 (proc_pid_oom_score_adj(5)); `None`: as the
    /// host's own. A host that may not go that low goes as low as it may.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// A terminal for its standard streams.
    pub tty: bool,
    /// Keep standard input open.
    pub stdin: bool,
    /// Standard input ends with the first client that attached to it.
    #[serde(default)]
    pub stdin_once: bool,
    /// Whose processes it sees.
    #[serde(default)]
    pub processes: ProcessView,
    /// Signal that asks it to stop, e.g. `SIGTERM`.
    pub stop_signal: Signal,
    /// Where its output goes.
    pub log: LogSpec,
    /// Its last words: they are the message of its end.
    #[serde(default)]
    pub termination_message: TerminationMessage,
    /// Changes when a restart is asked for by hand; otherwise meaningless.
    pub restart_token: String,
    /// What is done beside its process when it starts and before it stops. The node runs hooks; a host only remembers
    /// them, so that they are known when the pod's object is not.
    #[serde(default)]
    pub lifecycle: Lifecycle,
}

/// What references led to, by the reference as it is declared: the variables that it made, `None` where it was optional and
/// led nowhere.
pub type References = BTreeMap<String, Option<Vec<EnvVar>>>;

/// A container's hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// At once after its process started; it counts as running when this is done.
    pub post_start: Option<Hook>,
    /// Before its stop signal, within the grace.
    pub pre_stop: Option<Hook>,
}

/// What a hook does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hook {
    /// Runs a command in the container.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Sends a request from the host's network.
    HttpGet(HttpGet),
    /// Waits.
    Sleep {
        /// How long.
        time: Duration,
    },
    /// A kind that can't be carried out and always fails (`tcpSocket`, as in the reference).
    Unsupported {
        /// Which.
        kind: String,
    },
}

/// An HTTP GET to a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpGet {
    /// TLS, whatever certificate is shown.
    pub tls: bool,
    /// Where; `None`: the pod's own address.
    pub host: Option<String>,
    /// Which port.
    pub port: HookPort,
    /// Path and query.
    pub path: String,
    /// Further headers, in order; they may hold credentials.
    pub headers: Vec<(String, Sensitive<String>)>,
}

/// A port, by number or by a name that the container does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookPort {
    /// The port.
    Number(u16),
    /// A name that leads nowhere: whoever needs the port fails.
    Missing(String),
}

/// Whose processes a container sees (its PID namespace).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProcessView {
    /// Its own only.
    #[default]
    Own,
    /// The host's (`hostPID: true`).
    Host,
    /// Those of all containers of the sandbox, which is made with [`SandboxSpec::share_processes`].
    Sandbox,
    /// Those of another container of the sandbox, which must run when this one starts; ends with it.
    Container(ContainerName),
}

/// When a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerRole {
    /// Before the main containers, one after another.
    Init,
    /// With the other main containers.
    Main,
    /// Added to a running sandbox for a look inside; never started again.
    Ephemeral,
}

/// Where a container's root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerImage {
    /// What the brand brings along (`sparse`: the host's own /usr, read-only).
    Brand,
    /// An image of the host's image store.
    Image {
        /// By content.
        id: ImageId,
    },
}

/// One variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value; may come from a Secret.
    pub value: Sensitive<String>,
}

/// A variable that is read from a file of a volume at the start: a line `KEY=value` (Kubernetes: `fileKeyRef`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvFile {
    /// Name of the variable.
    pub name: String,
    /// Which volume.
    pub volume: VolumeName,
    /// The file in it; no `..`.
    pub path: String,
    /// The key in the file.
    pub key: String,
    /// File or key may be absent: then there is no such variable.
    pub optional: bool,
}

/// Who runs a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UserSpec {
    /// By number.
    Ids {
        /// User id.
        uid: u32,
        /// Primary group id.
        gid: u32,
        /// Further groups.
        groups: Vec<u32>,
    },
    /// By name, as images say it (`user`, `user:group`, `1000`, …): looked up in the root file system's own
    /// /etc/passwd and /etc/group.
    Named {
        /// The image's text.
        user: String,
        /// Further groups.
        groups: Vec<u32>,
    },
}

/// One mount of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Which volume.
    pub volume: VolumeName,
    /// Absolute path inside.
    pub target: String,
    /// Path within the volume, `""` for all of it; no `..`.
    pub sub_path: String,
    /// Not writable inside.
    pub read_only: bool,
    /// What lies below it and is mounted itself is not writable either. Absent in specs of earlier versions.
    #[serde(default)]
    pub recursive_read_only: Option<RecursiveReadOnly>,
    /// Whether mounts that are made later pass through it. Absent in specs of earlier versions.
    #[serde(default)]
    pub propagation: Option<Propagation>,
}

/// Whether a read-only mount makes the mounts below it read-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RecursiveReadOnly {
    /// Mounts below keep their own mode.
    #[default]
    Disabled,
    /// As far as the host can.
    IfPossible,
    /// A host that can't refuses (`Unsupported`).
    Enabled,
}

/// Whether mounts that are made after a container's start pass through a volume's mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Propagation {
    /// Neither way.
    #[default]
    None,
    /// What the host mounts there shows inside.
    HostToContainer,
    /// And what the container mounts there shows on the host.
    Bidirectional,
}

/// What a process may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// All capabilities and devices, nothing masked.
    pub privileged: bool,
    /// Root file system not writable.
    pub read_only_root: bool,
    /// Whether a setuid binary may gain privileges (no_new_privs off).
    pub allow_privilege_escalation: bool,
    /// Capabilities beyond the OCI default set, without `CAP_`.
    pub cap_add: Vec<String>,
    /// Capabilities taken away, without `CAP_`; `ALL` for all.
    pub cap_drop: Vec<String>,
    /// Which system calls it may make; `None`: all of them, as with versions that knew no filters.
    #[serde(default)]
    pub seccomp: Option<Seccomp>,
    /// Only the groups that are named, without those that the image's /etc/group gives the user.
    #[serde(default)]
    pub strict_groups: bool,
    /// Nothing of /proc is masked or read-only.
    #[serde(default)]
    pub unmasked_proc: bool,
}

/// Which system calls a process may make (seccomp(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seccomp {
    /// The host's own choice: what ordinary programs need.
    RuntimeDefault,
    /// As a file says: a relative path within the host's directory of profiles.
    Localhost(String),
    /// All.
    Unconfined,
}

/// Where a container's output goes: the CRI log format
/// (`RFC3339Nano stdout|stderr F|P text`), rotated by size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// The current file; rotated ones get `.1`, `.2`, … appended.
    pub path: PathBuf,
    /// Rotate past this many bytes.
    pub max_bytes: u64,
    /// Files kept, the current one included.
    pub max_files: u32,
}

impl LogSpec {
    /// All files that it may have become, the current one first.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let rotated = |number| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        std::iter::once(self.path.clone()).chain((1..self.max_files).map(rotated))
    }
}

/// The host's pod network, one value for the whole host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Bridge or etherstub name.
    pub link: String,
    /// The pod network.
    pub cidr: IpNet,
    /// The host's own address in it.
    pub gateway: IpAddr,
    /// The network of the other family, where pods have addresses of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Subnet>,
    /// Hide pod addresses behind the host's when they leave the pod network.
    pub masquerade: bool,
}

/// Addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// The network.
    pub cidr: IpNet,
    /// The host's own address in it.
    pub gateway: IpAddr,
}

impl Subnet {
    /// A network whose first host address is the host's own; its only one for /32 and /128. The lowest address of an IPv6
    /// network is no host's but means any of its routers (RFC 4291, 2.6.1), except where there are but two (RFC 6164).
    pub fn of(cidr: IpNet) -> Self {
        let anycast = matches!(cidr, IpNet::V6(v6) if v6.prefix_len() < 127);
        let gateway = cidr.hosts().nth(usize::from(anycast)).unwrap_or_else(|| cidr.network());
        Self { cidr, gateway }
    }
}

impl NetworkSpec {
    /// One network, or one of each family, the main one first.
    pub fn subnets(&self) -> Vec<Subnet> {
        std::iter::once(Subnet { cidr: self.cidr, gateway: self.gateway }).chain(self.second).collect()
    }

    /// What is contradictory about its addresses; `None` when nothing is.
    pub fn problem(&self) -> Option<String> {
        if let Some(other) = self.subnets().iter().find(|s| !s.cidr.contains(&s.gateway)) {
            return Some(format!("the gateway {} lies outside of the pod network {}", other.gateway, other.cidr));
        }
        let second = self.second.filter(|s| s.cidr.addr().is_ipv4() == self.cidr.addr().is_ipv4())?;
        Some(format!("the pod networks {} and {} are of one family", self.cidr, second.cidr))
    }
}
