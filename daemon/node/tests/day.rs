//! F43: a container crashes for 24 hours. Logs, events and the database stay bounded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use chrono::{DateTime, Utc};
use reddwarf_host::SystemClock;
use reddwarf_host::fake::{FakeHost, FakeOptions};
use reddwarf_node::control_plane::ControlPlane;
use reddwarf_node::registry_plane::RegistryPlane;
use reddwarf_objects::ObjectKey;
use reddwarf_registry::{Author, ListQuery, Registry, WriteOptions};
use reddwarf_store::{Store, StoreOptions};
use serde_json::json;
use std::path::Path;
use std::sync::{Arc, Mutex};
use support::plane::Written;
use support::*;

const DAY: u64 = 24 * 3600;

/// The day on the fake host, under virtual time: all that the node wrote.
async fn a_day(logs: &Path) -> Vec<(DateTime<Utc>, Written)> {
    let host = FakeHost::with(FakeOptions { write_logs: true, ..FakeOptions::default() });
    let mut settings = settings();
    settings.log_dir = logs.to_owned();
    settings.log_max_bytes = 4096;
    settings.log_max_files = 2;
    let world = World::on(host, settings).await;
    world.plane.keep_written();
    let command = ["sh", "-c", "echo one; echo two; sleep 1; echo three; exit 1"];
    world.plane.apply(pod_running("crash", &command, json!({})));
    world.sleep(DAY).await;
    let restarts = world.status("crash").container_statuses[0].restart_count;
    assert!((280..300).contains(&restarts), "every five minutes: {restarts}");
    let instances: usize = world.sandbox("crash").unwrap().containers.values().map(Vec::len).sum();
    assert!(instances <= 3, "{instances} instances are kept");
    let written = world.plane.written();
    let per_restart = written.len() / restarts as usize;
    assert!(per_restart <= 10, "{per_restart} writes for each restart");
    written
}

fn files_below(directory: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        match entry.metadata().unwrap() {
            meta if meta.is_dir() => found.extend(files_below(&entry.path())),
            meta => found.push((entry.path().display().to_string(), meta.len())),
        }
    }
    found
}

#[test]
fn a_day_of_crashes_leaves_logs_events_and_the_database_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("logs");
    let paused = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let written = paused.block_on(a_day(&logs));
    let files = files_below(&logs);
    assert!(files.len() <= 6, "{files:?}");
    assert!(files.iter().all(|(_, size)| *size <= 4096 + 200), "{files:?}");

    // The same day again, on the real registry and store.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let now = Arc::new(Mutex::new(written[0].0));
        let wall: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync> = {
            let now = now.clone();
            Arc::new(move || *now.lock().unwrap())
        };
        let options = StoreOptions { history_commits: 400, ..StoreOptions::new(wall.clone()) };
        let store = Store::open(directory.path().join("db"), options).unwrap().store;
        let registry = Registry::open(store.clone(), wall).await.unwrap();
        let plane = RegistryPlane::new(registry.clone(), Arc::new(SystemClock));
        let mut pod = pod("crash", json!({"nodeName": "node-1"}));
        pod.remove_annotation("reddwarf.io/source");
        let author = Author::Api { user: "test".into() };
        registry.create(&author, pod, WriteOptions::default()).await.unwrap();
        let made = registry.get(&ObjectKey::pod("default", "crash")).unwrap();
        let mut half = 0;
        for (n, (at, what)) in written.iter().enumerate() {
            *now.lock().unwrap() = *at;
            match what {
                Written::Status(status) => {
                    let uid = made.uid().unwrap();
                    plane.write_pod_status(&key("crash"), uid, status.clone()).await.unwrap();
                }
                Written::Event(event) => plane.record_event(&made, event.clone()).await,
            }
            if n == written.len() / 2 {
                half = store.stats().file_bytes;
            }
        }
        let stats = store.stats();
        assert!(stats.history_commits <= 400, "{stats:?}");
        assert!(stats.file_bytes <= half + (1 << 20) && stats.file_bytes < 16 << 20, "{half} then {stats:?}");
        let kind = reddwarf_objects::kinds().by_gvk("v1", "Event").unwrap();
        let events = registry.list(&ListQuery::all(kind)).unwrap().items;
        assert!(events.len() <= 10, "{} events", events.len());
        let count = |reason: &str| {
            let event = events.iter().find(|e| e.get_str("/reason") == Some(reason)).unwrap();
            event.get("/count").and_then(serde_json::Value::as_u64).unwrap()
        };
        assert!(count("BackOff") > 250 && count("Started") > 250, "counted, not repeated");
        store.close().await;
    });
}
