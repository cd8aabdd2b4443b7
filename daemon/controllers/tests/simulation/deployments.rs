//! Rollouts as a user sees them.

use crate::world::{World, deployment, image, template};
use reddwarf_objects::Object;
use reddwarf_registry::Propagation;
use serde_json::{Value, json};

const REVISION: &str = "deployment.kubernetes.io/revision";

fn progressing(deployment: &Object) -> String {
    let all = deployment.get("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == "Progressing").cloned().unwrap_or_default();
    found["reason"].as_str().unwrap_or_default().to_owned()
}

fn counts(deployment: &Object) -> Vec<i64> {
    let of = |field: &str| deployment.get(&format!("/status/{field}")).and_then(Value::as_i64).unwrap_or(0);
    ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas"].map(of).to_vec()
}

/// In a rollout there are never more pods than replicas + maxSurge and never fewer available than replicas - maxUnavailable.
fn watch_limits(world: &mut World, most: usize, least: usize) {
    world.check = Some(Box::new(move |world| {
        let pods = world.list("pods");
        let live: Vec<_> = pods.iter().filter(|p| p.deletion_timestamp().is_none()).collect();
        let is_ready = |p: &&&Object| p.get("/status/conditions/0/status") == Some(&json!("True"));
        let ready = live.iter().filter(is_ready).count();
        assert!(live.len() <= most, "{} pods, at most {most}", live.len());
        assert!(ready >= least, "{ready} available, at least {least}");
    }));
}

#[tokio::test]
async fn a_rolling_update_stays_within_its_limits_and_can_be_undone() {
    for seed in 0..3 {
        let mut world = World::new(seed).await;
        world.create(deployment("web", 4, "a", json!({}))).await;
        world.settle(60).await;
        let web = world.get("deploy", "web");
        assert_eq!((counts(&web), progressing(&web).as_str()), (vec![4, 4, 4, 4, 0], "NewReplicaSetAvailable"));
        assert_eq!(web.annotation(REVISION), Some("1"));
        watch_limits(&mut world, 5, 3);
        world.patch("deploy", "web", image("b")).await;
        world.settle(60).await;
        let web = world.get("deploy", "web");
        assert_eq!((counts(&web), web.annotation(REVISION)), (vec![4, 4, 4, 4, 0], Some("2")));
        assert!(world.list("pods").iter().all(|p| p.get_str("/spec/containers/0/image") == Some("b")));
        assert_eq!(world.list("rs").len(), 2);
        world.patch("deploy", "web", image("a")).await;
        world.settle(60).await;
        assert_eq!(world.list("rs").len(), 2, "the old ReplicaSet is used again");
        assert_eq!(world.get("deploy", "web").annotation(REVISION), Some("3"));
        let old = world.list("rs").into_iter().find(|r| r.annotation(REVISION) == Some("3")).unwrap();
        assert_eq!(old.annotation("deployment.kubernetes.io/revision-history"), Some("1"));
        world.check = None;
        world.writes_nothing_more().await;
    }
}

#[tokio::test]
async fn a_rollout_that_never_gets_ready_keeps_the_old_pods_and_is_called_stuck() {
    let mut world = World::new(1).await;
    world.create(deployment("web", 4, "a", json!({"progressDeadlineSeconds": 30}))).await;
    world.settle(60).await;
    watch_limits(&mut world, 5, 3);
    world.patch("deploy", "web", image("never")).await;
    world.settle(100).await;
    let web = world.get("deploy", "web");
    assert_eq!(progressing(&web), "ProgressDeadlineExceeded");
    assert_eq!(counts(&web)[3], 3);
    world.writes_nothing_more().await;
    world.patch("deploy", "web", image("a")).await;
    world.settle(60).await;
    let web = world.get("deploy", "web");
    assert_eq!((counts(&web), progressing(&web).as_str()), (vec![4, 4, 4, 4, 0], "NewReplicaSetAvailable"));
}

#[tokio::test]
async fn recreate_waits_for_the_old_pods_to_be_gone() {
    let mut world = World::new(2).await;
    world.create(deployment("web", 3, "a", json!({"strategy": {"type": "Recreate"}}))).await;
    world.settle(60).await;
    world.check = Some(Box::new(|world| {
        let mut images: Vec<String> = world
            .list("pods")
            .iter()
            .filter_map(|p| p.get_str("/spec/containers/0/image").map(str::to_owned))
            .collect();
        images.dedup();
        assert!(images.len() <= 1, "{images:?} side by side");
    }));
    world.patch("deploy", "web", image("b")).await;
    world.settle(60).await;
    assert_eq!(counts(&world.get("deploy", "web")), [3, 3, 3, 3, 0]);
    world.check = None;
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(3).await;
    world.create(deployment("web", 2, "a", json!({}))).await;
    world.settle(60).await;
    world.patch("deploy", "web", json!({"spec": {"paused": true, "replicas": 3}})).await;
    world.patch("deploy", "web", image("b")).await;
    world.settle(60).await;
    let web = world.get("deploy", "web");
    assert_eq!((counts(&web)[2], progressing(&web).as_str()), (3, "DeploymentPaused"));
    assert!(world.list("pods").iter().all(|p| p.get_str("/spec/containers/0/image") == Some("a")));
    world.patch("deploy", "web", json!({"spec": {"paused": null}})).await;
    world.settle(60).await;
    assert_eq!(counts(&world.get("deploy", "web")), [3, 3, 3, 3, 0]);
    assert!(world.list("pods").iter().all(|p| p.get_str("/spec/containers/0/image") == Some("b")));
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn only_so_many_old_versions_are_kept() {
    let mut world = World::new(4).await;
    world.create(deployment("web", 1, "v0", json!({"revisionHistoryLimit": 2}))).await;
    for version in 1..6 {
        world.patch("deploy", "web", image(&format!("v{version}"))).await;
        world.settle(60).await;
    }
    assert_eq!(world.list("rs").len(), 3);
    let mut kept: Vec<String> = world.list("rs").iter().map(|r| r.annotation(REVISION).unwrap().to_owned()).collect();
    kept.sort();
    assert_eq!(kept.len(), 3);
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn ready_long_enough_counts() {
    let mut world = World::new(5).await;
    world.create(deployment("web", 2, "a", json!({"minReadySeconds": 30}))).await;
    world.settle(10).await;
    assert_eq!(counts(&world.get("deploy", "web")), [2, 2, 2, 0, 2]);
    world.settle(40).await;
    assert_eq!(counts(&world.get("deploy", "web")), [2, 2, 2, 2, 0]);
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn a_name_that_another_has_makes_another_hash() {
    let mut world = World::new(6).await;
    world.create(deployment("web", 1, "a", json!({}))).await;
    world.settle(60).await;
    let name = world.names("rs")[0].clone();
    world.delete("deploy", "web", Some(Propagation::Orphan)).await;
    world.settle(60).await;
    world.patch("rs", &name, json!({"metadata": {"labels": {"app": "other"}}})).await;
    world.create(deployment("web", 1, "a", json!({}))).await;
    world.settle(60).await;
    let web = world.get("deploy", "web");
    assert_eq!(web.get("/status/collisionCount"), Some(&json!(1)));
    assert_eq!(counts(&web), [1, 1, 1, 1, 0]);
    world.writes_nothing_more().await;
}

/// What is refused is tried again ever more rarely: the refusal, written down, must not bring about the next attempt.
#[tokio::test]
async fn a_refused_pod_is_no_reason_to_write_for_ever() {
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full", "namespace": "default"},
        "spec": {"hard": {"pods": "0"}}});
    let controller = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "rc", "namespace": "default"},
        "spec": {"replicas": 2, "selector": {"app": "rc"}, "template": template("rc", "a")}});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": "default"},
        "spec": {"parallelism": 2, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "done"}]}}}});
    let set = |kind: &str| {
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "set", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "set"}}, "template": template("set", "a")}})
    };
    let mut nobody = deployment("web", 2, "a", json!({}));
    nobody["spec"]["template"]["spec"]["serviceAccountName"] = json!("nobody");
    let web = || deployment("web", 2, "a", json!({}));
    let all = [
        (true, web()),
        (false, nobody),
        (true, controller),
        (true, job),
        (true, set("StatefulSet")),
        (true, set("DaemonSet")),
    ];
    for (full, object) in all {
        let mut world = World::new(1).await;
        if full {
            world.create(quota.clone()).await;
        }
        world.settle(10).await;
        let (kind, before) = (object["kind"].clone(), world.registry.revision().get());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        world.create(object).await;
        world.settle(60).await;
        // Each attempt is said once more, in an event; everything else is written once.
        let (first, events) = (world.registry.revision().get(), world.list("events").len());
        assert!(first - before < 40, "{kind}: {} writes in the first minute, {events} events", first - before);
        world.settle(60).await;
        let more = world.registry.revision().get() - first;
        assert!(more < 5, "{kind}: {more} writes in the second minute");
        assert!(world.list("pods").is_empty());
        let alias = kind.as_str().unwrap().to_lowercase();
        assert_eq!(
            world.get(&alias, &name).get("/status/observedGeneration").is_some(),
            kind != "Job",
            "{kind}: what is there is told all the same"
        );
    }
}

#[tokio::test]
async fn e11_pods_that_their_namespace_does_not_take_are_a_failure_of_their_replica_set() {
    let mut world = World::new(3).await;
    let label = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    world.patch("ns", "default", label("restricted")).await;
    world.create(deployment("web", 2, "a", json!({}))).await;
    world.settle(30).await;
    assert!(world.list("pods").is_empty());
    let set = world.list("rs").remove(0);
    let condition = set.get("/status/conditions/0").cloned().unwrap_or_default();
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("ReplicaFailure"), &json!("FailedCreate")));
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains("is forbidden: violates PodSecurity \"restricted:latest\": "), "{message}");
    // Once the namespace takes them they come by themselves.
    world.patch("ns", "default", label("baseline")).await;
    world.settle(400).await;
    assert_eq!(counts(&world.get("deploy", "web")), [2, 2, 2, 2, 0]);
}
