//! Claims and volumes as decisions need them.

use super::{BIND_COMPLETED, DRIVER, SELECTED_NODE};
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Object, Quantity};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its class; `Some("")`: explicitly none. `None`: it does not say.
    pub class: Option<String>,
    /// Access modes that it asks for.
    pub modes: BTreeSet<String>,
    /// Bytes that it asks for.
    pub bytes: i64,
    /// A block device instead of files.
    pub block: bool,
    /// Labels that the volume must have. The error: it can't be read, and so selects nothing.
    pub selector: Option<Result<LabelSelector, ()>>,
    /// The volume that it names; empty while none.
    pub volume: String,
    /// Whether it was bound to that, once and for good.
    pub bound: bool,
    /// Where its first pod is to run.
    pub node: Option<String>,
}

/// For whom a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The claim's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; empty when the volume was set aside by a person.
    pub uid: String,
}

/// A volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its class; empty: none.
    pub class: String,
    /// Access modes that it allows.
    pub modes: BTreeSet<String>,
    /// Bytes that it holds.
    pub bytes: i64,
    /// A block device instead of files.
    pub block: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// For whom it is.
    pub claim: Option<Binding>,
    /// `Available`, `Bound`, `Released`, `Failed` or `Pending`.
    pub phase: String,
    /// It is to go.
    pub leaving: bool,
    /// `Retain`, `Delete` or `Recycle`.
    pub policy: String,
    /// How this host's storage finds it; `None`: it is somebody else's.
    pub handle: Option<String>,
    /// Whether it can be given more room for the claim that it was set aside for. Its object alone does not say.
    pub grows: bool,
}

fn text(object: &Object, pointer: &str) -> String {
    object.get_str(pointer).unwrap_or_default().to_owned()
}

fn modes(object: &Object) -> BTreeSet<String> {
    let list = object.get("/spec/accessModes").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|m| m.as_str().map(str::to_owned)).collect()
}

/// Bytes of a quantity; what can't be read is none.
pub(super) fn bytes(object: &Object, pointer: &str) -> i64 {
    object.get(pointer).and_then(|v| Quantity::from_value(v).ok()).map_or(0, |q| q.units())
}

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

impl Claim {
    /// Of a claim's object.
    pub fn of(object: &Object) -> Self {
        let class = object.annotation(BETA_CLASS).or_else(|| object.get_str("/spec/storageClassName"));
        let selector = object.get("/spec/selector").filter(|v| !v.is_null());
        Self {
            namespace: object.namespace().unwrap_or_default().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().unwrap_or_default().to_owned(),
            class: class.map(str::to_owned),
            modes: modes(object),
            bytes: bytes(object, "/spec/resources/requests/storage"),
            block: object.get_str("/spec/volumeMode") == Some("Block"),
            selector: selector.map(|v| LabelSelector::from_value(v).map_err(drop)),
            volume: text(object, "/spec/volumeName"),
            bound: object.annotation(BIND_COMPLETED).is_some(),
            node: object.annotation(SELECTED_NODE).map(str::to_owned),
        }
    }

    /// The name of the volume that is made for it.
    pub(super) fn own_volume(&self) -> String {
        format!("pvc-{}", self.uid)
    }
}

impl Volume {
    /// Of a volume's object.
    pub fn of(object: &Object) -> Self {
        let claim = object.get("/spec/claimRef").filter(|v| v.is_object()).map(|_| Binding {
            namespace: text(object, "/spec/claimRef/namespace"),
            name: text(object, "/spec/claimRef/name"),
            uid: text(object, "/spec/claimRef/uid"),
        });
        let ours = object.get_str("/spec/csi/driver") == Some(DRIVER);
        let class = object.annotation(BETA_CLASS).or_else(|| object.get_str("/spec/storageClassName"));
        Self {
            name: object.name().to_owned(),
            class: class.unwrap_or_default().to_owned(),
            modes: modes(object),
            bytes: bytes(object, "/spec/capacity/storage"),
            block: object.get_str("/spec/volumeMode") == Some("Block"),
            labels: object.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            claim,
            phase: text(object, "/status/phase"),
            leaving: object.deletion_timestamp().is_some(),
            policy: text(object, "/spec/persistentVolumeReclaimPolicy"),
            handle: ours.then(|| text(object, "/spec/csi/volumeHandle")),
            grows: false,
        }
    }

    /// Is it for this claim, by name or by uid?
    pub fn is_for(&self, claim: &Claim) -> bool {
        self.claim.as_ref().is_some_and(|of| {
            of.namespace == claim.namespace && of.name == claim.name && (of.uid.is_empty() || of.uid == claim.uid)
        })
    }
}
