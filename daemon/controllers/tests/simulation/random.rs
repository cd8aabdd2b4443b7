//! Random edits in random order: whatever happened, it comes to rest, nothing is left over, and rest writes nothing.

use crate::world::{World, deployment, image, template};
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

/// The same for a StatefulSet and a Job.
async fn edit_others(world: &mut World) {
    let set = world.find("sts", "s").filter(|s| s.deletion_timestamp().is_none());
    let job = world.find("jobs", "j").filter(|j| j.deletion_timestamp().is_none());
    match (world.below(2), world.below(6)) {
        (0, _) if set.is_none() => {
            if world.find("sts", "s").is_none() {
                let policy = ["OrderedReady", "Parallel"][world.below(2)];
                let spec = json!({"replicas": world.below(4), "podManagementPolicy": policy,
                    "selector": {"matchLabels": {"app": "s"}}, "template": template("s", "v1")});
                world.create(json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "s", "namespace": "default"}, "spec": spec})).await;
            }
        }
        (0, 0) => world.delete("sts", "s", Some(Propagation::Foreground)).await,
        (0, 1..=2) => {
            let replicas = world.below(5);
            world.patch("sts", "s", json!({"spec": {"replicas": replicas}})).await;
        }
        (0, _) => {
            let version = ["v1", "v2", "v3"][world.below(3)];
            world.patch("sts", "s", image(version)).await;
        }
        (_, _) if job.is_none() => {
            if world.find("jobs", "j").is_none() {
                let image = ["done", "fail", "a"][world.below(3)];
                let pod = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}});
                let spec = json!({"completions": 3, "parallelism": 2, "backoffLimit": 2, "template": pod});
                world.create(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "default"}, "spec": spec})).await;
            }
        }
        (_, 0..=2) => {
            let how = [Propagation::Background, Propagation::Foreground, Propagation::Orphan][world.below(3)];
            world.delete("jobs", "j", Some(how)).await;
        }
        (_, _) => {
            let suspend = world.below(2) == 0;
            world.patch("jobs", "j", json!({"spec": {"suspend": suspend}})).await;
        }
    }
}

async fn vandalise(world: &mut World) {
    let pods = world.list("pods");
    if pods.is_empty() {
        return;
    }
    let pod = pods[world.below(pods.len())].name().to_owned();
    // A pod that is taken away from a StatefulSet keeps its name: nothing could come in its place.
    let numbered = pod.starts_with("s-");
    match world.below(3) {
        0 => world.delete("pods", &pod, None).await,
        1 if !numbered => drop(world.patch("pods", &pod, json!({"metadata": {"labels": {"app": "stolen"}}})).await),
        _ => world.pass(7),
    }
}

#[tokio::test]
async fn it_comes_to_rest_whatever_happens() {
    for seed in 0..seeds() {
        let mut world = World::new(seed).await;
        for _ in 0..25 {
            match world.below(4) {
                0 => vandalise(&mut world).await,
                1 => edit_others(&mut world).await,
                _ => edit(&mut world).await,
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
    for pod in world.list("pods") {
        let tracked = pod.finalizers().iter().any(|f| f.contains("job-tracking"));
        let active = !matches!(pod.get_str("/status/phase"), Some("Succeeded" | "Failed"));
        assert!(!tracked || active && pod.controller().is_some(), "seed {seed}: {} was never counted", pod.name());
    }
    for set in world.list("sts").iter().filter(|s| s.deletion_timestamp().is_none()) {
        for field in ["replicas", "readyReplicas", "updatedReplicas"] {
            let found = set.get(&format!("/status/{field}")).cloned().unwrap_or(json!(0));
            assert_eq!(Some(&found), set.get("/spec/replicas"), "seed {seed}: {field}: {:#?}", set.value());
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
    std::env::var("REDDWARF_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(4)
}
