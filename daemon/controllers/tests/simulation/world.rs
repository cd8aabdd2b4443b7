//! One world: registry, engine, kubelet, clock. Everything happens in the order that the seed chooses.

use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_controllers::Options;
use reddwarf_controllers::account_token::{SecretTokens, TokenOf};
use reddwarf_controllers::runtime::Engine;
use reddwarf_controllers::volume::{Binding, PROVISIONER, ProvisionError, Provisioned, Provisioner, Request};
use reddwarf_objects::object::timestamp;
use reddwarf_objects::{Object, ObjectKey, kinds};
use reddwarf_registry::{
    Author, DeleteOptions, ListQuery, Part, Patch, Propagation, Registry, RegistryError, WriteOptions,
};
use reddwarf_store::{Store, StoreOptions};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// Steps in which everything must have come to rest.
const PATIENCE: usize = 20_000;

/// The host's storage: volumes by handle with their bytes, and what is to fail.
#[derive(Debug, Default)]
pub struct Storage {
    pub volumes: Mutex<BTreeMap<String, u64>>,
    /// For whom they were made: their marks.
    pub owners: Mutex<BTreeMap<String, Binding>>,
    /// Those that pods wrote to.
    pub written: Mutex<BTreeSet<String>>,
    /// So many of the next calls fail, every other one after it took effect.
    pub failures: Mutex<u32>,
}

impl Storage {
    fn act(&self, act: impl FnOnce(&mut BTreeMap<String, u64>)) -> Result<(), ProvisionError> {
        let mut failures = self.failures.lock().unwrap();
        let fails = *failures > 0;
        *failures = failures.saturating_sub(1);
        if !fails || failures.is_multiple_of(2) {
            act(&mut self.volumes.lock().unwrap());
        }
        if fails { Err(ProvisionError("a planned failure".into())) } else { Ok(()) }
    }
}

#[async_trait::async_trait]
impl Provisioner for Storage {
    fn node(&self) -> &str {
        "n"
    }

    async fn provision(&self, request: &Request) -> Result<Provisioned, ProvisionError> {
        let Request { namespace, claim, uid, .. } = request.clone();
        let owner = Binding { namespace, name: claim, uid };
        self.owners.lock().unwrap().insert(request.name.clone(), owner);
        self.act(|all| _ = all.insert(request.name.clone(), request.bytes))?;
        Ok(Provisioned { handle: request.name.clone(), attributes: BTreeMap::new() })
    }

    async fn made_for(&self, handle: &str) -> Result<Option<Binding>, ProvisionError> {
        let there = self.volumes.lock().unwrap().contains_key(handle);
        Ok(self.owners.lock().unwrap().get(handle).filter(|_| there).cloned())
    }

    async fn destroy_unused(&self, handle: &str) -> Result<bool, ProvisionError> {
        if self.written.lock().unwrap().contains(handle) {
            return Ok(false);
        }
        self.destroy(handle).await.map(|()| true)
    }

    async fn destroy(&self, handle: &str) -> Result<(), ProvisionError> {
        self.act(|all| _ = all.remove(handle))
    }

    async fn resize(&self, handle: &str, bytes: u64) -> Result<(), ProvisionError> {
        self.act(|all| _ = all.insert(handle.to_owned(), bytes))
    }
}

/// Tokens that say what they are of, and which they are.
#[derive(Debug, Default)]
pub struct Tokens(Mutex<u32>);

impl SecretTokens for Tokens {
    fn issue(&self, of: &TokenOf) -> Result<String, String> {
        let mut made = self.0.lock().unwrap();
        *made += 1;
        Ok(format!("{} {} {made}", of.account_uid, of.secret_uid))
    }

    fn is_void(&self, token: &str, of: &TokenOf) -> bool {
        token.contains('-') && !token.starts_with(&format!("{} {}", of.account_uid, of.secret_uid))
    }
}

/// Looks at the world after every step.
pub type Check = Box<dyn Fn(&World)>;

