//! The control plane of one host: the registry and the store below it, in the same process.
//!
//! Promises lie beside the objects in the store: `reserve/pod-ip/<address>` holds the uid that has the address,
//! `reserve/pod/<uid>` what the holder is called. Both are written in one transaction that expects them to be free
//! (U8). Heartbeats stay in memory: they would push people's changes out of the store's bounded history (U7).

use crate::control_plane::{ControlPlane, ControlPlaneError, EventText, FOLLOWED, ObjectChange, Promise};
use crate::key::PodKey;
use crate::node_object::{HEALTH_EVERY, STALE_AFTER, judge};
use crate::pressure::NodeCondition;
use crate::status::keep_others;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reddwarf_host::time::in_step;
use reddwarf_host::{BootTime, Clock, PodUid};
use reddwarf_objects::{Kind, Object, ObjectKey, RESTART_REQUESTED_ANNOTATION, kinds};
use reddwarf_registry::{
    Author, EventTarget, EventType, ListQuery, ObjectWatch, Registry, RegistryError, WatchEventType, WriteOptions,
};
use reddwarf_store::{CommitError, Expect, Key, KeyError, ListOptions, Revision, StoreError, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::error::Error;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Who writes.
const US: Author = Author::System("node");
/// Changes that wait for the node; a slow node is waited for, the store keeps the rest.
const CHANGES: usize = 256;
/// Where holders lie in the store.
const HOLDERS: &str = "reserve/pod/";
/// Time before a broken watch is begun anew.
const AGAIN: Duration = Duration::from_secs(1);

/// The control plane of one host.
#[derive(Clone)]
pub struct RegistryPlane {
    registry: Registry,
    clock: Arc<dyn Clock>,
    complete: Arc<AtomicBool>,
    /// Wakes the follower once the sources were read.
    completed: Arc<Notify>,
    heard: Arc<Mutex<Option<BootTime>>>,
    placed_only: bool,
}

/// A holder as the store has it.
#[derive(Serialize, Deserialize)]
struct StoredHolder {
    namespace: String,
    name: String,
    #[serde(default)]
    addresses: BTreeSet<IpAddr>,
    #[serde(default)]
    rebuilt: bool,
}

impl RegistryPlane {
    /// Over a registry. Until [`RegistryPlane::sources_read`] nothing that no pod wants is collected.
    pub fn new(registry: Registry, clock: Arc<dyn Clock>) -> Self {
        Self {
            registry,
            clock,
            complete: Arc::new(AtomicBool::new(false)),
            completed: Arc::new(Notify::new()),
            heard: Arc::new(Mutex::new(None)),
            placed_only: false,
        }
    }

    /// A scheduler places pods: the node takes none that has no node yet.
    #[must_use]
    pub fn with_scheduler(mut self) -> Self {
        self.placed_only = true;
        self
    }

    /// Is an object any of the node's business?
    fn concerns(&self, object: &Object) -> bool {
        !self.placed_only || object.kind() != "Pod" || object.get_str("/spec/nodeName").is_some_and(|n| !n.is_empty())
    }

    /// All sources of pods (the manifest directory above all) were read and are in the registry.
    pub fn sources_read(&self) {
        if !self.complete.swap(true, Ordering::SeqCst) {
            self.completed.notify_one();
        }
    }

    /// Whether [`RegistryPlane::sources_read`] was called.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::SeqCst)
    }

    /// Looks every 15 s whether the node still says that it is alive, and says so on its Node object when it does not
    /// (row F17). Runs for ever.
    pub async fn check_health(self, node: String) {
        let mut ticks = in_step(HEALTH_EVERY);
        let started = self.clock.boot();
        loop {
            ticks.tick().await;
            let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let silent = self.clock.boot().since(heard.unwrap_or(started));
            if silent <= STALE_AFTER {
                continue;
            }
            let Ok(key) = node_key(&node) else { return };
            let Ok(Some(object)) = self.registry.find(&key) else { continue };
            let Some(judged) = judge(&object, silent, self.clock.wall()) else { continue };
            let conditions = judged.status().cloned();
            let written = self.registry.modify_status(&US, &key, |live| live.set_status(conditions.clone())).await;
            if let Err(error) = written {
                tracing::warn!(%error, "the node's conditions could not be written");
            }
        }
    }
}

