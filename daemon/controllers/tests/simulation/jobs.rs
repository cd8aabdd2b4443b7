//! Jobs and CronJobs as a user sees them.

use crate::world::{World, alice};
use reddwarf_objects::Object;
use reddwarf_registry::{Author, DeleteOptions};
use serde_json::{Value, json};

fn job(name: &str, image: &str, more: Value) -> Value {
    let mut spec =
        json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}}});
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        spec[key] = value;
    }
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

fn conditions(object: &Object) -> Vec<String> {
    let all = object.get("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    all.iter().filter(|c| c["status"] == "True").map(|c| c["type"].as_str().unwrap().to_owned()).collect()
}

fn count(object: &Object, field: &str) -> i64 {
    object.get(&format!("/status/{field}")).and_then(Value::as_i64).unwrap_or(0)
}

#[tokio::test]
async fn a_job_runs_until_enough_have_succeeded() {
    for seed in 0..2 {
        let mut world = World::new(seed).await;
        world.check = Some(Box::new(|world| {
            let live = world
                .list("pods")
                .iter()
                .filter(|p| !matches!(p.get_str("/status/phase"), Some("Succeeded" | "Failed")))
                .count();
            assert!(live <= 2, "{live} at one time");
        }));
        world.create(job("pi", "done", json!({"completions": 5, "parallelism": 2}))).await;
        world.settle(60).await;
        let pi = world.get("jobs", "pi");
        assert_eq!((count(&pi, "succeeded"), count(&pi, "failed"), count(&pi, "active")), (5, 0, 0));
        assert_eq!(conditions(&pi), ["SuccessCriteriaMet", "Complete"]);
        assert_eq!(pi.get("/status/uncountedTerminatedPods"), Some(&json!({})));
        assert!(pi.get_str("/status/completionTime").is_some());
        let pods = world.list("pods");
        assert_eq!(pods.len(), 5, "they stay to be looked at");
        assert!(pods.iter().all(|p| p.finalizers().is_empty()));
        world.check = None;
        world.writes_nothing_more().await;
        world.delete("jobs", "pi", Some(reddwarf_registry::Propagation::Background)).await;
        world.settle(60).await;
        assert!(world.list("pods").is_empty());
    }
}

#[tokio::test]
async fn a_job_that_fails_gives_up() {
    let mut world = World::new(1).await;
    world.create(job("bad", "fail", json!({"backoffLimit": 2}))).await;
    world.settle(20).await;
    let early = world.get("jobs", "bad");
    assert!(
        conditions(&early).is_empty() && count(&early, "failed") == 2,
        "the next try is held back: {:?}",
        early.status()
    );
    world.settle(60).await;
    let bad = world.get("jobs", "bad");
    assert_eq!((conditions(&bad), count(&bad, "failed")), (vec!["FailureTarget".to_owned(), "Failed".to_owned()], 3));
    let said = world.list("events");
    assert!(said.iter().any(|e| e.get_str("/reason") == Some("BackoffLimitExceeded")));
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn an_evicted_pod_is_no_failure_where_the_policy_says_so() {
    let policy =
        json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]});
    let per_index = json!({"completionMode": "Indexed", "completions": 1, "backoffLimitPerIndex": 0});
    for limits in [json!({"backoffLimit": 0}), per_index] {
        an_eviction_is_ignored(limits, &policy).await;
    }
}

async fn an_eviction_is_ignored(mut spec: Value, policy: &Value) {
    let mut world = World::new(5).await;
    spec["podFailurePolicy"] = policy.clone();
    world.create(job("long", "run", spec)).await;
    world.settle(5).await;
    let first = world.names("pods");
    let key = world.key("pods", &first[0]);
    world.registry.evict(&alice(), &key, &DeleteOptions::default()).await.unwrap();
    let failed = |pod: &mut Object| pod.set("/status/phase", "Failed");
    world.registry.modify_status(&Author::System("node"), &key, failed).await.unwrap();
    world.settle(60).await;
    let long = world.get("jobs", "long");
    assert_eq!((conditions(&long), count(&long, "failed"), count(&long, "active")), (vec![], 0, 1));
    assert_eq!(long.get("/status/failedIndexes"), None);
    assert_ne!(world.names("pods"), first, "another takes its place");
}