pub struct World {
    pub registry: Registry,
    pub engine: Engine,
    clock: Arc<Mutex<DateTime<Utc>>>,
    start: DateTime<Utc>,
    rng: fastrand::Rng,
    /// Called after every step.
    pub check: Option<Check>,
    /// The host's volumes.
    pub storage: Arc<Storage>,
    _dir: TempDir,
}

pub fn alice() -> Author {
    Author::Api { user: "alice".into() }
}

pub fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

impl World {
    pub async fn new(seed: u64) -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let start = "2026-01-02T03:04:05Z".parse().unwrap();
        let clock = Arc::new(Mutex::new(start));
        let hand = clock.clone();
        let now: reddwarf_registry::Clock = Arc::new(move || *hand.lock().unwrap());
        let store = Store::open(dir.path().join("store.redb"), StoreOptions::new(now.clone())).unwrap().store;
        let registry = Registry::open(store, now).await.unwrap();
        let system = Author::System("node");
        for name in ["n", "m"] {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "100"}}});
            registry.create(&system, object(node), WriteOptions::default()).await.unwrap();
        }
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": PROVISIONER,
            "allowVolumeExpansion": true});
        registry.create(&system, object(class), WriteOptions::default()).await.unwrap();
        let storage = Arc::new(Storage::default());
        let options = Options {
            provisioner: Some(storage.clone()),
            node: Some("n".into()),
            tokens: Some(Arc::new(Tokens::default())),
            ..Options::default()
        };
        let mut engine = Engine::new(registry.clone(), reddwarf_controllers::all(&options));
        engine.list(Duration::ZERO).unwrap();
        let rng = fastrand::Rng::with_seed(seed);
        Self { registry, engine, clock, start, rng, check: None, storage, _dir: dir }
    }

    pub fn now(&self) -> DateTime<Utc> {
        *self.clock.lock().unwrap()
    }

    fn elapsed(&self) -> Duration {
        (self.now() - self.start).to_std().unwrap()
    }

    pub fn pass(&self, seconds: i64) {
        *self.clock.lock().unwrap() += TimeDelta::seconds(seconds);
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.rng.usize(..n.max(1))
    }

    pub async fn create(&self, value: Value) -> Object {
        self.registry.create(&alice(), object(value), WriteOptions::default()).await.unwrap().object
    }

    pub async fn patch(&self, kind: &str, name: &str, patch: Value) -> Object {
        let key = self.key(kind, name);
        self.registry
            .patch(&alice(), &key, Part::Main, Patch::Merge(patch), &WriteOptions::default())
            .await
            .unwrap()
            .object
    }

    /// Deletes as a client does.
    pub async fn delete(&self, kind: &str, name: &str, propagation: Option<Propagation>) {
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        self.registry.delete(&alice(), &self.key(kind, name), &options).await.unwrap();
    }

    pub fn key(&self, kind: &str, name: &str) -> ObjectKey {
        let kind = kinds().by_alias(kind).unwrap();
        ObjectKey {
            group: kind.group.into(),
            resource: kind.plural.into(),
            namespace: kind.namespaced.then(|| "default".to_owned()),
            name: name.into(),
        }
    }

    pub fn find(&self, kind: &str, name: &str) -> Option<Object> {
        self.registry.find(&self.key(kind, name)).unwrap()
    }

    #[track_caller]
    pub fn get(&self, kind: &str, name: &str) -> Object {
        self.find(kind, name).unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    pub fn list(&self, kind: &str) -> Vec<Object> {
        self.registry.list(&ListQuery::all(kinds().by_alias(kind).unwrap())).unwrap().items
    }

    pub fn names(&self, kind: &str) -> Vec<String> {
        self.list(kind).iter().map(|o| o.name().to_owned()).collect()
    }

    /// One thing happens: a controller deals with a key, or the kubelet with a pod. `false`: nothing is left to do now.
    pub async fn step(&mut self) -> bool {
        let now = self.elapsed();
        let choose = self.rng.usize(..1 << 16);
        let kubelet_first = self.rng.bool();
        let moved = (kubelet_first && self.kubelet().await)
            || self.engine.step(now, choose).await.unwrap().is_some()
            || self.kubelet().await;
        if let Some(check) = &self.check {
            check(self);
        }
        moved
    }

    /// Until nothing moves any more, without letting time pass.
    pub async fn rest(&mut self) {
        for _ in 0..PATIENCE {
            if !self.step().await {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Until nothing moves for so long.
    pub async fn settle(&mut self, seconds: i64) {
        let until = self.now() + TimeDelta::seconds(seconds);
        loop {
            self.rest().await;
            let due = self.engine.next_due().map(|due| self.start + due);
            match due {
                Some(due) if due <= until => *self.clock.lock().unwrap() = due.max(self.now()),
                _ => break,
            }
        }
        *self.clock.lock().unwrap() = until;
        self.rest().await;
    }

    /// Looks at everything anew: what has converged writes nothing.
    pub async fn writes_nothing_more(&mut self) {
        self.settle(2000).await;
        let before = self.registry.revision();
        let now = self.elapsed();
        self.engine.list(now).unwrap();
        self.rest().await;
        let history = self.registry.store().commits(before..=self.registry.revision(), 20).unwrap();
        assert_eq!(self.registry.revision(), before, "a converged system writes: {history:#?}");
    }

    /// The straw kubelet: images say how pods behave. `false`: no pod needs anything.
    pub async fn kubelet(&mut self) -> bool {
        let pods = self.list("pods");
        let first = self.rng.usize(..pods.len().max(1));
        for at in 0..pods.len() {
            if self.treat(&pods[(first + at) % pods.len()]).await {
                return true;
            }
        }
        false
    }

    async fn treat(&self, pod: &Object) -> bool {
        let key = pod.key(pod.known_kind().unwrap());
        let node = Author::System("node");
        let on = pod.get_str("/spec/nodeName").filter(|name| !name.is_empty());
        if on.is_some_and(|name| self.find("nodes", name).is_none()) {
            // No kubelet there.
            return false;
        }
        if pod.deletion_timestamp().is_some() {
            return self.registry.finish_delete(&key, pod.uid().unwrap()).await.unwrap();
        }
        if pod.get_str("/spec/nodeName").is_none_or(str::is_empty) {
            // The scheduler's business.
            return false;
        }
        let time = timestamp(self.now());
        let phase = pod.get_str("/status/phase").unwrap_or_default();
        let image = pod.get_str("/spec/containers/0/image").unwrap_or_default();
        let ready = |yes: bool| json!([{"type": "Ready", "status": if yes { "True" } else { "False" }, "lastTransitionTime": time}]);
        let ended = |phase: &str, code: i32| {
            json!({"phase": phase, "conditions": ready(false), "containerStatuses": [{"name": "c", "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "finishedAt": time}}}]})
        };
        let status = match (image, phase) {
            (_, "Succeeded" | "Failed") => return false,
            ("never", "Pending") => json!({"phase": "Running", "conditions": ready(false)}),
            ("done", "Running") => ended("Succeeded", 0),
            ("fail", "Running") => ended("Failed", 1),
            (_, "Pending") => json!({"phase": "Running", "conditions": ready(true)}),
            _ => return false,
        };
        let written = self.registry.modify_status(&node, &key, |p| p.set_status(Some(status.clone()))).await;
        fine(written.map(drop))
    }
}

fn fine(result: Result<(), RegistryError>) -> bool {
    match result {
        Ok(()) => true,
        Err(RegistryError::NotFound(_)) => false,
        Err(e) => panic!("{e}"),
    }
}

/// A Deployment of `replicas` pods that run `image`.
pub fn deployment(name: &str, replicas: i64, image: &str, more: Value) -> Value {
    let mut spec =
        json!({"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name, image)});
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        spec[key] = value;
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

pub fn template(app: &str, image: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

pub fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}