fn node_key(name: &str) -> Result<ObjectKey, ControlPlaneError> {
    let kind = kind("v1", "Node")?;
    Ok(ObjectKey {
        group: kind.group.to_owned(),
        resource: kind.plural.to_owned(),
        namespace: None,
        name: name.to_owned(),
    })
}

fn kind(api_version: &str, name: &str) -> Result<&'static Kind, ControlPlaneError> {
    kinds().by_gvk(api_version, name).ok_or_else(|| ControlPlaneError {
        op: "find kind",
        subject: name.to_owned(),
        message: "this version does not know it".to_owned(),
        conflict: false,
    })
}

fn pod_key(pod: &PodKey) -> ObjectKey {
    ObjectKey::pod(&pod.namespace, &pod.name)
}

/// An error with its chain on one line.
fn failed(op: &'static str, subject: impl ToString) -> impl FnOnce(&(dyn Error + 'static)) -> ControlPlaneError {
    let subject = subject.to_string();
    move |error| {
        let mut message = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            next = cause.source();
        }
        ControlPlaneError { op, subject, message, conflict: false }
    }
}

fn holder_key(uid: &PodUid) -> Result<Key, KeyError> {
    Key::new(format!("{HOLDERS}{uid}"))
}

fn address_key(address: IpAddr) -> Result<Key, KeyError> {
    Key::new(format!("reserve/pod-ip/{address}"))
}

