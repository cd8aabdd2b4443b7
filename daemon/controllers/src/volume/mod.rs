//! PersistentVolumes and their claims (Kubernetes: "Persistent Volumes", "Storage Classes", "Dynamic Volume Provisioning").
//!
//! | file | what |
//! |---|---|
//! | `read.rs` | claims, volumes and classes as decisions need them |
//! | `decide.rs` | which volume a claim gets: pure |
//! | `claim.rs` | one claim: its class, its volume, growing, its protection |
//! | `persistent.rs` | one volume: whose it is, and what becomes of it when its claim is gone |
//! | `ephemeral.rs` | claims that are made for a pod and go with it |
//! | `pod.rs` | may a pod be placed, as far as its claims tell? For the scheduler |
//!
//! The host's part is behind [`Provisioner`]. Every step is written down before the next one and repeats safely: a volume is
//! named after its claim's uid, so a crash between making it and storing its object makes no second one. Data is destroyed
//! in one place, `persistent.rs`, and only when the volume's policy is Delete, its claim is gone from the store, and no other
//! volume or claim there has the same data.

mod claim;
mod decide;
mod ephemeral;
mod persistent;
mod pod;
mod read;

pub use decide::{Choice, Fit, best, fits};
pub use ephemeral::Ephemerals;
pub(crate) use pod::{placement, select};
pub use read::{Binding, Claim, Volume};

use crate::runtime::{Again, Change, Context, Controller, Detail, Failure, Id, Slim, View};
use async_trait::async_trait;
use reddwarf_objects::pod::Phase;
use reddwarf_objects::{Kind, kinds};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

/// The provisioner that storage classes name to have volumes of this host's storage.
pub const PROVISIONER: &str = "reddwarf.io/volumes";
/// The driver in the volumes that it makes (`spec.csi.driver`).
pub const DRIVER: &str = "volumes.reddwarf.io";

const NAME: &str = "persistentvolume-controller";
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// Keeps the object of a volume until the host's volume is dealt with.
const PROVISIONER_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// A volume to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its name: the same for the same claim.
    pub name: String,
    /// The claim's namespace.
    pub namespace: String,
    /// The claim's name.
    pub claim: String,
    /// The claim's uid.
    pub uid: String,
    /// At least so many bytes.
    pub bytes: u64,
    /// The class's parameters.
    pub parameters: BTreeMap<String, String>,
}

/// A volume that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provisioned {
    /// How the provisioner finds it again.
    pub handle: String,
    /// For people and other tools, in the volume's object.
    pub attributes: BTreeMap<String, String>,
}

/// Why the host's part failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProvisionError(pub String);

/// The host's part: volumes of its storage. Every call may be repeated, and is after a crash.
#[async_trait]
pub trait Provisioner: fmt::Debug + Send + Sync + 'static {
    /// The node that its volumes are on.
    fn node(&self) -> &str;

    /// Makes a volume, or finds the one that was made for the same request.
    ///
    /// # Errors
    /// Why not, for people.
    async fn provision(&self, request: &Request) -> Result<Provisioned, ProvisionError>;

    /// The claim that a volume was made for, as its marks say. `None`: there is no such volume.
    ///
    /// # Errors
    /// Why that can't be told, for people.
    async fn made_for(&self, handle: &str) -> Result<Option<Binding>, ProvisionError>;

    /// Destroys a volume and what is in it. Gone already is fine.
    ///
    /// # Errors
    /// Why not, for people.
    async fn destroy(&self, handle: &str) -> Result<(), ProvisionError>;

    /// Destroys a volume in which nothing is: no files, no snapshots. `false`: there is something in it, and it was left.
    ///
    /// # Errors
    /// Why not, for people.
    async fn destroy_unused(&self, handle: &str) -> Result<bool, ProvisionError>;

    /// Gives a volume room for so many bytes.
    ///
    /// # Errors
    /// Why not, for people.
    async fn resize(&self, handle: &str, bytes: u64) -> Result<(), ProvisionError>;
}

