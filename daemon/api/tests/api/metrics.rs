//! metrics.k8s.io and the kubelet's summary.

use crate::*;

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

async fn world() -> World {
    let world = World::new().await;
    world.namespace("shop").await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "box", "labels": {"kubernetes.io/os": "linux"}}});
    assert_eq!(world.post("/api/v1/nodes", node).await.0, 201);
    for (namespace, tier) in [("default", "front"), ("shop", "back")] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"tier": tier}},
            "spec": {"containers": [{"name": "app", "image": "a"}]}});
        assert_eq!(world.post(&format!("/api/v1/namespaces/{namespace}/pods"), pod).await.0, 201);
    }
    world
}

#[tokio::test]
async fn nodes_and_pods_have_metrics_in_the_shape_of_metrics_server() {
    let world = world().await;
    let (code, list) = world.get(&format!("{METRICS}/nodes")).await;
    assert_eq!(
        (code, &list["kind"], &list["apiVersion"]),
        (200, &json!("NodeMetricsList"), &json!("metrics.k8s.io/v1beta1"))
    );
    let node = &list["items"][0];
    assert_eq!(node["usage"], json!({"cpu": "1500m", "memory": "4Ki"}));
    assert_eq!((&node["window"], &node["timestamp"]), (&json!("15.25s"), &json!("1970-01-01T00:00:00Z")));
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/os"], "linux");
    let (_, one) = world.get(&format!("{METRICS}/nodes/box")).await;
    assert_eq!((&one["kind"], &one["metadata"]["name"]), (&json!("NodeMetrics"), &json!("box")));
    let (_, all) = world.get(&format!("{METRICS}/pods")).await;
    assert_eq!(all["items"].as_array().unwrap().len(), 2, "a pod that is gone has none: {all}");
    let (_, shop) = world.get(&format!("{METRICS}/namespaces/shop/pods")).await;
    assert_eq!(shop["items"].as_array().unwrap().len(), 1);
    let (_, front) = world.get(&format!("{METRICS}/pods?labelSelector=tier%3Dfront")).await;
    let usage = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    assert_eq!(
        front["items"][0]["containers"],
        json!([{"name": "app", "usage": usage("250m", "10240Ki")}, {"name": "side", "usage": usage("1n", "0")}])
    );
    let (code, status) = world.get(&format!("{METRICS}/namespaces/default/pods/none")).await;
    let message = "podmetrics.metrics.k8s.io \"default/none\" not found";
    assert_eq!((code, &status["message"]), (404, &json!(message)));
    assert_eq!(world.post(&format!("{METRICS}/nodes"), json!({})).await.0, 405);
    assert_eq!(world.get(&format!("{METRICS}/pods?watch=true")).await.0, 405);
}

#[tokio::test]
async fn metrics_are_discovered_and_described_and_summaries_come_through_the_nodes_proxy() {
    let world = world().await;
    let (_, found) = world.get(METRICS).await;
    let names: Vec<&str> = found["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["nodes", "pods"]);
    assert_eq!(found["resources"][1]["verbs"], json!(["get", "list"]));
    let (_, document) = world.get("/openapi/v3/apis/metrics.k8s.io/v1beta1").await;
    assert!(document["components"]["schemas"]["io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics"].is_object());
    let (code, summary) = world.get("/api/v1/nodes/box/proxy/stats/summary").await;
    assert_eq!((code, &summary["node"]["nodeName"]), (200, &json!("box")));
    assert_eq!(world.get("/api/v1/nodes/none/proxy/stats/summary").await.0, 404);
    assert_eq!(world.get("/api/v1/nodes/box/proxy/pods").await.0, 404);
}
