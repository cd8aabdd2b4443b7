//! What is wanted of this host.

use crate::key::PodKey;
use crate::settings::NodeSettings;
use crate::tokens::Tokens;
use reddwarf_host::spec::Sensitive;
use reddwarf_host::{Brand, PodUid};
use reddwarf_objects::pod::{Container, Phase, Pod, PodStatus};
use reddwarf_objects::{Object, ObjectError, SOURCE_ANNOTATION};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Everything that is wanted at one moment.
#[derive(Clone, Debug)]
pub struct Desired {
    /// All sources of pods were read: a pod that is not here is not wanted. Until then nothing is collected.
    pub complete: bool,
    /// All pods are to be stopped where they are: nothing is started, nothing else changed.
    pub halted: bool,
    /// The pods.
    pub pods: BTreeMap<PodKey, Arc<PodIntent>>,
    /// What they may refer to.
    pub config: ConfigData,
    /// The tokens of their accounts.
    pub tokens: Tokens,
    /// How this node is set up.
    pub settings: Arc<NodeSettings>,
    /// What this host is.
    pub host: HostFacts,
}

/// The part of the host's description that pods can see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The host's main address.
    pub ip: Option<IpAddr>,
    /// CPU for pods, in thousandths.
    pub cpu_millis: u64,
    /// Memory for pods, in bytes.
    pub memory_bytes: u64,
    /// Disk for pods, in bytes.
    pub storage_bytes: u64,
    /// Brands that can be made here.
    pub brands: Vec<Brand>,
}

/// What pods may refer to, by (namespace, name). ConfigMaps and Secrets are both kept from view: a ConfigMap may well
/// hold what should have been a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigData {
    /// ConfigMaps: `data` and `binaryData`.
    pub config_maps: BTreeMap<(String, String), Arc<ConfigBytes>>,
    /// Secrets: `data`, decoded.
    pub secrets: BTreeMap<(String, String), Arc<ConfigBytes>>,
    /// Services that have an address: variables tell containers of them.
    pub services: BTreeMap<(String, String), Arc<ServiceFacts>>,
    /// ServiceAccounts: whether their pods get a token, where they say.
    pub accounts: BTreeMap<(String, String), Option<bool>>,
    /// PersistentVolumeClaims.
    pub claims: BTreeMap<(String, String), ClaimFacts>,
    /// PersistentVolumes by name.
    pub volumes: BTreeMap<String, VolumeFacts>,
}

/// What a pod's volume needs of a PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimFacts {
    /// Its uid.
    pub uid: String,
    /// The volume that it is bound to; `None` while it is not.
    pub volume: Option<String>,
    /// The uids of its owners: the pod that it was made for.
    pub owners: Vec<String>,
    /// It is to go: no new pod may use it.
    pub leaving: bool,
    /// A block device instead of files.
    pub block: bool,
    /// For one pod at a time (`ReadWriteOncePod`).
    pub one_pod: bool,
}

/// What a pod's volume needs of a PersistentVolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFacts {
    /// The claim that has it, by namespace, name and uid.
    pub claim: Option<(String, String, String)>,
    /// Where it is.
    pub source: VolumeSource,
    /// Nobody may write to it.
    pub read_only: bool,
    /// How it is to be mounted (`mountOptions`).
    pub mount_options: Vec<String>,
}

/// Where a PersistentVolume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    /// In this host's storage, by its handle there.
    Storage(String),
    /// A directory of the host (`local`).
    Local(String),
    /// A path of the host (`hostPath`).
    HostPath(reddwarf_objects::pod::HostPath),
    /// Something that can't be mounted here, by the field that says so.
    Other(String),
}

/// What variables tell of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Its cluster address.
    pub address: IpAddr,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; may be empty.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Its number.
    pub port: u16,
}

/// The keys of one ConfigMap or Secret.
pub type ConfigBytes = BTreeMap<String, Sensitive<Vec<u8>>>;

/// One pod that is wanted, or that is wanted gone.
#[derive(Clone, Debug, PartialEq)]
pub struct PodIntent {
    /// Namespace and name.
    pub key: PodKey,
    /// Its uid.
    pub uid: PodUid,
    /// As the node reads it.
    pub pod: Pod,
    /// What events and finalizers need of it as it stands in the registry: no spec, no status, no managedFields.
    pub object: Arc<Object>,
    /// The file that declares it; `None`: made through the API.
    pub source: Option<String>,
    /// Deletion was asked for, with this grace.
    pub deleting: Option<Duration>,
    /// It ran to its end (phase Succeeded or Failed) and was not changed since.
    pub finished: bool,
    /// What its status says about earlier runs, for when the host knows nothing (after a reboot).
    pub history: BTreeMap<String, LastKnown>,
    /// Its status as last written.
    pub status: PodStatus,
}

/// A container as the pod's status has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastKnown {
    /// How often it was started again.
    pub restarts: u32,
    /// Its exit code, when it had ended.
    pub exit: Option<i32>,
}

/// Why an object can't be a pod of this node.
#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    /// The object is no pod.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// It bears no usable uid.
    #[error("pod {pod}: {source}")]
    Uid {
        /// Which.
        pod: PodKey,
        /// Why.
        source: reddwarf_host::NameError,
    },
}

impl PodIntent {
    /// Reads a pod object.
    ///
    /// # Errors
    /// [`IntentError`]; a registry hands out none such.
    pub fn from_object(mut object: Object) -> Result<Self, IntentError> {
        let pod = Pod::from_object(&object)?;
        let key = PodKey::new(&pod.metadata.namespace, &pod.metadata.name);
        let uid = PodUid::new(&pod.metadata.uid).map_err(|source| IntentError::Uid { pod: key.clone(), source })?;
        let status = PodStatus::from_object(&object);
        let own_grace = pod.spec.termination_grace_period_seconds;
        let deleting = pod
            .metadata
            .deletion_timestamp
            .map(|_| seconds(pod.metadata.deletion_grace_period_seconds.unwrap_or(own_grace)));
        let finished = matches!(status.phase, Phase::Succeeded | Phase::Failed)
            && status.observed_generation.is_none_or(|seen| Some(seen) == pod.metadata.generation);
        let history = status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .chain(&status.ephemeral_container_statuses)
            .filter(|c| c.state.running.is_some() || c.state.terminated.is_some() || c.last_state.terminated.is_some())
            .map(|c| {
                let exit = c.state.terminated.as_ref().map(|t| t.exit_code);
                (c.name.clone(), LastKnown { restarts: c.restart_count, exit })
            })
            .collect();
        let source = object.annotation(SOURCE_ANNOTATION).map(str::to_owned);
        // Kept as long as the pod is, once for each: these are most of it.
        for part in ["/spec", "/status", "/metadata/managedFields"] {
            object.remove(part);
        }
        Ok(Self { key, uid, pod, object: Arc::new(object), source, deleting, finished, history, status })
    }

    /// A main container or sidecar by its name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        let spec = &self.pod.spec;
        spec.containers.iter().chain(&spec.init_containers).find(|c| c.name == name)
    }

    /// The time between TERM and KILL.
    pub fn grace(&self) -> Duration {
        self.deleting.unwrap_or_else(|| seconds(self.pod.spec.termination_grace_period_seconds))
    }
}

/// Seconds of the API as a duration; negative ones are none, absurd ones a year.
/// A negative grace counts as one second, as in the reference.
fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(1).min(365 * 24 * 3600))
}
