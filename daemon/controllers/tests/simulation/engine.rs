//! The engine itself: what one controller does wrong is its own affair.

use crate::world::{World, deployment};
use async_trait::async_trait;
use reddwarf_controllers::runtime::{Again, Change, Context, Controller, Engine, Failure, Id, View};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Panics whenever it may.
#[derive(Default)]
struct Shaky(AtomicUsize);

#[async_trait]
impl Controller for Shaky {
    fn name(&self) -> &'static str {
        "shaky"
    }

    fn triggers(&self, _view: &View, change: &Change, add: &mut dyn FnMut(Id)) {
        let Some(object) = change.object() else { return };
        add(object.id.clone());
        assert!(object.id.is_pod(), "on purpose");
    }

    async fn sync(&self, _context: &Context, _id: &Id) -> Result<Again, Failure> {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("on purpose");
    }
}

#[tokio::test]
async fn a_panic_stops_nobody_else_and_comes_back_ever_more_seldom() {
    let mut world = World::new(1).await;
    let shaky = Arc::new(Shaky::default());
    let mut all = reddwarf_controllers::all(&reddwarf_controllers::Options::default());
    all.insert(0, shaky.clone());
    world.engine = Engine::new(world.registry.clone(), all);
    world.engine.list(Duration::ZERO).unwrap();
    world.create(deployment("web", 1, "a", json!({}))).await;
    world.settle(30).await;
    assert_eq!(world.get("deploy", "web").get("/status/availableReplicas"), Some(&json!(1)));
    let early = shaky.0.load(Ordering::Relaxed);
    world.settle(30).await;
    let late = shaky.0.load(Ordering::Relaxed) - early;
    assert!(early > 0 && late < early, "{early} panics in the first half minute, {late} in the second");
}

#[tokio::test]
async fn the_real_loop_follows_and_acts() {
    let world = World::new(2).await;
    let running =
        tokio::spawn(reddwarf_controllers::run(world.registry.clone(), reddwarf_controllers::Options::default()));
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 20, "selector": {"matchLabels": {"app": "web"}}, "template": crate::world::template("web", "a")}});
    let kind = reddwarf_objects::kinds().by_alias("rs").unwrap();
    let query = reddwarf_registry::ListQuery::all(kind);
    let (_, mut watch) = world.registry.list_and_watch(&query).unwrap();
    world.create(set).await;
    let all_there = async {
        loop {
            let event = watch.next().await.unwrap();
            if event.object.get("/status/replicas") == Some(&json!(20)) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_there).await.expect("20 pods in 20 s");
    assert_eq!(world.list("pods").len(), 20);
    running.abort();
}