/// Binds claims to volumes and has volumes made and destroyed.
#[derive(Debug)]
pub struct Volumes {
    claims: &'static Kind,
    volumes: &'static Kind,
    classes: &'static Kind,
    pods: &'static Kind,
    provisioner: Option<Arc<dyn Provisioner>>,
    /// What was last said of a claim, with its uid: nothing is said twice because everything was looked at anew.
    said: Mutex<HashMap<Id, (String, String)>>,
}

impl Volumes {
    /// `None` only if the table of kinds lacks one that it needs.
    pub fn new(provisioner: Option<Arc<dyn Provisioner>>) -> Option<Self> {
        let by = |version, name| kinds().by_gvk(version, name);
        Some(Self {
            claims: by("v1", "PersistentVolumeClaim")?,
            volumes: by("v1", "PersistentVolume")?,
            classes: by("storage.k8s.io/v1", "StorageClass")?,
            pods: by("v1", "Pod")?,
            provisioner,
            said: Mutex::default(),
        })
    }

    /// Claims that have no volume yet.
    fn unbound<'v>(&self, view: &'v View) -> impl Iterator<Item = &'v Arc<Slim>> + use<'v> {
        view.list(self.claims, None).filter(|s| matches!(&s.detail, Detail::Claim(volume) if volume.is_empty()))
    }

    /// Pods that keep a claim: those that mount it and have not ended.
    fn users<'v>(&self, view: &'v View, claim: &'v Id) -> impl Iterator<Item = &'v Arc<Slim>> + use<'v> {
        view.list(self.pods, Some(&claim.namespace)).filter(move |s| {
            s.pod()
                .is_some_and(|p| !matches!(p.phase, Phase::Succeeded | Phase::Failed) && p.claims.contains(&claim.name))
        })
    }
}

/// Whether a list of names holds one.
trait Contains {
    fn contains(&self, name: &str) -> bool;
}

impl Contains for Arc<[Box<str>]> {
    fn contains(&self, name: &str) -> bool {
        self.iter().any(|n| &**n == name)
    }
}

#[async_trait]
impl Controller for Volumes {
    fn name(&self) -> &'static str {
        NAME
    }

    fn triggers(&self, view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(slim) = change.object() else { return };
        let id = &slim.id;
        if id.is("", "PersistentVolumeClaim") {
            add(id.clone());
            let of_claim = |s: &&Arc<Slim>| matches!(&s.detail, Detail::Volume(Some((ns, name))) if **ns == *id.namespace && **name == *id.name);
            view.list(self.volumes, None).filter(of_claim).for_each(|s| add(s.id.clone()));
        } else if id.is("", "PersistentVolume") {
            add(id.clone());
            for state in [&change.before, &change.after].into_iter().flatten() {
                if let Detail::Volume(Some((namespace, name))) = &state.detail {
                    add(Id::of(self.claims, namespace, name));
                }
            }
            let free = change.after.as_ref().is_some_and(|a| matches!(&a.detail, Detail::Volume(None)));
            let waits = |s: &&Arc<Slim>| match &s.detail {
                Detail::Claim(volume) => **volume == *id.name || (free && volume.is_empty()),
                _ => false,
            };
            view.list(self.claims, None).filter(waits).for_each(|s| add(s.id.clone()));
        } else if id.is("storage.k8s.io", "StorageClass") {
            self.unbound(view).for_each(|s| add(s.id.clone()));
        } else if id.is_pod() {
            let state = |s: &Arc<Slim>| s.pod().map(|p| (p.phase, p.node.clone()));
            let same = change.before.as_ref().zip(change.after.as_ref()).is_some_and(|(b, a)| state(b) == state(a));
            if !same {
                let claims = slim.pod().map(|p| p.claims.clone()).unwrap_or_default();
                claims.iter().for_each(|name| add(Id::of(self.claims, &id.namespace, name)));
            }
        }
    }

    async fn sync(&self, context: &Context, id: &Id) -> Result<Again, Failure> {
        if id.is("", "PersistentVolumeClaim") {
            self.sync_claim(context, id).await
        } else {
            self.sync_volume(context, id).await
        }
    }
}
