use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn kind(api_version: &str, kind: &str) -> &'static Kind {
    kinds().by_gvk(api_version, kind).unwrap()
}

#[test]
fn events_have_two_sets_of_names() {
    let core = object(json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "a", "resourceVersion": "7"},
        "involvedObject": {"kind": "Pod", "name": "web"}, "message": "started", "reason": "Started", "type": "Normal",
        "reportingComponent": "kubelet", "reportingInstance": "n", "source": {"component": "kubelet"},
        "firstTimestamp": null, "lastTimestamp": "2026-01-02T03:04:05Z", "count": 3,
        "eventTime": "2026-01-02T03:04:05.123456Z",
        "series": {"count": 2, "lastObservedTime": "2026-01-02T03:04:06.000001Z"},
    }));
    let events = to_version(kind("events.k8s.io/v1", "Event"), core.clone());
    assert_eq!(
        events.value(),
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": "e", "namespace": "a", "resourceVersion": "7"},
            "regarding": {"kind": "Pod", "name": "web"}, "note": "started", "reason": "Started", "type": "Normal",
            "reportingController": "kubelet", "reportingInstance": "n", "deprecatedSource": {"component": "kubelet"},
            "deprecatedFirstTimestamp": null, "deprecatedLastTimestamp": "2026-01-02T03:04:05Z", "deprecatedCount": 3,
            "eventTime": "2026-01-02T03:04:05.123456Z",
            "series": {"count": 2, "lastObservedTime": "2026-01-02T03:04:06.000001Z"},
        })
    );
    assert_eq!(to_stored(events), core);
}

#[test]
fn every_field_of_an_event_has_its_place() {
    let fields = |k: &Kind| crate::schema::of_kind(k).unwrap().fields.iter().map(|f| f.name).collect::<Vec<_>>();
    let (core, events) = (kind("v1", "Event"), kind("events.k8s.io/v1", "Event"));
    let mut all = json!({"metadata": {}});
    fields(core).iter().for_each(|f| all[*f] = json!({}));
    all["apiVersion"] = "v1".into();
    all["kind"] = "Event".into();
    let converted = to_version(events, object(all));
    let mut names: Vec<&str> = converted.map().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, fields(events));
}

#[test]
fn the_old_autoscaler_keeps_the_rest_in_annotations() {
    let v2 = object(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "annotations": {"a": "b"}},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5,
            "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
            ],
            "behavior": {"scaleUp": {"stabilizationWindowSeconds": 3}},
        },
        "status": {
            "currentReplicas": 2, "desiredReplicas": 2,
            "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 20, "averageValue": "20m"}}}],
            "conditions": [{"type": "AbleToScale", "status": "True"}],
        },
    }));
    let v1 = to_version(kind("autoscaling/v1", "HorizontalPodAutoscaler"), v2.clone());
    let value = v1.value();
    assert_eq!(
        value["spec"],
        json!({"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5, "targetCPUUtilizationPercentage": 80})
    );
    assert_eq!(
        value["status"],
        json!({"currentReplicas": 2, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 20})
    );
    let annotation = |name: &str| v1.annotation(&format!("autoscaling.alpha.kubernetes.io/{name}")).unwrap();
    assert_eq!(annotation("metrics"), r#"[{"pods":{"metricName":"hits","targetAverageValue":"10"},"type":"Pods"}]"#);
    assert_eq!(annotation("conditions"), r#"[{"status":"True","type":"AbleToScale"}]"#);
    let back = to_stored(v1);
    assert_eq!(back, v2);
}

#[test]
fn annotations_that_are_no_json_say_nothing() {
    let v1 = object(json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "x", "annotations": {"autoscaling.alpha.kubernetes.io/metrics": "{", "autoscaling.alpha.kubernetes.io/behavior": "[]"}},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": null},
    }));
    let v2 = to_stored(v1);
    assert_eq!(v2.get("/spec").unwrap(), &json!({"maxReplicas": 3}));
    assert!(v2.annotation("autoscaling.alpha.kubernetes.io/metrics").is_none());
}

#[test]
fn other_kinds_are_stored_as_they_are() {
    for kind in kinds().iter().filter(|k| !matches!(k.kind, "Event" | "HorizontalPodAutoscaler")) {
        assert!(is_stored(kind), "{}", kind.kind);
    }
    assert!(!is_stored(kind("events.k8s.io/v1", "Event")) && is_stored(kind("v1", "Event")));
    assert_eq!(stored_group("events.k8s.io", "events"), "");
    assert_eq!(stored_group("apps", "deployments"), "apps");
}

/// A metric with a target, as v2 writes it after defaulting.
fn metric() -> impl Strategy<Value = Value> {
    let quantity = "[1-9]{1,3}m?";
    prop_oneof![
        (1..100_i32).prop_map(|n| json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": n}}})),
        quantity.prop_map(|q| json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": q}}})),
        (1..100_i32).prop_map(|n| json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": n}}})),
        quantity.prop_map(|q| json!({"type": "Pods", "pods": {"metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": q}}})),
        quantity.prop_map(|q| json!({"type": "Object", "object": {"describedObject": {"kind": "S", "name": "s"}, "metric": {"name": "m"}, "target": {"type": "Value", "value": q}}})),
        quantity.prop_map(|q| json!({"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": q}}})),
    ]
}

proptest! {
    #[test]
    fn there_and_back_nothing_is_lost(metrics in prop::collection::vec(metric(), 0..4), cpu in prop::option::of(1..100_i32)) {
        let mut metrics = metrics;
        metrics.extend(cpu.map(|n| json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": n}}})));
        let mut v2 = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"}, "spec": {"maxReplicas": 2}});
        if !metrics.is_empty() {
            v2["spec"]["metrics"] = json!(metrics);
        }
        let v2 = object(v2);
        let v1 = to_version(kind("autoscaling/v1", "HorizontalPodAutoscaler"), v2.clone());
        prop_assert!(v1.get("/spec/metrics").is_none());
        let back = to_stored(v1);
        prop_assert_eq!(back.get("/spec"), v2.get("/spec"));
    }
}
