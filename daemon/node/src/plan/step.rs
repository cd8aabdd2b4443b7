//! Steps: host calls and promises, complete, each with its reason.

use crate::key::PodKey;
use crate::probe::Standing;
use reddwarf_host::spec::{ContainerSpec, NetworkSpec, Resources, SandboxNetwork, SandboxSpec, Signal, VolumeSpec};
use reddwarf_host::{BootTime, ContainerName, Leftover, Note, PodUid, SandboxId, VolumeName};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// One thing to do. Nothing in it is left to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make or repair the pod network.
    NetworkEnsure(NetworkSpec),
    /// Remove the pod network, which no pod needs.
    NetworkRemove,
    /// Remove something of ours that belongs to nothing.
    LeftoverRemove(Leftover),
    /// Promise durably: this pod exists on this host, with these addresses.
    Reserve {
        /// Which pod, for rebuilding and for people.
        pod: PodKey,
        /// The pod's uid: the holder.
        uid: PodUid,
        /// Its addresses, one of each family; none on the host's network.
        addresses: Vec<IpAddr>,
        /// Noted after the fact, from the host's marks, because the database lost it.
        rebuilt: bool,
    },
    /// Take the promise back. Planned only where absence was observed.
    Release {
        /// The holder.
        uid: PodUid,
        /// The address given back; `None`: all that the holder has.
        address: Option<IpAddr>,
    },
    /// Make, finish, start again or change in place.
    SandboxEnsure(Box<SandboxSpec>),
    /// Halt.
    SandboxStop(SandboxId),
    /// Remove.
    SandboxDestroy(SandboxId),
    /// Replace the files of a volume.
    VolumeUpdate {
        /// Where.
        sandbox: SandboxId,
        /// Which.
        volume: VolumeName,
        /// By what.
        spec: VolumeSpec,
    },
    /// Begin to fetch an image for a container, or to ask its registry for it. Done when it has begun.
    ImagePull {
        /// For which pod.
        pod: PodKey,
        /// Not its namesake.
        uid: PodUid,
        /// For which container.
        container: ContainerName,
        /// As the pod names it.
        image: String,
    },
    /// Start one instance.
    ContainerStart {
        /// Where.
        sandbox: SandboxId,
        /// What, the attempt included.
        spec: Box<ContainerSpec>,
    },
    /// Send a signal.
    ContainerSignal {
        /// Where.
        sandbox: SandboxId,
        /// Which.
        container: ContainerName,
        /// Which instance.
        attempt: u32,
        /// What.
        signal: Signal,
    },
    /// Note durably how far an instance has come.
    ContainerNote {
        /// Where.
        sandbox: SandboxId,
        /// Which.
        container: ContainerName,
        /// Which instance.
        attempt: u32,
        /// What.
        note: Note,
    },
    /// Change limits in place.
    ContainerUpdate {
        /// Where.
        sandbox: SandboxId,
        /// Which.
        container: ContainerName,
        /// Which instance.
        attempt: u32,
        /// To what.
        resources: Resources,
    },
    /// Forget an exited instance.
    ContainerRemove {
        /// Where.
        sandbox: SandboxId,
        /// Which.
        container: ContainerName,
        /// Which instance.
        attempt: u32,
    },
    /// Tell the registry that nothing is left of a deleted pod.
    FinishDelete {
        /// Which pod.
        pod: PodKey,
        /// Not its namesake.
        uid: PodUid,
    },
}

/// How a step shows in `reddwarfctl plan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// `-` something goes.
    Remove,
    /// `-/+` something running is replaced.
    Replace,
    /// `~` a container is stopped and started again, in the sandbox that it has.
    Restart,
    /// `~` changed in place.
    Change,
    /// `+` something new.
    Create,
}

impl Effect {
    /// The sign in front of a plan's line.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Remove => "-",
            Self::Replace => "-/+",
            Self::Restart | Self::Change => "~",
            Self::Create => "+",
        }
    }
}

/// One step with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// For which pod; `None` for the host as a whole.
    pub pod: Option<PodKey>,
    /// What to do.
    pub op: Op,
    /// How it shows.
    pub effect: Effect,
    /// Why, in words.
    pub reason: String,
    /// The field that caused it, as a path in the pod (`spec.containers[0].image`); `None` when no field did.
    pub field: Option<String>,
}

