//! StatefulSets, DaemonSets, the scheduler.

use crate::world::{World, image, template};
use serde_json::{Value, json};

fn object(kind: &str, name: &str, image: &str, more: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": name}}, "template": template(name, image)});
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        spec[key] = value;
    }
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

fn images(world: &World) -> Vec<String> {
    let mut pods = world.list("pods");
    pods.sort_by_key(|p| p.name().to_owned());
    pods.iter().map(|p| p.get_str("/spec/containers/0/image").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_stateful_set_comes_up_in_order_rolls_back_to_front_and_keeps_its_claims() {
    for seed in 0..2 {
        let mut world = World::new(seed).await;
        let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
        world
            .create(object(
                "StatefulSet",
                "db",
                "a",
                json!({"replicas": 3, "serviceName": "db", "volumeClaimTemplates": claims}),
            ))
            .await;
        world.check = Some(Box::new(|world| {
            let unready = world
                .list("pods")
                .iter()
                .filter(|p| p.get("/status/conditions").is_none_or(|c| c.to_string().contains("False")))
                .count();
            assert!(unready <= 1, "{unready} pods at one time");
        }));
        world.settle(60).await;
        assert_eq!(world.names("pods"), ["db-0", "db-1", "db-2"]);
        assert_eq!(world.names("pvc"), ["data-db-0", "data-db-1", "data-db-2"]);
        let pod = world.get("pods", "db-1");
        assert_eq!(pod.get_str("/spec/hostname"), Some("db-1"));
        assert_eq!(pod.get_str("/spec/subdomain"), Some("db"));
        assert_eq!(pod.get_str("/spec/volumes/0/persistentVolumeClaim/claimName"), Some("data-db-1"));
        assert_eq!(pod.label("apps.kubernetes.io/pod-index"), Some("1"));
        world.patch("sts", "db", image("b")).await;
        world.settle(60).await;
        assert_eq!(images(&world), ["b", "b", "b"]);
        let set = world.get("sts", "db");
        assert_eq!(set.get("/status/currentRevision"), set.get("/status/updateRevision"));
        assert_eq!(set.get("/status/updatedReplicas"), Some(&json!(3)));
        assert_eq!(world.list("controllerrevisions").len(), 2);
        world.patch("sts", "db", json!({"spec": {"replicas": 1}})).await;
        world.settle(60).await;
        assert_eq!((world.names("pods"), world.list("pvc").len()), (vec!["db-0".to_owned()], 3));
        world.check = None;
        world.writes_nothing_more().await;
        world.delete("sts", "db", None).await;
        world.settle(60).await;
        assert_eq!(
            (world.list("pods").len(), world.list("controllerrevisions").len(), world.list("pvc").len()),
            (0, 0, 3)
        );
    }
}

#[tokio::test]
async fn claims_go_with_what_the_retention_policy_says() {
    let mut world = World::new(9).await;
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    let policy = json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    let spec = json!({"replicas": 2, "volumeClaimTemplates": claims, "persistentVolumeClaimRetentionPolicy": policy});
    world.create(object("StatefulSet", "db", "a", spec)).await;
    world.settle(60).await;
    world.patch("sts", "db", json!({"spec": {"replicas": 1}})).await;
    world.settle(60).await;
    assert_eq!(world.names("pvc"), ["data-db-0"]);
    world.writes_nothing_more().await;
    world.delete("sts", "db", None).await;
    world.settle(60).await;
    assert!(world.list("pvc").is_empty() && world.list("pods").is_empty());
}

#[tokio::test]
async fn a_partition_holds_the_lower_numbers_back() {
    let mut world = World::new(4).await;
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    let spec = json!({"replicas": 3, "updateStrategy": strategy, "podManagementPolicy": "Parallel"});
    world.create(object("StatefulSet", "db", "a", spec)).await;
    world.settle(60).await;
    world.patch("sts", "db", image("b")).await;
    world.settle(60).await;
    assert_eq!(images(&world), ["a", "a", "b"]);
    world.delete("pods", "db-0", None).await;
    world.settle(60).await;
    assert_eq!(images(&world), ["a", "a", "b"], "made anew in the version of its number");
    world.patch("sts", "db", json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})).await;
    world.settle(60).await;
    assert_eq!(images(&world), ["b", "b", "b"]);
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn a_daemon_set_runs_on_every_node_that_it_selects() {
    for seed in 0..2 {
        let mut world = World::new(seed).await;
        world.create(object("DaemonSet", "agent", "a", json!({}))).await;
        world.settle(60).await;
        let mut nodes: Vec<_> =
            world.list("pods").iter().map(|p| p.get_str("/spec/nodeName").unwrap().to_owned()).collect();
        nodes.sort();
        assert_eq!(nodes, ["m", "n"]);
        world.patch("ds", "agent", image("b")).await;
        world.settle(60).await;
        assert_eq!(images(&world), ["b", "b"]);
        let set = world.get("ds", "agent");
        for field in ["desiredNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable"] {
            assert_eq!(set.get(&format!("/status/{field}")), Some(&json!(2)), "{field}");
        }
        world
            .patch(
                "ds",
                "agent",
                json!({"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": "n"}}}}}),
            )
            .await;
        world.settle(60).await;
        assert_eq!(world.list("pods").len(), 1);
        world.writes_nothing_more().await;
    }
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_is_placed_once_it_fits() {
    let mut world = World::new(1).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "c", "image": "a"}]}});
    world.create(pod).await;
    world.settle(60).await;
    let text = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    let condition = world.get("pods", "p").get("/status/conditions/0").cloned().unwrap();
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"]),
        (&json!("PodScheduled"), &json!("False"), &json!("Unschedulable"))
    );
    assert_eq!(condition["message"], text);
    assert!(
        world
            .list("events")
            .iter()
            .any(|e| e.get_str("/reason") == Some("FailedScheduling") && e.get_str("/message") == Some(text))
    );
    world.writes_nothing_more().await;
    world.patch("nodes", "m", json!({"metadata": {"labels": {"disk": "ssd"}}})).await;
    world.settle(60).await;
    assert_eq!(world.get("pods", "p").get_str("/spec/nodeName"), Some("m"));
}

#[tokio::test]
async fn what_does_not_fit_waits_for_room() {
    let mut world = World::new(2).await;
    for name in ["a", "b", "c"] {
        world
            .create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "a", "resources": {"requests": {"cpu": "3"}}}]}}))
            .await;
    }
    world.settle(60).await;
    let waiting = |world: &World| {
        world
            .list("pods")
            .iter()
            .filter(|p| p.get_str("/spec/nodeName").is_none())
            .map(|p| p.name().to_owned())
            .collect::<Vec<_>>()
    };
    let left = waiting(&world);
    assert_eq!(left.len(), 1, "two nodes with 4 cpus take one each");
    let placed = world.names("pods").into_iter().find(|n| !left.contains(n)).unwrap();
    world.delete("pods", &placed, None).await;
    world.settle(60).await;
    assert!(waiting(&world).is_empty());
    world.writes_nothing_more().await;
}
