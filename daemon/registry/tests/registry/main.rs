//! The registry over a real store: what its users would notice.
#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::panic)]

mod admission;
mod deletes;
mod events;
mod lists;
mod model;
mod namespaces;
mod services;
mod sets;
mod watches;
mod writes;

use chrono::{DateTime, TimeDelta, Utc};
use reddwarf_objects::{Kind, Object, ObjectKey, kinds};
use reddwarf_registry::{Author, Declared, Part, Patch, Registry, WriteOptions};
use reddwarf_store::{Store, StoreOptions};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// A registry over a store of its own, with a clock moved by hand.
pub struct World {
    pub registry: Registry,
    pub clock: Arc<Mutex<DateTime<Utc>>>,
    _dir: TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut StoreOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Mutex::new("2026-01-02T03:04:05Z".parse().unwrap()));
        let hand = clock.clone();
        let now: reddwarf_registry::Clock = Arc::new(move || *hand.lock().unwrap());
        let mut options = StoreOptions::new(now.clone());
        change(&mut options);
        let store = Store::open(dir.path().join("store.redb"), options).unwrap().store;
        let registry = Registry::open(store, now).await.unwrap();
        Self { registry, clock, _dir: dir }
    }

    pub fn pass(&self, seconds: i64) {
        *self.clock.lock().unwrap() += TimeDelta::seconds(seconds);
    }

    pub async fn create(&self, object: Object) -> Object {
        self.registry.create(&alice(), object, WriteOptions::default()).await.unwrap().object
    }
}

pub fn alice() -> Author {
    Author::Api { user: "alice".into() }
}

pub fn file() -> Author {
    Author::File("/etc/reddwarf.d".into())
}

pub fn node() -> Author {
    Author::System("node")
}

pub fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

pub fn config(name: &str, data: Value) -> Object {
    object(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}),
    )
}

pub fn pod(name: &str, image: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": image}]},
    }))
}

pub fn config_key(name: &str) -> ObjectKey {
    ObjectKey::core("configmaps", "default", name)
}

pub fn pod_key(name: &str) -> ObjectKey {
    ObjectKey::pod("default", name)
}

pub fn kind(name: &str) -> &'static Kind {
    kinds().by_alias(name).unwrap()
}

pub fn from_file(object: Object, source: &str) -> Declared {
    Declared { object, source: Some(source.to_owned()) }
}

/// A merge patch.
pub fn merge(patch: &Value) -> Patch {
    Patch::Merge(patch.clone())
}
