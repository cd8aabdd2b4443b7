//! Namespaces, accounts, budgets, quotas.

use crate::world::{World, deployment};
use reddwarf_objects::{Object, ObjectKey};
use reddwarf_registry::{Author, DeleteOptions, ListQuery};
use serde_json::{Value, json};

fn namespaced(kind: &str, namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}})
}

fn condition(object: &Object, kind: &str) -> Value {
    let all = object.get("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    all.into_iter().find(|c| c["type"] == kind).unwrap_or_default()
}

#[tokio::test]
async fn a_namespace_goes_with_everything_in_it() {
    let mut world = World::new(1).await;
    world.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})).await;
    world.settle(1).await;
    for n in 0..20 {
        world.create(namespaced("ConfigMap", "team", &format!("c{n}"))).await;
    }
    let mut held = namespaced("Secret", "team", "held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    world.create(held).await;
    let mut web = deployment("web", 2, "a", json!({}));
    web["metadata"]["namespace"] = json!("team");
    world.create(web).await;
    world.settle(60).await;
    world.delete("ns", "team", None).await;
    world.settle(60).await;
    let team = world.get("ns", "team");
    assert_eq!(team.get_str("/status/phase"), Some("Terminating"));
    assert_eq!(
        condition(&team, "NamespaceContentRemaining")["message"],
        "Some resources are remaining: secrets has 1 resource instances"
    );
    let remaining = condition(&team, "NamespaceFinalizersRemaining");
    assert_eq!(
        remaining["message"],
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    );
    let key = ObjectKey::core("secrets", "team", "held");
    world.registry.modify(&Author::System("test"), &key, |o| drop(o.remove("/metadata/finalizers"))).await.unwrap();
    world.settle(60).await;
    assert!(world.find("ns", "team").is_none());
    let left = world.registry.list(&ListQuery::all(reddwarf_objects::kinds().by_alias("pods").unwrap())).unwrap();
    assert!(left.items.is_empty());
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn every_namespace_has_its_account() {
    let mut world = World::new(2).await;
    world.settle(1).await;
    assert!(world.find("sa", "default").is_some());
    world.delete("sa", "default", None).await;
    world.settle(1).await;
    assert!(world.find("sa", "default").is_some(), "made anew");
    world.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})).await;
    world.settle(1).await;
    assert!(world.registry.find(&ObjectKey::core("serviceaccounts", "team", "default")).unwrap().is_some());
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn evictions_stay_within_the_budget() {
    let mut world = World::new(3).await;
    world.create(deployment("web", 3, "a", json!({}))).await;
    world
        .create(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}}))
        .await;
    world.settle(60).await;
    let allowed =
        |world: &World| world.get("pdb", "web").get("/status/disruptionsAllowed").and_then(Value::as_i64).unwrap();
    let budget = world.get("pdb", "web");
    assert_eq!((budget.get("/status/expectedPods"), allowed(&world)), (Some(&json!(3)), 1));
    assert_eq!(condition(&budget, "DisruptionAllowed")["reason"], "SufficientPods");
    let names = world.names("pods");
    let author = crate::world::alice();
    let evict =
        async |name: &str| world.registry.evict(&author, &world.key("pods", name), &DeleteOptions::default()).await;
    evict(&names[0]).await.unwrap();
    assert!(evict(&names[1]).await.is_err(), "the budget is used up");
    world.settle(60).await;
    assert_eq!((allowed(&world), world.list("pods").len()), (1, 3), "replaced: one may go again");
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn a_quota_counts_what_comes_and_goes() {
    let mut world = World::new(4).await;
    world
        .create(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "default"},
            "spec": {"hard": {"pods": "10", "configmaps": "5"}}}))
        .await;
    world.create(namespaced("ConfigMap", "default", "a")).await;
    world.create(deployment("web", 2, "a", json!({}))).await;
    world.settle(60).await;
    let used = |world: &World| world.get("quota", "q").get("/status/used").cloned().unwrap();
    assert_eq!(used(&world), json!({"pods": "2", "configmaps": "1"}));
    world.delete("cm", "a", None).await;
    world.patch("deploy", "web", json!({"spec": {"replicas": 1}})).await;
    world.settle(60).await;
    assert_eq!(used(&world), json!({"pods": "1", "configmaps": "0"}));
    world.writes_nothing_more().await;
}

fn on(node: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "a"}]}})
}

#[tokio::test]
async fn a_pod_of_a_node_that_never_was_can_be_deleted_and_goes_by_itself() {
    let mut world = World::new(3).await;
    for name in ["a", "b"] {
        world.create(on("typo", name)).await;
    }
    world.settle(10).await;
    world.delete("pods", "a", None).await;
    world.settle(1).await;
    assert_eq!(world.names("pods"), ["b"], "nobody would ever say that it has stopped");
    world.settle(20).await;
    assert_eq!(world.names("pods"), ["b"], "the node may be about to come");
    world.settle(20).await;
    assert!(world.list("pods").is_empty());
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn a_node_that_was_taken_away_may_come_back() {
    let mut world = World::new(4).await;
    for (node, name) in [("m", "going"), ("m", "there"), ("n", "own")] {
        world.create(on(node, name)).await;
    }
    world.settle(10).await;
    let node = world.get("nodes", "m");
    for name in ["m", "n"] {
        world.delete("nodes", name, None).await;
    }
    world.delete("pods", "going", None).await;
    world.settle(30).await;
    assert_eq!(world.names("pods"), ["going", "own", "there"]);
    let mut again = node.into_value();
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        again["metadata"][field] = Value::Null;
    }
    world.create(again.clone()).await;
    world.settle(60).await;
    assert_eq!(world.names("pods"), ["own", "there"], "its kubelet is back");
    world.delete("nodes", "m", None).await;
    world.settle(60).await;
    assert_eq!(world.names("pods"), ["own"], "this host's own pods run, whoever deleted its Node");
}