#[async_trait]
impl ControlPlane for RegistryPlane {
    fn follow(&self) -> mpsc::Receiver<ObjectChange> {
        let (changes, receiver) = mpsc::channel(CHANGES);
        let plane = self.clone();
        tokio::spawn(async move {
            while !changes.is_closed() {
                if let Err(message) = plane.follow_once(&changes).await {
                    tracing::warn!(message, "objects are listed anew");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        });
        receiver
    }

    fn complete(&self) -> bool {
        self.is_complete()
    }

    async fn write_pod_status(
        &self,
        pod: &PodKey,
        uid: &str,
        status: serde_json::Value,
    ) -> Result<(), ControlPlaneError> {
        let key = pod_key(pod);
        let written = self.registry.modify_status(&US, &key, |live| {
            if live.uid() == Some(uid) {
                let mut status = status.clone();
                keep_others(&mut status, live);
                live.set_status(Some(status));
            }
        });
        absent_is_fine(written.await.map(drop)).map_err(|e| failed("write status", pod)(&e))
    }

    async fn bind_pod(&self, pod: &PodKey, uid: &str, node: &str) -> Result<(), ControlPlaneError> {
        let key = pod_key(pod);
        let bound = self.registry.modify(&US, &key, |live| {
            if live.uid() == Some(uid) && live.get_str("/spec/nodeName").is_none_or(str::is_empty) {
                live.set("/spec/nodeName", node);
            }
        });
        absent_is_fine(bound.await.map(drop)).map_err(|e| failed("bind pod", pod)(&e))
    }

    async fn request_restart(&self, pod: &PodKey, value: &str) -> Result<(), ControlPlaneError> {
        let key = pod_key(pod);
        let asked = self.registry.modify(&US, &key, |live| live.set_annotation(RESTART_REQUESTED_ANNOTATION, value));
        asked.await.map(drop).map_err(|e| failed("request restart", pod)(&e))
    }

    async fn finish_delete(&self, pod: &PodKey, uid: &str) -> Result<(), ControlPlaneError> {
        self.registry.finish_delete(&pod_key(pod), uid).await.map(drop).map_err(|e| failed("finish deletion", pod)(&e))
    }

    async fn record_event(&self, regarding: &Object, event: EventText) {
        let EventText { warning, reason, message, field_path } = event;
        let target = EventTarget { field_path, ..EventTarget::of(regarding) };
        let kind = if warning { EventType::Warning } else { EventType::Normal };
        if let Err(error) = self.registry.record_event(&target, kind, &reason, &message, "kubelet").await {
            tracing::warn!(%error, reason, "an event could not be recorded");
        }
    }

    async fn write_node(&self, node: Object) -> Result<(), ControlPlaneError> {
        let at = |e: &(dyn Error + 'static)| failed("write node", node.name())(e);
        let key = node_key(node.name())?;
        if self.registry.find(&key).map_err(|e| at(&e))?.is_none() {
            match self.registry.create(&US, node.clone(), WriteOptions::default()).await {
                Ok(_) | Err(RegistryError::AlreadyExists(_)) => {}
                Err(e) => return Err(at(&e)),
            }
        }
        // Others' labels and annotations stay.
        let merged = self.registry.modify(&US, &key, |live| {
            for (key, value) in node.labels() {
                live.set_label(key, value);
            }
            for (key, value) in node.annotations() {
                live.set_annotation(key, value);
            }
            // Ours to say: the pools are this host's settings.
            for field in ["/spec/podCIDR", "/spec/podCIDRs"] {
                if let Some(value) = node.get(field).filter(|value| live.get(field) != Some(value)) {
                    live.set(field, value.clone());
                }
            }
            take_taints(live, &node);
        });
        merged.await.map_err(|e| at(&e))?;
        let status = node.status().cloned();
        let written = self.registry.modify_status(&US, &key, |live| live.set_status(status.clone()));
        written.await.map(drop).map_err(|e| at(&e))
    }

    fn node_version(&self, node: &str) -> Option<u64> {
        let stored = self.registry.find(&node_key(node).ok()?).ok()??;
        stored.resource_version()
    }

    async fn heartbeat(&self, _node: &str, _at: DateTime<Utc>) -> Result<(), ControlPlaneError> {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.boot());
        Ok(())
    }

    async fn promises(&self) -> Result<Vec<Promise>, ControlPlaneError> {
        self.read_promises().map_err(|e| failed("read promises", "reserve/")(&e))
    }

    async fn reserve(&self, promise: &Promise) -> Result<(), ControlPlaneError> {
        let Promise { uid, pod, addresses, rebuilt } = promise;
        let at = |e: &(dyn Error + 'static)| failed("reserve", pod)(e);
        let store = self.registry.store();
        let mut transaction = Transaction::new(US.to_string(), format!("reserve for {pod}"));
        let key = holder_key(uid).map_err(|e| at(&e))?;
        let present = self.holder(uid).map_err(|e| at(&e))?;
        let (expect, mut holder) = match present {
            Some((revision, holder)) => (Expect::AtRevision(revision), holder),
            None => {
                let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
                (Expect::Absent, StoredHolder { namespace, name, addresses: BTreeSet::new(), rebuilt: *rebuilt })
            }
        };
        holder.addresses.extend(addresses);
        let bytes = serde_json::to_vec(&holder).map_err(|e| at(&e))?;
        transaction = transaction.expect(key.clone(), expect).put(key, bytes);
        for address in addresses {
            let key = address_key(*address).map_err(|e| at(&e))?;
            let ours = store.get(&key).map_err(|e| at(&e))?.filter(|e| e.value == uid.as_str().as_bytes());
            transaction = match ours {
                Some(entry) => transaction.expect(key, Expect::AtRevision(entry.modified)),
                None => transaction.create(key, uid.as_str().to_owned()),
            };
        }
        match store.commit(transaction).await {
            Ok(_) => Ok(()),
            Err(e @ CommitError::Conflict { .. }) => Err(ControlPlaneError { conflict: true, ..at(&e) }),
            Err(e) => Err(at(&e)),
        }
    }

    async fn release(&self, uid: &PodUid, address: Option<IpAddr>) -> Result<(), ControlPlaneError> {
        let at = |e: &(dyn Error + 'static)| failed("release", uid)(e);
        let store = self.registry.store();
        let Some((revision, mut holder)) = self.holder(uid).map_err(|e| at(&e))? else { return Ok(()) };
        let key = holder_key(uid).map_err(|e| at(&e))?;
        let mut transaction = Transaction::new(US.to_string(), format!("release of {uid}"));
        transaction = transaction.expect(key.clone(), Expect::AtRevision(revision));
        for of in holder.addresses.iter().filter(|a| address.is_none_or(|only| only == **a)) {
            let key = address_key(*of).map_err(|e| at(&e))?;
            // Whoever has it otherwise keeps it.
            if let Some(entry) = store.get(&key).map_err(|e| at(&e))?.filter(|e| e.value == uid.as_str().as_bytes()) {
                transaction = transaction.expect(key.clone(), Expect::AtRevision(entry.modified)).delete(key);
            }
        }
        transaction = match address {
            None => transaction.delete(key),
            Some(address) => {
                holder.addresses.remove(&address);
                transaction.put(key, serde_json::to_vec(&holder).map_err(|e| at(&e))?)
            }
        };
        store.commit(transaction).await.map(drop).map_err(|e| at(&e))
    }
}

impl RegistryPlane {
    /// Lists everything, then follows it until a watch breaks or nobody listens.
    async fn follow_once(&self, changes: &mpsc::Sender<ObjectChange>) -> Result<(), String> {
        let mut watches = Vec::new();
        let mut all = Vec::new();
        for name in FOLLOWED {
            let kind = kind("v1", name).map_err(|e| e.to_string())?;
            let (list, watch) = self.registry.list_and_watch(&ListQuery::all(kind)).map_err(|e| e.to_string())?;
            all.extend(list.items.into_iter().filter(|o| self.concerns(o)));
            watches.push(watch);
        }
        if changes.send(ObjectChange::All(all)).await.is_err() {
            return Ok(());
        }
        let [config_maps, secrets, services, accounts, volumes, claims, pods] = &mut watches[..] else {
            return Err("seven watches".to_owned());
        };
        loop {
            let change = tokio::select! {
                // Cancel safe: a watch keeps its position. What pods refer to comes before the pods themselves.
                biased;
                () = changes.closed() => return Ok(()),
                change = next(config_maps) => change?,
                change = next(secrets) => change?,
                change = next(services) => change?,
                change = next(accounts) => change?,
                change = next(volumes) => change?,
                change = next(claims) => change?,
                change = next(pods) => change?,
                () = self.completed.notified() => return Ok(()),
            };
            let concerns = match &change {
                ObjectChange::Put(object) => self.concerns(object),
                ObjectChange::All(_) | ObjectChange::Gone(_) => true,
            };
            if concerns && changes.send(change).await.is_err() {
                return Ok(());
            }
        }
    }

    /// A holder as the store has it, and since which revision.
    fn holder(&self, uid: &PodUid) -> Result<Option<(Revision, StoredHolder)>, StoreError> {
        let Ok(key) = holder_key(uid) else { return Ok(None) };
        let entry = self.registry.store().get(&key)?;
        // One that can't be read is taken for absent; the transaction's expectation then refuses to overwrite it.
        Ok(entry.and_then(|e| Some((e.modified, serde_json::from_slice(&e.value).ok()?))))
    }

    fn read_promises(&self) -> Result<Vec<Promise>, StoreError> {
        let mut promises = Vec::new();
        for entry in self.registry.store().list(HOLDERS, &ListOptions::default())?.entries {
            let uid = entry.key.as_str().strip_prefix(HOLDERS).and_then(|uid| PodUid::new(uid).ok());
            let stored = serde_json::from_slice::<StoredHolder>(&entry.value).ok();
            let (Some(uid), Some(stored)) = (uid, stored) else {
                tracing::error!(key = %entry.key, "a promise can't be read and is left as it is");
                continue;
            };
            let pod = PodKey::new(stored.namespace, stored.name);
            promises.push(Promise { uid, pod, addresses: stored.addresses, rebuilt: stored.rebuilt });
        }
        Ok(promises)
    }
}

async fn next(watch: &mut ObjectWatch) -> Result<ObjectChange, String> {
    let event = watch.next().await.map_err(|e| e.to_string())?;
    Ok(match event.kind {
        WatchEventType::Added | WatchEventType::Modified => ObjectChange::Put(Box::new(event.object)),
        WatchEventType::Deleted => ObjectChange::Gone(Box::new(event.object)),
    })
}

/// The taints of pressure are the node's own; all others stay as they are.
fn take_taints(live: &mut Object, node: &Object) {
    let list = |of: &Object| of.get("/spec/taints").and_then(|t| t.as_array()).cloned().unwrap_or_default();
    let ours = |taint: &serde_json::Value| {
        NodeCondition::ALL.iter().any(|c| taint.get("key").and_then(|k| k.as_str()) == Some(c.taint()))
    };
    let before = list(live);
    let mut taints: Vec<_> = before.iter().filter(|t| !ours(t)).cloned().collect();
    taints.extend(list(node));
    if taints != before {
        live.set("/spec/taints", taints);
    }
}

fn absent_is_fine(result: Result<(), RegistryError>) -> Result<(), RegistryError> {
    match result {
        Err(RegistryError::NotFound(_)) => Ok(()),
        other => other,
    }
}
