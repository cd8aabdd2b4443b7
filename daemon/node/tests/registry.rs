//! The node over the real registry and store: promises are durable, statuses land, a restarted daemon adopts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use reddwarf_host::SystemClock;
use reddwarf_host::fake::{FakeHost, FakeOptions};
use reddwarf_host::{Clock, Host};
use reddwarf_node::registry_plane::RegistryPlane;
use reddwarf_node::{Node, NodeDeps, NodeHandle};
use reddwarf_objects::ObjectKey;
use reddwarf_objects::pod::{ConditionStatus, PodStatus};
use reddwarf_registry::{Author, DeleteOptions, Registry, WriteOptions};
use reddwarf_store::{ListOptions, Store, StoreOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::{image, pod, settings};

/// A pod as a client of the API makes it.
fn web() -> reddwarf_objects::Object {
    let mut object = pod("web", serde_json::json!({}));
    object.remove_annotation("reddwarf.io/source");
    object
}

struct Daemon {
    store: Store,
    registry: Registry,
    plane: RegistryPlane,
    node: NodeHandle,
}

async fn start(path: &Path, host: &FakeHost) -> Daemon {
    let wall: Arc<dyn Fn() -> chrono::DateTime<chrono::Utc> + Send + Sync> = Arc::new(|| SystemClock.wall());
    let store = Store::open(path, StoreOptions::new(wall.clone())).unwrap().store;
    let registry = Registry::open(store.clone(), wall).await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let plane = RegistryPlane::new(registry.clone(), clock.clone());
    let host: Arc<dyn Host> = Arc::new(host.clone());
    let node =
        Node::start(NodeDeps { control: Arc::new(plane.clone()), host, clock, tokens: None, settings: settings() })
            .await;
    Daemon { store, registry, plane, node }
}

impl Daemon {
    async fn stop(self) {
        self.node.shutdown(false).await;
        drop(self.node);
        self.store.close().await;
    }

    fn is_ready(&self, name: &str) -> bool {
        let object = self.registry.find(&ObjectKey::pod("default", name)).unwrap();
        let status = object.map(|o| PodStatus::from_object(&o)).unwrap_or_default();
        status.condition("Ready").is_some_and(|c| c.status == ConditionStatus::True)
    }

    fn promises(&self) -> Vec<String> {
        let page = self.store.list("reserve/", &ListOptions::default()).unwrap();
        page.entries.into_iter().map(|e| e.key.to_string()).collect()
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("not within 10 s: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_lives_through_daemon_restarts_and_a_lost_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let host = FakeHost::with(FakeOptions::default());
    host.add_image("web:1", image(&["/bin/web"]));
    let author = Author::Api { user: "test".into() };

    let daemon = start(&path, &host).await;
    daemon.plane.sources_read();
    daemon.registry.create(&author, web(), WriteOptions::default()).await.unwrap();
    until("ready", || daemon.is_ready("web")).await;
    let object = daemon.registry.get(&ObjectKey::pod("default", "web")).unwrap();
    let uid = object.uid().unwrap().to_owned();
    assert_eq!(object.get_str("/spec/nodeName"), Some("node-1"));
    assert_eq!(daemon.promises(), [format!("reserve/pod-ip/{}", "10.88.0.2"), format!("reserve/pod/{uid}")]);
    let node = ObjectKey { group: String::new(), resource: "nodes".into(), namespace: None, name: "node-1".into() };
    until("the Node object", || daemon.registry.find(&node).unwrap().is_some()).await;
    daemon.stop().await;

    // Restarted: nothing is touched.
    host.forget_calls();
    let daemon = start(&path, &host).await;
    daemon.plane.sources_read();
    until("a full pass", || daemon.node.status().passes > 0).await;
    assert_eq!(host.calls().mutating(), 0, "{:?}", host.mutations());
    daemon.stop().await;

    // The database is gone; the same pod is declared again, and adopted.
    std::fs::remove_file(&path).unwrap();
    let daemon = start(&path, &host).await;
    daemon.registry.create(&author, web(), WriteOptions::default()).await.unwrap();
    daemon.plane.sources_read();
    until("ready", || daemon.is_ready("web")).await;
    assert_eq!(host.calls().mutating(), 0, "{:?}", host.mutations());
    until("promised anew", || {
        daemon.promises() == ["reserve/pod-ip/10.88.0.2".to_owned(), format!("reserve/pod/{uid}")]
    })
    .await;

    // Deleted: nothing is left.
    let key = ObjectKey::pod("default", "web");
    daemon
        .registry
        .delete(&author, &key, &DeleteOptions { grace_period_seconds: Some(1), ..DeleteOptions::default() })
        .await
        .unwrap();
    until("gone", || daemon.registry.find(&key).unwrap().is_none()).await;
    until("no promises", || daemon.promises().is_empty()).await;
    assert!(host.sandboxes().is_empty());
    daemon.stop().await;
}
