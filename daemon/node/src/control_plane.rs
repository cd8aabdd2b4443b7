//! All that the node needs of the control plane, so that it can be run, tested and simulated without one.

use crate::key::PodKey;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reddwarf_host::PodUid;
use reddwarf_objects::Object;
use std::collections::BTreeSet;
use std::net::IpAddr;
use tokio::sync::mpsc;

/// A call to the control plane failed.
#[derive(Debug, thiserror::Error)]
#[error("{op} {subject}: {message}")]
pub struct ControlPlaneError {
    /// What was tried.
    pub op: &'static str,
    /// On what.
    pub subject: String,
    /// Why.
    pub message: String,
    /// Whether someone else was first: read again, then decide anew.
    pub conflict: bool,
}

/// What changed in the objects that the node follows: Pods, and what they refer to ([`FOLLOWED`]).
#[derive(Clone, Debug)]
pub enum ObjectChange {
    /// Everything there is, replacing what was known.
    All(Vec<Object>),
    /// One object is new or changed.
    Put(Box<Object>),
    /// One object is gone; its last state.
    Gone(Box<Object>),
}

/// The kinds that the node follows, of `v1`. What pods refer to comes before the pods themselves.
pub const FOLLOWED: [&str; 7] =
    ["ConfigMap", "Secret", "Service", "ServiceAccount", "PersistentVolume", "PersistentVolumeClaim", "Pod"];

/// A durable promise about a pod on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The holder.
    pub uid: PodUid,
    /// The pod as it was called.
    pub pod: PodKey,
    /// Its addresses; none on the host's network.
    pub addresses: BTreeSet<IpAddr>,
    /// Made from the host's marks after the database was lost, not before creating.
    pub rebuilt: bool,
}

/// Something that happened to a pod or node, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventText {
    /// Warning or Normal.
    pub warning: bool,
    /// `Started`, `Killing`, `BackOff`, ….
    pub reason: String,
    /// In words, without secrets.
    pub message: String,
    /// `spec.containers{app}` and the like; empty for the whole object.
    pub field_path: String,
}

/// The control plane as the node sees it. Implemented by the registry; tests have one in memory.
#[async_trait]
pub trait ControlPlane: Send + Sync + 'static {
    /// Objects as they change: begins with [`ObjectChange::All`]; again `All` after notices were lost.
    /// The channel ends when the control plane does.
    fn follow(&self) -> mpsc::Receiver<ObjectChange>;

    /// Whether all sources of pods were read at least once since the start, so that a pod which is not listed is
    /// not wanted.
    fn complete(&self) -> bool;

    /// Replaces a pod's status. A pod that is gone or another's namesake is no error.
    ///
    /// # Errors
    /// When the write did not become durable.
    async fn write_pod_status(
        &self,
        pod: &PodKey,
        uid: &str,
        status: serde_json::Value,
    ) -> Result<(), ControlPlaneError>;

    /// Sets `spec.nodeName` of a pod that has none.
    ///
    /// # Errors
    /// When the write did not become durable.
    async fn bind_pod(&self, pod: &PodKey, uid: &str, node: &str) -> Result<(), ControlPlaneError>;

    /// Asks for a restart of a pod's container, or all: sets the annotation `reddwarf.io/restart-requested`.
    ///
    /// # Errors
    /// When the pod is not there or the write did not become durable.
    async fn request_restart(&self, pod: &PodKey, value: &str) -> Result<(), ControlPlaneError>;

    /// Removes a pod whose deletion was asked for and of which nothing is left on the host.
    ///
    /// # Errors
    /// When the write did not become durable. Gone already is no error.
    async fn finish_delete(&self, pod: &PodKey, uid: &str) -> Result<(), ControlPlaneError>;

    /// Notes an event; it may be counted together with its like, or dropped under pressure.
    async fn record_event(&self, regarding: &Object, event: EventText);

    /// Creates or updates this host's Node object: `metadata` and `status` as given.
    ///
    /// # Errors
    /// When the write did not become durable.
    async fn write_node(&self, node: Object) -> Result<(), ControlPlaneError>;

    /// The `resourceVersion` of a Node object as it is stored; `None`: there is none, or it can't be read now.
    fn node_version(&self, node: &str) -> Option<u64>;

    /// Says that the node is alive, at `at`, without growing the database (a Lease).
    ///
    /// # Errors
    /// When it could not be said.
    async fn heartbeat(&self, node: &str, at: DateTime<Utc>) -> Result<(), ControlPlaneError>;

    /// All promises.
    ///
    /// # Errors
    /// When they can't be read.
    async fn promises(&self) -> Result<Vec<Promise>, ControlPlaneError>;

    /// Promises durably, in one transaction that expects addresses and holder to be free or the holder's own.
    ///
    /// # Errors
    /// `conflict` when an address is someone else's.
    async fn reserve(&self, promise: &Promise) -> Result<(), ControlPlaneError>;

    /// Takes a promise back; `None`: the holder's own record. Not promised is no error.
    ///
    /// # Errors
    /// When the write did not become durable.
    async fn release(&self, uid: &PodUid, address: Option<IpAddr>) -> Result<(), ControlPlaneError>;
}
