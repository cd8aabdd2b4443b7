//! Who goes with whom.

use crate::world::{World, deployment, template};
use reddwarf_objects::Object;
use reddwarf_registry::Propagation;
use serde_json::{Value, json};

fn owned(name: &str, owner: &Object, more: Value) -> Value {
    let mut reference =
        json!({"apiVersion": owner.api_version(), "kind": owner.kind(), "name": owner.name(), "uid": owner.uid()});
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        reference[key] = value;
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default", "ownerReferences": [reference]}})
}

fn config(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}})
}

#[tokio::test]
async fn in_the_background_everything_goes() {
    for seed in 0..2 {
        let mut world = World::new(seed).await;
        world.create(deployment("web", 3, "a", json!({}))).await;
        world.settle(60).await;
        world.delete("deploy", "web", None).await;
        assert!(world.find("deploy", "web").is_none(), "the owner goes at once");
        world.settle(60).await;
        assert_eq!((world.list("rs").len(), world.list("pods").len()), (0, 0));
        world.writes_nothing_more().await;
    }
}

#[tokio::test]
async fn in_the_foreground_the_owner_goes_last() {
    for seed in 0..2 {
        let mut world = World::new(seed).await;
        world.create(deployment("web", 3, "a", json!({}))).await;
        world.settle(60).await;
        world.check = Some(Box::new(|world| {
            let left = world.list("pods").len() + world.list("rs").len();
            assert!(left == 0 || world.find("deploy", "web").is_some(), "{left} left without their owner");
        }));
        world.delete("deploy", "web", Some(Propagation::Foreground)).await;
        world.settle(60).await;
        world.check = None;
        assert_eq!((world.list("deploy").len(), world.list("rs").len(), world.list("pods").len()), (0, 0, 0));
        world.writes_nothing_more().await;
    }
}

#[tokio::test]
async fn orphans_stay_and_are_adopted() {
    let mut world = World::new(3).await;
    world.create(deployment("web", 3, "a", json!({}))).await;
    world.settle(60).await;
    let mut before = world.names("pods");
    world.delete("deploy", "web", Some(Propagation::Orphan)).await;
    world.settle(60).await;
    assert!(world.find("deploy", "web").is_none());
    assert_eq!(world.list("rs").len(), 1);
    assert!(world.list("rs")[0].owner_references().is_empty());
    assert_eq!(world.names("pods"), before);
    world.create(deployment("web", 3, "a", json!({}))).await;
    world.settle(60).await;
    before.sort();
    let mut after = world.names("pods");
    after.sort();
    assert_eq!(after, before, "the new Deployment adopts the ReplicaSet with its pods");
    assert_eq!(world.list("rs").len(), 1);
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn only_what_all_owners_left_goes() {
    let mut world = World::new(4).await;
    let (one, two) = (world.create(config("one")).await, world.create(config("two")).await);
    let mut both = owned("both", &one, json!({}));
    both["metadata"]["ownerReferences"]
        .as_array_mut()
        .unwrap()
        .push(json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "two", "uid": two.uid()}));
    world.create(both).await;
    world.create(owned("single", &one, json!({}))).await;
    world.settle(60).await;
    world.delete("cm", "one", None).await;
    world.settle(60).await;
    assert!(world.find("cm", "single").is_none());
    assert_eq!(world.get("cm", "both").owner_references().len(), 1);
    // Another object of the same name is another owner.
    world.delete("cm", "two", None).await;
    world.create(config("two")).await;
    world.settle(60).await;
    assert!(world.find("cm", "both").is_none());
}

#[tokio::test]
async fn what_can_not_be_looked_up_is_not_gone() {
    let mut world = World::new(5).await;
    let mut strange = config("strange");
    strange["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "x"}]);
    world.create(strange).await;
    let pv = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1, "metadata": {"name": "p",
        "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "x"}]}});
    world.create(pv).await;
    world.settle(60).await;
    assert!(world.find("cm", "strange").is_some() && world.find("pc", "p").is_some());
    let said = world.list("events");
    assert!(said.iter().any(|e| e.get_str("/reason") == Some("OwnerRefInvalidNamespace")));
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn pods_are_adopted_and_released_by_their_labels() {
    let mut world = World::new(6).await;
    let mut loose = template("web", "a");
    loose["apiVersion"] = json!("v1");
    loose["kind"] = json!("Pod");
    loose["metadata"]["name"] = json!("loose");
    loose["metadata"]["namespace"] = json!("default");
    world.create(loose).await;
    world
        .create(
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("web", "a")}}),
        )
        .await;
    world.settle(60).await;
    assert_eq!(world.list("pods").len(), 2, "the loose one counts");
    assert!(world.get("pods", "loose").controller().is_some());
    world.patch("pods", "loose", json!({"metadata": {"labels": {"app": "mine"}}})).await;
    world.settle(60).await;
    assert_eq!(world.list("pods").len(), 3, "a released pod is replaced");
    assert!(world.get("pods", "loose").controller().is_none());
    world.writes_nothing_more().await;
}