fn words(all: impl Iterator<Item = impl fmt::Display>) -> String {
    all.map(|one| one.to_string()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Op {
    /// One line without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkEnsure(n) => {
                let subnets = n.subnets().into_iter().map(|s| format!("{} gateway {}", s.cidr, s.gateway));
                write!(f, "ensure network {} {}", n.link, words(subnets))
            }
            Self::NetworkRemove => f.write_str("remove the pod network"),
            Self::LeftoverRemove(l) => write!(f, "remove left-over {} {}", l.kind, l.name),
            Self::Reserve { uid, addresses, .. } if addresses.is_empty() => {
                write!(f, "reserve host network for {uid}")
            }
            Self::Reserve { uid, addresses, .. } => write!(f, "reserve {} for {uid}", words(addresses.iter())),
            Self::Release { uid, address: Some(a) } => write!(f, "release {a} of {uid}"),
            Self::Release { uid, address: None } => write!(f, "release all of {uid}"),
            Self::SandboxEnsure(s) => match &s.network {
                SandboxNetwork::Pod { .. } => {
                    let addresses = s.network.addresses().into_iter().map(|a| a.address);
                    write!(f, "ensure sandbox {} ({}, {})", s.id, s.brand, words(addresses))
                }
                SandboxNetwork::Host => write!(f, "ensure sandbox {} ({}, host network)", s.id, s.brand),
            },
            Self::SandboxStop(id) => write!(f, "stop sandbox {id}"),
            Self::SandboxDestroy(id) => write!(f, "destroy sandbox {id}"),
            Self::VolumeUpdate { sandbox, volume, .. } => write!(f, "update volume {volume} of {sandbox}"),
            Self::ImagePull { container, image, .. } => write!(f, "pull image {image} for container {container}"),
            Self::ContainerStart { sandbox, spec } => {
                write!(f, "start container {} #{} in {sandbox}", spec.name, spec.attempt)
            }
            Self::ContainerSignal { sandbox, container, attempt, signal } => {
                write!(f, "signal container {container} #{attempt} in {sandbox} with {signal}")
            }
            Self::ContainerNote { sandbox, container, attempt, note: Note::Started } => {
                write!(f, "note that container {container} #{attempt} in {sandbox} is started")
            }
            Self::ContainerNote { sandbox, container, attempt, note: Note::Stopping { grace, .. } } => {
                write!(f, "begin to stop container {container} #{attempt} in {sandbox} ({} s)", grace.as_secs())
            }
            Self::ContainerUpdate { sandbox, container, attempt, .. } => {
                write!(f, "update limits of container {container} #{attempt} in {sandbox}")
            }
            Self::ContainerRemove { sandbox, container, attempt } => {
                write!(f, "remove container {container} #{attempt} in {sandbox}")
            }
            Self::FinishDelete { pod, uid } => write!(f, "finish deletion of {pod} ({uid})"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.effect.sign(), self.op, self.reason)?;
        if let Some(field) = &self.field {
            write!(f, " [{field}]")?;
        }
        Ok(())
    }
}

/// What is to be done now, and what is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order: the host's own first, then pod by pod.
    pub steps: Vec<Step>,
    /// How each pod stands, wanted or not.
    pub pods: BTreeMap<PodKey, Outlook>,
    /// What keeps the host as a whole from being as asked.
    pub host: Vec<Notice>,
    /// Plan again at this moment at the latest, even if nothing happens.
    pub wake: Option<BootTime>,
}

/// How a pod stands after its steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// What keeps it from being as asked, most important first.
    pub notices: Vec<Notice>,
    /// Why a container does not run, by its name.
    pub waiting: BTreeMap<ContainerName, Notice>,
    /// How the running instances of the pod's own sandbox stand, by container.
    pub standing: BTreeMap<ContainerName, Standing>,
    /// Look again at this moment.
    pub wake: Option<BootTime>,
    /// It has run to its end: nothing of it is to be started again.
    pub ended: bool,
    /// Why it has failed as a whole, whatever its containers say: `Lost` (it ran under restartPolicy Never and its
    /// sandbox vanished), `DeadlineExceeded`, `Evicted`. Becomes the status's reason and message once nothing runs.
    pub failed: Option<Notice>,
    /// Why this node refuses it for good: it has failed before anything of it was made.
    pub rejected: Option<Notice>,
    /// A change of a running pod's resources that is not carried out (yet).
    pub resize: Option<Resize>,
    /// Worth an event, though it keeps the pod from nothing.
    pub advice: Vec<Notice>,
}

/// How a change of a running pod's resources stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resize {
    /// The machine is too small for it, ever.
    Infeasible(String),
    /// There is no room for it now.
    Deferred(String),
    /// Being carried out; what went wrong the last time, if something did.
    InProgress(Option<String>),
}

impl Resize {
    /// It waits: what runs keeps what it has.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Infeasible(_) | Self::Deferred(_))
    }
}

/// A visible reason: a condition's or a waiting container's `reason` and `message`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Notice {
    /// One word in camel case, as Kubernetes has it (`CreateContainerConfigError`).
    pub reason: String,
    /// What, where, how to mend.
    pub message: String,
    /// The field concerned, if one is.
    pub field: Option<String>,
}

impl Notice {
    /// A notice about no field in particular.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), field: None }
    }

    /// The same about a field.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)?;
        if let Some(field) = &self.field {
            write!(f, " [{field}]")?;
        }
        Ok(())
    }
}