#[tokio::test]
async fn indexes_each_get_a_pod() {
    let mut world = World::new(2).await;
    world.create(job("many", "done", json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"}))).await;
    world.settle(60).await;
    let many = world.get("jobs", "many");
    assert_eq!(many.get_str("/status/completedIndexes"), Some("0-2"));
    let mut hosts: Vec<_> =
        world.list("pods").iter().map(|p| p.get_str("/spec/hostname").unwrap().to_owned()).collect();
    hosts.sort();
    assert_eq!(hosts, ["many-0", "many-1", "many-2"]);
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn suspended_jobs_wait_and_deadlines_end_them() {
    let mut world = World::new(3).await;
    world.create(job("slow", "a", json!({"suspend": true, "activeDeadlineSeconds": 30}))).await;
    world.settle(60).await;
    assert!(world.list("pods").is_empty());
    assert_eq!(conditions(&world.get("jobs", "slow")), ["Suspended"]);
    world.patch("jobs", "slow", json!({"spec": {"suspend": false}})).await;
    world.settle(20).await;
    assert_eq!(count(&world.get("jobs", "slow"), "active"), 1);
    world.settle(60).await;
    let slow = world.get("jobs", "slow");
    assert!(conditions(&slow).contains(&"Failed".to_owned()), "{:?}", slow.status());
    assert!(world.list("pods").iter().all(|p| p.finalizers().is_empty()));
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn what_ended_goes_after_its_time_to_live() {
    let mut world = World::new(4).await;
    world.create(job("short", "done", json!({"ttlSecondsAfterFinished": 100}))).await;
    world.settle(60).await;
    assert!(world.find("jobs", "short").is_some());
    world.settle(60).await;
    assert!(world.find("jobs", "short").is_none() && world.list("pods").is_empty());
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn pods_of_a_deleted_job_are_let_go() {
    let mut world = World::new(5).await;
    world.create(job("gone", "a", json!({"parallelism": 2, "completions": 2}))).await;
    world.settle(10).await;
    assert_eq!(world.list("pods").len(), 2);
    world.delete("jobs", "gone", Some(reddwarf_registry::Propagation::Background)).await;
    world.settle(60).await;
    assert!(world.list("pods").is_empty());
    world.create(job("left", "a", json!({}))).await;
    world.settle(10).await;
    world.delete("jobs", "left", Some(reddwarf_registry::Propagation::Orphan)).await;
    world.settle(60).await;
    let pods = world.list("pods");
    assert!(pods.len() == 1 && pods[0].finalizers().is_empty() && pods[0].owner_references().is_empty());
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn a_cron_job_makes_a_job_at_each_moment() {
    let mut world = World::new(6).await;
    let template = job("x", "done", json!({}))["spec"].clone();
    world
        .create(
            json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick", "namespace": "default"},
            "spec": {"schedule": "*/5 * * * *", "successfulJobsHistoryLimit": 2, "jobTemplate": {"spec": template}}}),
        )
        .await;
    // It is 03:04:05.
    world.settle(60).await;
    assert_eq!(world.names("jobs"), ["tick-29455385"]);
    let tick = world.get("cj", "tick");
    assert_eq!(tick.get_str("/status/lastScheduleTime"), Some("2026-01-02T03:05:00Z"));
    assert!(tick.get("/status/active").is_none(), "it has ended");
    world.settle(1200).await;
    assert_eq!(world.list("jobs").len(), 2, "older ones are swept");
    assert_eq!(world.get("cj", "tick").get_str("/status/lastScheduleTime"), Some("2026-01-02T03:25:00Z"));
    world.patch("cj", "tick", json!({"spec": {"suspend": true}})).await;
    world.writes_nothing_more().await;
}
