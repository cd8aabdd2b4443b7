//! Kinds that are served in two versions and stored once.

use crate::*;

const CORE: &str = "/api/v1/namespaces/default/events";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

/// As kube-rs records it.
fn event() -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "web.1"},
        "eventTime": "2026-01-02T03:04:05.123456Z", "type": "Normal", "reason": "Started", "action": "Starting",
        "note": "it runs", "reportingController": "operator.example.com", "reportingInstance": "operator-0",
        "regarding": {"apiVersion": "v1", "kind": "Pod", "name": "web", "namespace": "default", "uid": "u-1"},
    })
}

#[tokio::test]
async fn an_event_is_seen_in_both_groups() {
    let world = World::new().await;
    let mut watched = Lines::of(world.send("GET", &format!("{CORE}?watch=true"), &[], "").await);
    let (code, created) = world.post(EVENTS, event()).await;
    assert_eq!((code, created["apiVersion"].clone()), (201, json!("events.k8s.io/v1")), "{created}");
    assert_eq!((created["note"].clone(), created["regarding"]["name"].clone()), (json!("it runs"), json!("web")));

    let (_, core) = world.get(&format!("{CORE}/web.1")).await;
    assert_eq!((core["apiVersion"].clone(), core["message"].clone()), (json!("v1"), json!("it runs")));
    assert_eq!(core["involvedObject"]["uid"], "u-1");
    assert_eq!(core["eventTime"], "2026-01-02T03:04:05.123456Z");
    let frame = soon(watched.next()).await.unwrap();
    assert_eq!((frame["type"].clone(), frame["object"]["message"].clone()), (json!("ADDED"), json!("it runs")));

    // The recorder counts by patching `series`.
    let series = r#"{"series":{"count":2,"lastObservedTime":"2026-01-02T03:04:06.000001Z"}}"#;
    let (code, _, patched) = world.ask("PATCH", &format!("{EVENTS}/web.1"), series).await;
    assert_eq!((code, patched["series"]["count"].clone()), (200, json!(2)), "{patched}");
    let (code, _, refused) = world.ask("PATCH", &format!("{EVENTS}/web.1"), r#"{"note":"it still runs"}"#).await;
    assert_eq!((code, refused["details"]["causes"][0]["field"].clone()), (422, json!("message")), "{refused}");
    let (_, core) = world.get(&format!("{CORE}/web.1")).await;
    assert_eq!((core["series"]["count"].clone(), core["message"].clone()), (json!(2), json!("it runs")));
    assert_eq!(core["series"]["lastObservedTime"], "2026-01-02T03:04:06.000001Z");

    let (_, list) =
        world.get(&format!("{EVENTS}?fieldSelector=regarding.name=web,reportingController=operator.example.com")).await;
    assert_eq!((list["kind"].clone(), list["apiVersion"].clone()), (json!("EventList"), json!("events.k8s.io/v1")));
    assert_eq!(list["items"][0]["note"], "it runs", "{list}");
    let (_, list) = world.get(&format!("{CORE}?fieldSelector=involvedObject.name=web,involvedObject.kind=Pod")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let (code, _) = world.get(&format!("{CORE}?fieldSelector=regarding.name=web")).await;
    assert_eq!(code, 400);

    let (code, _, deleted) = world.ask("DELETE", &format!("{EVENTS}/web.1"), "").await;
    assert_eq!(code, 200, "{deleted}");
    assert_eq!(world.get(&format!("{CORE}/web.1")).await.0, 404);
}

#[tokio::test]
async fn each_version_has_its_rules() {
    let world = World::new().await;
    let mut bare = event();
    bare.as_object_mut().unwrap().remove("eventTime");
    let (code, answer) = world.post(EVENTS, bare).await;
    assert_eq!(code, 422, "{answer}");
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .starts_with("Event.events.k8s.io \"web.1\" is invalid: eventTime: Required value"),
        "{answer}"
    );
    // What core/v1 asks is less.
    let old = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}});
    let (code, answer) = world.post(CORE, old).await;
    assert_eq!((code, answer["apiVersion"].clone()), (201, json!("v1")), "{answer}");
    let (_, same) = world.get(&format!("{EVENTS}/e")).await;
    assert_eq!(
        (same["regarding"].clone(), same["deprecatedSource"].clone()),
        (json!({"namespace": "default"}), json!({})),
        "{same}"
    );
}

#[tokio::test]
async fn an_old_autoscaler_is_a_new_one() {
    let world = World::new().await;
    let (v1, v2) = (
        "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
        "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
    );
    let old = json!({
        "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5, "targetCPUUtilizationPercentage": 60},
    });
    let (code, created) = world.post(v1, old).await;
    assert_eq!((code, created["apiVersion"].clone()), (201, json!("autoscaling/v1")), "{created}");
    assert_eq!(
        (created["spec"]["targetCPUUtilizationPercentage"].clone(), created["spec"]["minReplicas"].clone()),
        (json!(60), json!(1))
    );
    let (_, new) = world.get(&format!("{v2}/web")).await;
    let target = json!({"type": "Utilization", "averageUtilization": 60});
    assert_eq!(new["spec"]["metrics"], json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));

    let (code, _, patched) =
        world.ask("PATCH", &format!("{v1}/web"), r#"{"spec":{"targetCPUUtilizationPercentage":70}}"#).await;
    assert_eq!((code, patched["spec"]["targetCPUUtilizationPercentage"].clone()), (200, json!(70)), "{patched}");
    let (_, list) = world.get(v2).await;
    assert_eq!(list["items"][0]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    let (_, list) = world.get(v1).await;
    assert_eq!(list["items"][0]["spec"]["targetCPUUtilizationPercentage"], 70, "{list}");
    assert!(list["items"][0]["spec"].get("metrics").is_none());
}
