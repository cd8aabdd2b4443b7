//! A control plane in memory: the registry's rules that matter to the node, no disk, no threads, faults on demand.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reddwarf_host::{Clock, PodUid};
use reddwarf_node::PodKey;
use reddwarf_node::control_plane::{ControlPlane, ControlPlaneError, EventText, ObjectChange, Promise};
use reddwarf_objects::Object;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

#[derive(Clone)]
pub struct MemoryPlane {
    inner: Arc<Mutex<Inner>>,
    clock: Arc<dyn Clock>,
}

/// What the node wrote about a pod.
#[derive(Clone, Debug)]
pub enum Written {
    Status(Value),
    Event(EventText),
}

#[derive(Default)]
struct Inner {
    /// Everything that was written, with its moment; only kept when asked for.
    written: Option<Vec<(DateTime<Utc>, Written)>>,
    objects: BTreeMap<(String, String, String), Object>,
    revision: u64,
    uids: u64,
    complete: bool,
    holders: BTreeMap<PodUid, (PodKey, bool)>,
    addresses: BTreeMap<IpAddr, PodUid>,
    followers: Vec<mpsc::Sender<ObjectChange>>,
    events: Vec<(String, EventText)>,
    status_writes: u64,
    heartbeats: u64,
    /// Promises that were given although they were someone else's: never.
    violations: Vec<String>,
    /// One in so many writes fails; 0: none.
    fail_one_in: u64,
    rng: Option<fastrand::Rng>,
}

