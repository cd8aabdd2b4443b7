//! What the node needs of the control plane, over the registry in this process.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reddwarf_host::PodUid;
use reddwarf_node::PodKey;
use reddwarf_node::control_plane::{ControlPlane, ControlPlaneError, EventText, ObjectChange, Promise};
use reddwarf_objects::object::micro_timestamp;
use reddwarf_objects::{Kind, Object, ObjectKey, kinds};
use reddwarf_registry::{
    Author, EventTarget, EventType, ListQuery, ObjectWatch, Registry, RegistryError, WatchError, WatchEvent,
    WatchEventType, WriteOptions,
};
use reddwarf_store::{CommitError, Expect, Key, Transaction};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const NODE: Author = Author::System("node");
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The registry as the node's control plane.
pub struct LocalControlPlane {
    /// Where objects are.
    pub registry: Registry,
    /// Whether the manifest directories were read and applied once.
    pub complete: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// A promise as stored under `reserve/pod/{uid}`; `reserve/pod-ip/{address}` holds the uid alone.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    namespace: String,
    name: String,
    address: Option<IpAddr>,
    rebuilt: bool,
}

#[async_trait]
impl ControlPlane for LocalControlPlane {
    fn follow(&self) -> mpsc::Receiver<ObjectChange> {
        let (send, receive) = mpsc::channel(256);
        let registry = self.registry.clone();
        tokio::spawn(async move {
            // Ends with the receiver or with the store.
            while let Err(Interrupted::ListAgain) = follow(&registry, &send).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        receive
    }

    fn complete(&self) -> bool {
        (self.complete)()
    }

    async fn write_pod_status(
        &self,
        pod: &PodKey,
        uid: &str,
        status: serde_json::Value,
    ) -> Result<(), ControlPlaneError> {
        let key = ObjectKey::pod(&pod.namespace, &pod.name);
        let written = self
            .registry
            .modify_status(&NODE, &key, |live| {
                if live.uid() == Some(uid) {
                    live.set_status(Some(status.clone()));
                }
            })
            .await;
        unless_gone(written).map_err(|e| failed("write status of", &key, &e))
    }

    async fn bind_pod(&self, pod: &PodKey, uid: &str, node: &str) -> Result<(), ControlPlaneError> {
        let key = ObjectKey::pod(&pod.namespace, &pod.name);
        let written = self
            .registry
            .modify(&NODE, &key, |live| {
                if live.uid() == Some(uid) && live.get_str("/spec/nodeName").is_none_or(str::is_empty) {
                    live.set("/spec/nodeName", node);
                }
            })
            .await;
        unless_gone(written).map_err(|e| failed("bind", &key, &e))
    }

    async fn request_restart(&self, pod: &PodKey, value: &str) -> Result<(), ControlPlaneError> {
        let key = ObjectKey::pod(&pod.namespace, &pod.name);
        let edit = |live: &mut Object| live.set_annotation(reddwarf_objects::RESTART_REQUESTED_ANNOTATION, value);
        self.registry.modify(&NODE, &key, edit).await.map_err(|e| failed("restart", &key, &e))?;
        Ok(())
    }

    async fn finish_delete(&self, pod: &PodKey, uid: &str) -> Result<(), ControlPlaneError> {
        let key = ObjectKey::pod(&pod.namespace, &pod.name);
        self.registry.finish_delete(&key, uid).await.map_err(|e| failed("finish deleting", &key, &e))?;
        Ok(())
    }

    async fn record_event(&self, regarding: &Object, event: EventText) {
        let mut target = EventTarget::of(regarding);
        target.field_path = event.field_path;
        let kind = if event.warning { EventType::Warning } else { EventType::Normal };
        if let Err(error) = self.registry.record_event(&target, kind, &event.reason, &event.message, "reddwarfd").await
        {
            tracing::debug!(%error, "an event could not be recorded");
        }
    }

    async fn write_node(&self, node: Object) -> Result<(), ControlPlaneError> {
        let key = node_key(node.name());
        if self.registry.find(&key).map_err(|e| failed("read", &key, &e))?.is_none() {
            let created = self.registry.create(&NODE, node.clone(), WriteOptions::default()).await;
            match created {
                Ok(_) | Err(RegistryError::AlreadyExists(_)) => {}
                Err(error) => return Err(failed("create", &key, &error)),
            }
        }
        let metadata = |live: &mut Object| {
            for (name, value) in node.labels() {
                live.set_label(name, value);
            }
            for (name, value) in node.annotations() {
                live.set_annotation(name, value);
            }
        };
        self.registry.modify(&NODE, &key, metadata).await.map_err(|e| failed("write", &key, &e))?;
        let status = |live: &mut Object| live.set_status(node.status().cloned());
        self.registry.modify_status(&NODE, &key, status).await.map_err(|e| failed("write status of", &key, &e))?;
        Ok(())
    }

    async fn heartbeat(&self, node: &str, at: DateTime<Utc>) -> Result<(), ControlPlaneError> {
        let key = ObjectKey {
            group: "coordination.k8s.io".into(),
            resource: "leases".into(),
            namespace: Some(LEASE_NAMESPACE.into()),
            name: node.into(),
        };
        let renewed = self.registry.modify(&NODE, &key, |live| live.set("/spec/renewTime", micro_timestamp(at))).await;
        match renewed {
            Ok(_) => Ok(()),
            Err(RegistryError::NotFound(_)) => self.first_lease(node, at).await.map_err(|e| failed("create", &key, &e)),
            Err(error) => Err(failed("renew", &key, &error)),
        }
    }

    async fn promises(&self) -> Result<Vec<Promise>, ControlPlaneError> {
        let page = self.registry.store().list("reserve/pod/", &Default::default());
        let page = page.map_err(|e| plain("read", "reservations", e.to_string(), false))?;
        let mut promises = Vec::with_capacity(page.entries.len());
        for entry in page.entries {
            let uid = entry.key.as_str().rsplit('/').next().and_then(|uid| PodUid::new(uid).ok());
            let record: Option<Record> = serde_json::from_slice(&entry.value).ok();
            let (Some(uid), Some(record)) = (uid, record) else {
                tracing::warn!(key = %entry.key.as_str(), "an unreadable reservation is left out; marks on the host replace it");
                continue;
            };
            promises.push(Promise {
                uid,
                pod: PodKey { namespace: record.namespace, name: record.name },
                address: record.address,
                rebuilt: record.rebuilt,
            });
        }
        Ok(promises)
    }

    async fn reserve(&self, promise: &Promise) -> Result<(), ControlPlaneError> {
        let subject = promise.address.map_or_else(|| promise.pod.to_string(), |ip| ip.to_string());
        let holder = key(&["reserve", "pod", promise.uid.as_str()])?;
        let record = Record {
            namespace: promise.pod.namespace.clone(),
            name: promise.pod.name.clone(),
            address: promise.address,
            rebuilt: promise.rebuilt,
        };
        let value = serde_json::to_vec(&record).map_err(|e| plain("reserve", &subject, e.to_string(), false))?;
        let store = self.registry.store();
        let read = |k: &Key| store.get(k).map_err(|e| plain("reserve", &subject, e.to_string(), false));
        let mut transaction = Transaction::new("system:node", format!("reserve for pod {}", promise.pod));
        match read(&holder)? {
            None => transaction = transaction.expect(holder.clone(), Expect::Absent),
            Some(entry) => {
                let held: Option<Record> = serde_json::from_slice(&entry.value).ok();
                if held.is_some_and(|h| h.address != promise.address) {
                    return Err(plain("reserve", &subject, "the pod holds another address".into(), true));
                }
                transaction = transaction.expect(holder.clone(), Expect::AtRevision(entry.modified));
            }
        }
        if let Some(address) = promise.address {
            let at = address_key(address)?;
            match read(&at)? {
                None => transaction = transaction.expect(at.clone(), Expect::Absent),
                Some(entry) if entry.value.as_ref() == promise.uid.as_str().as_bytes() => {
                    transaction = transaction.expect(at.clone(), Expect::AtRevision(entry.modified));
                }
                Some(_) => return Err(plain("reserve", &subject, "another pod holds it".into(), true)),
            }
            transaction = transaction.put(at, promise.uid.as_str().as_bytes().to_vec());
        }
        self.commit("reserve", &subject, transaction.put(holder, value)).await
    }

    async fn release(&self, uid: &PodUid, address: Option<IpAddr>) -> Result<(), ControlPlaneError> {
        let subject = address.map_or_else(|| uid.to_string(), |ip| ip.to_string());
        let holder = key(&["reserve", "pod", uid.as_str()])?;
        let store = self.registry.store();
        let read = |k: &Key| store.get(k).map_err(|e| plain("release", &subject, e.to_string(), false));
        let mut transaction = Transaction::new("system:node", format!("release of {subject}"));
        if let Some(address) = address {
            let at = address_key(address)?;
            if let Some(entry) = read(&at)?.filter(|e| e.value.as_ref() == uid.as_str().as_bytes()) {
                transaction = transaction.expect(at.clone(), Expect::AtRevision(entry.modified)).delete(at);
            }
        }
        if let Some(entry) = read(&holder)? {
            let held: Option<Record> = serde_json::from_slice(&entry.value).ok();
            if held.is_none_or(|h| h.address == address) {
                transaction = transaction.expect(holder.clone(), Expect::AtRevision(entry.modified)).delete(holder);
            }
        }
        self.commit("release", &subject, transaction).await
    }
}

impl LocalControlPlane {
    async fn commit(&self, op: &'static str, subject: &str, transaction: Transaction) -> Result<(), ControlPlaneError> {
        match self.registry.store().commit(transaction).await {
            Ok(_) => Ok(()),
            Err(error @ CommitError::Conflict { .. }) => Err(plain(op, subject, error.to_string(), true)),
            Err(error) => Err(plain(op, subject, error.to_string(), false)),
        }
    }

    async fn first_lease(&self, node: &str, at: DateTime<Utc>) -> Result<(), RegistryError> {
        let made = |result: Result<_, RegistryError>| match result {
            Ok(_) | Err(RegistryError::AlreadyExists(_)) => Ok(()),
            Err(error) => Err(error),
        };
        if let Some(kind) = kinds().by_group_resource("", "namespaces") {
            let namespace = Object::new(kind, None, LEASE_NAMESPACE);
            made(self.registry.create(&NODE, namespace, WriteOptions::default()).await)?;
        }
        if let Some(kind) = kinds().by_group_resource("coordination.k8s.io", "leases") {
            let mut lease = Object::new(kind, Some(LEASE_NAMESPACE), node);
            lease.set("/spec/holderIdentity", node);
            lease.set("/spec/leaseDurationSeconds", 40);
            lease.set("/spec/renewTime", micro_timestamp(at));
            made(self.registry.create(&NODE, lease, WriteOptions::default()).await)?;
        }
        Ok(())
    }
}

/// Why following ends.
enum Interrupted {
    /// Notices were lost, or an object is damaged: everything is listed anew.
    ListAgain,
    /// Nobody listens, or the store was closed.
    Over,
}

async fn follow(registry: &Registry, send: &mpsc::Sender<ObjectChange>) -> Result<(), Interrupted> {
    let (mut objects, mut watches) = (Vec::new(), Vec::new());
    for plural in ["pods", "configmaps", "secrets"] {
        let Some(kind) = kinds().by_group_resource("", plural) else { continue };
        let (list, watch) = listed(registry, kind)?;
        objects.extend(list);
        watches.push(watch);
    }
    let [pods, maps, secrets] = watches.as_mut_slice() else { return Err(Interrupted::Over) };
    send.send(ObjectChange::All(objects)).await.map_err(|_| Interrupted::Over)?;
    loop {
        // ObjectWatch::next is cancel-safe: the branches that lose keep their place.
        let event = tokio::select! {
            event = pods.next() => event,
            event = maps.next() => event,
            event = secrets.next() => event,
            () = send.closed() => return Err(Interrupted::Over),
        };
        let change = match event {
            Ok(WatchEvent { kind: WatchEventType::Deleted, object, .. }) => ObjectChange::Gone(Box::new(object)),
            Ok(WatchEvent { object, .. }) => ObjectChange::Put(Box::new(object)),
            Err(WatchError::Closed) => return Err(Interrupted::Over),
            Err(error) => {
                tracing::warn!(%error, "the node lists all objects anew");
                return Err(Interrupted::ListAgain);
            }
        };
        send.send(change).await.map_err(|_| Interrupted::Over)?;
    }
}

fn listed(registry: &Registry, kind: &'static Kind) -> Result<(Vec<Object>, ObjectWatch), Interrupted> {
    let (list, watch) = registry.list_and_watch(&ListQuery::all(kind)).map_err(|error| {
        tracing::warn!(%error, "objects can't be listed");
        Interrupted::ListAgain
    })?;
    Ok((list.items, watch))
}

fn node_key(name: &str) -> ObjectKey {
    ObjectKey { group: String::new(), resource: "nodes".into(), namespace: None, name: name.into() }
}

fn key(segments: &[&str]) -> Result<Key, ControlPlaneError> {
    Key::from_segments(segments).map_err(|e| plain("reserve", &segments.join("/"), e.to_string(), false))
}

fn address_key(address: IpAddr) -> Result<Key, ControlPlaneError> {
    key(&["reserve", "pod-ip", &address.to_string()])
}

fn unless_gone<T>(result: Result<T, RegistryError>) -> Result<(), RegistryError> {
    match result {
        Ok(_) | Err(RegistryError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn failed(op: &'static str, key: &ObjectKey, error: &RegistryError) -> ControlPlaneError {
    let conflict = matches!(error, RegistryError::Conflict(_) | RegistryError::Contended { .. });
    plain(op, &key.to_string(), error.to_string(), conflict)
}

fn plain(op: &'static str, subject: &str, message: String, conflict: bool) -> ControlPlaneError {
    ControlPlaneError { op, subject: subject.to_owned(), message, conflict }
}
