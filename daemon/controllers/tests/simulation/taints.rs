//! Nodes drive pods out.

use crate::world::{World, deployment, object};
use reddwarf_objects::object::timestamp;
use reddwarf_registry::{ApplyOptions, Author, Declared};
use serde_json::{Value, json};

fn pod(name: &str, tolerations: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": "n", "tolerations": tolerations, "containers": [{"name": "c", "image": "a"}]}})
}

fn bears(seconds: Value) -> Value {
    json!([{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": seconds}])
}

async fn taint(world: &World, taints: Value) {
    world.patch("nodes", "n", json!({"spec": {"taints": taints}})).await;
}

fn drives(added: Option<String>) -> Value {
    json!([{"key": "k", "value": "v", "effect": "NoExecute", "timeAdded": added}])
}

fn left(world: &World) -> Vec<String> {
    let mut names = world.names("pods");
    names.sort();
    names
}

#[tokio::test]
async fn who_does_not_tolerate_goes_when_its_time_has_come() {
    for seed in 0..3 {
        let mut world = World::new(seed).await;
        let file = Declared { object: object(pod("file", json!([]))), source: Some("/etc/file.yaml".into()) };
        let author = Author::File("/etc".into());
        world.registry.apply_set(&author, vec![file], ApplyOptions::default()).await.unwrap();
        let mut ended = pod("ended", json!([]));
        ended["spec"]["containers"][0]["image"] = json!("done");
        ended["spec"]["restartPolicy"] = json!("Never");
        for value in [ended, pod("plain", json!([])), pod("patient", bears(json!(null)))] {
            world.create(value).await;
        }
        world.create(pod("while", bears(json!(100)))).await;
        world.settle(500).await;
        assert_eq!(left(&world), ["ended", "file", "patient", "plain", "while"]);
        taint(&world, json!([{"key": "k", "value": "v", "effect": "NoSchedule"}])).await;
        world.settle(500).await;
        assert_eq!(left(&world).len(), 5, "only NoExecute drives pods out");
        taint(&world, drives(None)).await;
        world.settle(50).await;
        assert_eq!(left(&world), ["ended", "file", "patient", "while"]);
        let events = world.list("events");
        let said = events.iter().find(|e| e.get_str("/reason") == Some("TaintManagerEviction")).unwrap();
        assert_eq!(said.get_str("/message").unwrap(), "Marking for deletion Pod default/plain");
        // What comes later has its own time, and another turn does not begin it anew.
        world.create(pod("later", bears(json!(100)))).await;
        world.settle(49).await;
        assert_eq!(left(&world), ["ended", "file", "later", "patient", "while"]);
        world.settle(2).await;
        assert_eq!(left(&world), ["ended", "file", "later", "patient"]);
        // In time.
        taint(&world, json!([])).await;
        world.settle(500).await;
        assert_eq!(left(&world), ["ended", "file", "later", "patient"]);
        // Once more, from when it says.
        let then = timestamp(world.now());
        world.pass(40);
        taint(&world, drives(Some(then))).await;
        world.settle(58).await;
        assert_eq!(left(&world), ["ended", "file", "later", "patient"]);
        world.settle(3).await;
        assert_eq!(left(&world), ["ended", "file", "patient"]);
        world.writes_nothing_more().await;
    }
}

#[tokio::test]
async fn it_is_told_before_it_goes_and_others_are_made_elsewhere() {
    let mut world = World::new(7).await;
    world.create(deployment("web", 4, "a", json!({}))).await;
    world.settle(60).await;
    let node = |pod: &reddwarf_objects::Object| pod.get_str("/spec/nodeName").unwrap_or_default().to_owned();
    assert!(world.list("pods").iter().any(|pod| node(pod) == "n"));
    world.check = Some(Box::new(|world| {
        for pod in world.list("pods").iter().filter(|pod| pod.deletion_timestamp().is_some()) {
            let conditions = pod.get("/status/conditions").and_then(Value::as_array).unwrap();
            let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
            assert_eq!(target["reason"], "DeletionByTaintManager");
            assert_eq!(target["message"], "Taint manager: deleting due to NoExecute taint");
            assert_eq!(pod.get("/metadata/deletionGracePeriodSeconds"), Some(&json!(30)), "its own grace");
        }
    }));
    taint(&world, drives(None)).await;
    world.settle(60).await;
    world.check = None;
    let nodes: Vec<String> = world.list("pods").iter().map(node).collect();
    assert_eq!(nodes, ["m"; 4]);
    world.writes_nothing_more().await;
}
