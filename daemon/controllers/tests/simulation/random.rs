//! Random edits in random order: whatever happened, it comes to rest, nothing is left over, and rest writes nothing.

use crate::world::{World, deployment, image};
use reddwarf_registry::Propagation;
use serde_json::json;

async fn edit(world: &mut World) {
    let name = ["a", "b"][world.below(2)];
    let there = world.find("deploy", name).filter(|d| d.deletion_timestamp().is_none());
    match (there.is_some(), world.below(10)) {
        (false, _) => {
            if world.find("deploy", name).is_none() {
                let replicas = world.below(5) as i64;
                let strategy = if world.below(4) == 0 { "Recreate" } else { "RollingUpdate" };
                world.create(deployment(name, replicas, "v1", json!({"strategy": {"type": strategy}}))).await;
            }
        }
        (true, 0) => world.delete("deploy", name, None).await,
        (true, 1) => world.delete("deploy", name, Some(Propagation::Foreground)).await,
        (true, 2) => world.delete("deploy", name, Some(Propagation::Orphan)).await,
        (true, 3..=5) => {
            let replicas = world.below(6);
            world.patch("deploy", name, json!({"spec": {"replicas": replicas}})).await;
        }
        (true, 6) => {
            let paused = world.below(2) == 0;
            world.patch("deploy", name, json!({"spec": {"paused": paused}})).await;
        }
        (true, _) => {
            let version = ["v1", "v2", "v3", "never"][world.below(4)];
            world.patch("deploy", name, image(version)).await;
        }
    }
}

async fn vandalise(world: &mut World) {
    let pods = world.list("pods");
    if pods.is_empty() {
        return;
    }
    let pod = pods[world.below(pods.len())].name().to_owned();
    match world.below(3) {
        0 => world.delete("pods", &pod, None).await,
        1 => drop(world.patch("pods", &pod, json!({"metadata": {"labels": {"app": "stolen"}}})).await),
        _ => world.pass(7),
    }
}

#[tokio::test]
async fn it_comes_to_rest_whatever_happens() {
    for seed in 0..seeds() {
        let mut world = World::new(seed).await;
        for _ in 0..25 {
            if world.below(4) == 0 {
                vandalise(&mut world).await
            } else {
                edit(&mut world).await
            }
            for _ in 0..world.below(25) {
                world.step().await;
            }
        }
        for name in ["a", "b"] {
            if world.find("deploy", name).is_some_and(|d| d.deletion_timestamp().is_none()) {
                world.patch("deploy", name, json!({"spec": {"paused": false}})).await;
                world.patch("deploy", name, image("v1")).await;
            }
        }
        world.settle(1000).await;
        check(&world, seed);
        world.writes_nothing_more().await;
    }
}

fn check(world: &World, seed: u64) {
    for object in world.list("pods").into_iter().chain(world.list("rs")) {
        for owner in object.owner_references() {
            let alive =
                world.find(&owner.kind.to_lowercase(), &owner.name).is_some_and(|o| o.uid() == Some(&owner.uid));
            assert!(alive, "seed {seed}: {} {} outlived its owner", object.kind(), object.name());
        }
    }
    for deployment in world.list("deploy") {
        let wanted = deployment.get("/spec/replicas").unwrap();
        for field in ["replicas", "updatedReplicas", "availableReplicas"] {
            let found = deployment.get(&format!("/status/{field}")).cloned().unwrap_or(json!(0));
            assert_eq!(&found, wanted, "seed {seed}: {field} of {}: {:#?}", deployment.name(), deployment.value());
        }
    }
}

/// `REDDWARF_SEEDS=500` looks for longer.
fn seeds() -> u64 {
    std::env::var("REDDWARF_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(6)
}