impl MemoryPlane {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner::default())), clock }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn sources_read(&self, complete: bool) {
        self.lock().complete = complete;
    }

    /// One in so many writes fails from now on.
    pub fn fail(&self, one_in: u64, seed: u64) {
        let mut inner = self.lock();
        inner.fail_one_in = one_in;
        inner.rng = Some(fastrand::Rng::with_seed(seed));
    }

    /// Creates or changes an object, as a declaring file would.
    pub fn apply(&self, mut object: Object) {
        let now = self.clock.wall();
        let mut inner = self.lock();
        let id = id(&object);
        match inner.objects.get(&id).cloned() {
            Some(old) => {
                if old.deletion_timestamp().is_some() {
                    return;
                }
                object.set_uid(old.uid().unwrap_or_default());
                let same = old.spec() == object.spec();
                object.set_generation(old.generation().unwrap_or(1) + i64::from(!same));
                if let Some(created) = old.creation_timestamp() {
                    object.set_creation_timestamp(created);
                }
                if object.kind() == "Pod" {
                    object.set("/spec/nodeName", old.get_str("/spec/nodeName").unwrap_or_default());
                    object.set_status(old.status().cloned());
                    if let Some(token) = old.annotation("reddwarf.io/restart-requested") {
                        object.set_annotation("reddwarf.io/restart-requested", token);
                    }
                }
            }
            None => {
                inner.uids += 1;
                let uid = format!("uid-{}-{}", object.name(), inner.uids);
                object.set_uid(&uid);
                object.set_generation(1);
                object.set_creation_timestamp(now);
            }
        }
        inner.put(object);
    }

    /// Asks for a pod's deletion; other objects are gone at once.
    pub fn delete(&self, kind: &str, name: &str, grace: Option<i64>) {
        let now = self.clock.wall();
        let mut inner = self.lock();
        let namespace = if kind == "Node" { "" } else { "default" };
        let Some(mut object) = inner.objects.get(&(kind.into(), namespace.into(), name.into())).cloned() else {
            return;
        };
        if kind == "Pod" {
            let own = object.get("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
            object.set_deletion(now, Some(grace.unwrap_or(own)));
            inner.put(object);
        } else {
            inner.remove(&object);
        }
    }

    /// The pod's object is gone at once, whatever the host still has of it.
    pub fn forget(&self, name: &str) {
        let mut inner = self.lock();
        if let Some(object) = inner.objects.get(&("Pod".into(), "default".into(), name.into())).cloned() {
            inner.remove(&object);
        }
    }

    /// The database is lost: no objects, no promises, other uids from now on. Only while no node runs.
    pub fn lose_database(&self) {
        let mut inner = self.lock();
        let uids = inner.uids + 1000;
        let rng = inner.rng.take();
        *inner = Inner { uids, rng, fail_one_in: inner.fail_one_in, ..Inner::default() };
    }

    /// Someone else sets a condition on a pod.
    pub fn set_condition(&self, name: &str, kind: &str, status: &str) {
        let mut inner = self.lock();
        let at = ("Pod".to_owned(), "default".to_owned(), name.to_owned());
        let Some(mut object) = inner.objects.get(&at).cloned() else { return };
        let mut all = object.get("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        all.retain(|c| c["type"] != kind);
        all.push(serde_json::json!({"type": kind, "status": status, "lastTransitionTime": null}));
        object.set("/status/conditions", all);
        inner.put(object);
    }

    pub fn get(&self, kind: &str, name: &str) -> Option<Object> {
        let namespace = if kind == "Node" { "" } else { "default" };
        self.lock().objects.get(&(kind.into(), namespace.into(), name.into())).cloned()
    }

    pub fn all(&self) -> Vec<Object> {
        self.lock().objects.values().cloned().collect()
    }

    pub fn pods(&self) -> Vec<Object> {
        self.lock().objects.values().filter(|o| o.kind() == "Pod").cloned().collect()
    }

    pub fn promised(&self) -> Vec<Promise> {
        self.lock().promises()
    }

    pub fn events(&self) -> Vec<(String, EventText)> {
        self.lock().events.clone()
    }

    /// Keeps everything that is written about pods from now on.
    pub fn keep_written(&self) {
        self.lock().written = Some(Vec::new());
    }

    pub fn written(&self) -> Vec<(DateTime<Utc>, Written)> {
        self.lock().written.clone().unwrap_or_default()
    }

    pub fn status_writes(&self) -> u64 {
        self.lock().status_writes
    }

    pub fn heartbeats(&self) -> u64 {
        self.lock().heartbeats
    }

    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    fn may_fail(inner: &mut Inner, op: &'static str, subject: &str) -> Result<(), ControlPlaneError> {
        let one_in = inner.fail_one_in;
        if let Some(rng) = inner.rng.as_mut().filter(|_| one_in > 0)
            && rng.u64(0..one_in) == 0
        {
            return Err(ControlPlaneError { op, subject: subject.into(), message: "injected".into(), conflict: false });
        }
        Ok(())
    }
}

fn id(object: &Object) -> (String, String, String) {
    (object.kind().into(), object.namespace().unwrap_or_default().into(), object.name().into())
}

impl Inner {
    fn put(&mut self, mut object: Object) {
        object.set_resource_version(None);
        let id = id(&object);
        let old = self.objects.get(&id).map(|o| {
            let mut o = o.clone();
            o.set_resource_version(None);
            o
        });
        if old.as_ref() == Some(&object) {
            return;
        }
        self.revision += 1;
        object.set_resource_version(Some(self.revision));
        self.objects.insert(id, object.clone());
        self.tell(ObjectChange::Put(Box::new(object)));
    }

    fn remove(&mut self, object: &Object) {
        self.revision += 1;
        self.objects.remove(&id(object));
        self.tell(ObjectChange::Gone(Box::new(object.clone())));
    }

    fn tell(&mut self, change: ObjectChange) {
        self.followers.retain(|f| f.try_send(change.clone()).is_ok());
    }

    fn promises(&self) -> Vec<Promise> {
        let mut all = Vec::new();
        for (uid, (pod, rebuilt)) in &self.holders {
            let addresses = self.addresses.iter().filter(|(_, u)| *u == uid).map(|(a, _)| *a).collect();
            all.push(Promise { uid: uid.clone(), pod: pod.clone(), addresses, rebuilt: *rebuilt });
        }
        all
    }
}

#[async_trait]
impl ControlPlane for MemoryPlane {
    fn follow(&self) -> mpsc::Receiver<ObjectChange> {
        let (sender, receiver) = mpsc::channel(100_000);
        let mut inner = self.lock();
        let all = inner.objects.values().filter(|o| o.kind() != "Node").cloned().collect();
        sender.try_send(ObjectChange::All(all)).unwrap();
        inner.followers.push(sender);
        receiver
    }

    fn complete(&self) -> bool {
        self.lock().complete
    }

    async fn write_pod_status(&self, pod: &PodKey, uid: &str, status: Value) -> Result<(), ControlPlaneError> {
        tokio::task::yield_now().await;
        let mut inner = self.lock();
        Self::may_fail(&mut inner, "write status", &pod.name)?;
        inner.status_writes += 1;
        let now = self.clock.wall();
        inner.written.iter_mut().for_each(|all| all.push((now, Written::Status(status.clone()))));
        let at = ("Pod".to_owned(), pod.namespace.clone(), pod.name.clone());
        if let Some(mut object) = inner.objects.get(&at).filter(|o| o.uid() == Some(uid)).cloned() {
            let mut status = status;
            reddwarf_node::status::keep_others(&mut status, &object);
            object.set_status(Some(status));
            inner.put(object);
        }
        Ok(())
    }

    async fn bind_pod(&self, pod: &PodKey, uid: &str, node: &str) -> Result<(), ControlPlaneError> {
        let mut inner = self.lock();
        let at = ("Pod".to_owned(), pod.namespace.clone(), pod.name.clone());
        if let Some(mut object) = inner.objects.get(&at).filter(|o| o.uid() == Some(uid)).cloned() {
            object.set("/spec/nodeName", node);
            inner.put(object);
        }
        Ok(())
    }

    async fn request_restart(&self, pod: &PodKey, value: &str) -> Result<(), ControlPlaneError> {
        let mut inner = self.lock();
        let at = ("Pod".to_owned(), pod.namespace.clone(), pod.name.clone());
        if let Some(mut object) = inner.objects.get(&at).cloned() {
            object.set_annotation("reddwarf.io/restart-requested", value);
            inner.put(object);
        }
        Ok(())
    }

    async fn finish_delete(&self, pod: &PodKey, uid: &str) -> Result<(), ControlPlaneError> {
        tokio::task::yield_now().await;
        let mut inner = self.lock();
        Self::may_fail(&mut inner, "finish deletion", &pod.name)?;
        let at = ("Pod".to_owned(), pod.namespace.clone(), pod.name.clone());
        let found = inner.objects.get(&at).filter(|o| o.uid() == Some(uid)).cloned();
        if let Some(object) = found.filter(|o| o.deletion_timestamp().is_some()) {
            inner.remove(&object);
        }
        Ok(())
    }

    async fn record_event(&self, regarding: &Object, event: EventText) {
        let mut inner = self.lock();
        let name = regarding.name().to_owned();
        let now = self.clock.wall();
        inner.written.iter_mut().for_each(|all| all.push((now, Written::Event(event.clone()))));
        if inner.events.len() < 10_000 {
            inner.events.push((name, event));
        }
    }

    async fn write_node(&self, node: Object) -> Result<(), ControlPlaneError> {
        self.lock().put(node);
        Ok(())
    }

    fn node_version(&self, node: &str) -> Option<u64> {
        self.get("Node", node).and_then(|node| node.resource_version())
    }

    async fn heartbeat(&self, _node: &str, _at: DateTime<Utc>) -> Result<(), ControlPlaneError> {
        self.lock().heartbeats += 1;
        Ok(())
    }

    async fn promises(&self) -> Result<Vec<Promise>, ControlPlaneError> {
        let mut inner = self.lock();
        Self::may_fail(&mut inner, "read promises", "")?;
        Ok(inner.promises())
    }

    async fn reserve(&self, promise: &Promise) -> Result<(), ControlPlaneError> {
        tokio::task::yield_now().await;
        let mut inner = self.lock();
        Self::may_fail(&mut inner, "reserve", &promise.pod.name)?;
        for address in promise.addresses.iter().copied() {
            if let Some(other) = inner.addresses.get(&address).filter(|u| **u != promise.uid) {
                let message = format!("{address} is {other}'s");
                let subject = promise.pod.name.clone();
                return Err(ControlPlaneError { op: "reserve", subject, message, conflict: true });
            }
            inner.addresses.insert(address, promise.uid.clone());
        }
        inner.holders.entry(promise.uid.clone()).or_insert((promise.pod.clone(), promise.rebuilt));
        Ok(())
    }

    async fn release(&self, uid: &PodUid, address: Option<IpAddr>) -> Result<(), ControlPlaneError> {
        tokio::task::yield_now().await;
        let mut inner = self.lock();
        Self::may_fail(&mut inner, "release", uid.as_str())?;
        inner.addresses.retain(|a, u| u != uid || address.is_some_and(|only| only != *a));
        if address.is_none() {
            inner.holders.remove(uid);
        }
        Ok(())
    }
}
