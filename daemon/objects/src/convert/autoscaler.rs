//! autoscaling/v2 and autoscaling/v1 HorizontalPodAutoscaler. v1 knows one metric, the processors' utilisation; everything else is in
//! annotations there, in the form that v1's authors gave metrics.

use crate::object::Object;
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// How a metric's fields are named: where in v2, and where in the annotation, by the metric's type.
struct Names {
    kind: &'static str,
    field: &'static str,
    pairs: &'static [(&'static str, &'static str)],
}

/// What is wanted of metrics.
const SPECS: [Names; 5] = [
    Names {
        kind: "Resource",
        field: "resource",
        pairs: &[
            ("/name", "name"),
            ("/target/averageUtilization", "targetAverageUtilization"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    },
    Names {
        kind: "ContainerResource",
        field: "containerResource",
        pairs: &[
            ("/name", "name"),
            ("/container", "container"),
            ("/target/averageUtilization", "targetAverageUtilization"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    },
    Names {
        kind: "Pods",
        field: "pods",
        pairs: &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    },
    Names {
        kind: "Object",
        field: "object",
        pairs: &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/target/value", "targetValue"),
            ("/target/averageValue", "averageValue"),
        ],
    },
    Names {
        kind: "External",
        field: "external",
        pairs: &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/target/value", "targetValue"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    },
];

/// What metrics are now.
const STATUSES: [Names; 5] = [
    Names {
        kind: "Resource",
        field: "resource",
        pairs: &[
            ("/name", "name"),
            ("/current/averageUtilization", "currentAverageUtilization"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    },
    Names {
        kind: "ContainerResource",
        field: "containerResource",
        pairs: &[
            ("/name", "name"),
            ("/container", "container"),
            ("/current/averageUtilization", "currentAverageUtilization"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    },
    Names {
        kind: "Pods",
        field: "pods",
        pairs: &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    },
    Names {
        kind: "Object",
        field: "object",
        pairs: &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/current/value", "currentValue"),
            ("/current/averageValue", "averageValue"),
        ],
    },
    Names {
        kind: "External",
        field: "external",
        pairs: &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/current/value", "currentValue"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    },
];

pub(super) fn to_v1(object: &mut Object) {
    object.map_mut().insert("apiVersion".to_owned(), "autoscaling/v1".into());
    let metrics = take_list(object, "/spec/metrics");
    let (processors, others): (Vec<Value>, Vec<Value>) = metrics.into_iter().partition(is_processors);
    if let Some(wanted) = processors.iter().find_map(|m| m.pointer("/resource/target/averageUtilization")) {
        object.set("/spec/targetCPUUtilizationPercentage", wanted.clone());
    }
    annotate(object, METRICS, others.iter().map(|metric| renamed(&SPECS, metric)).collect());
    if let Some(behavior) = object.remove("/spec/behavior") {
        object.set_annotation(BEHAVIOR, &behavior.to_string());
    }
    let current = take_list(object, "/status/currentMetrics");
    let of_processors = |m: &&Value| m["type"] == "Resource" && m["resource"]["name"] == "cpu";
    let now = current.iter().filter(of_processors).find_map(|m| m.pointer("/resource/current/averageUtilization"));
    if let Some(now) = now {
        object.set("/status/currentCPUUtilizationPercentage", now.clone());
    }
    annotate(object, CURRENT_METRICS, current.iter().map(|metric| renamed(&STATUSES, metric)).collect());
    let conditions = take_list(object, "/status/conditions");
    annotate(object, CONDITIONS, conditions);
}

pub(super) fn to_v2(object: &mut Object) {
    object.map_mut().insert("apiVersion".to_owned(), "autoscaling/v2".into());
    let processors = object.remove("/spec/targetCPUUtilizationPercentage").filter(|v| !v.is_null()).map(|wanted| {
        let target = json!({"type": "Utilization", "averageUtilization": wanted});
        json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    });
    let mut metrics: Vec<Value> = annotated(object, METRICS).iter().map(|metric| restored(&SPECS, metric)).collect();
    metrics.extend(processors);
    put_list(object, "/spec/metrics", metrics);
    if let Some(behavior) = parsed(object, BEHAVIOR).filter(Value::is_object) {
        object.set("/spec/behavior", behavior);
    }
    let now = object
        .remove("/status/currentCPUUtilizationPercentage")
        .filter(|v| !v.is_null())
        .map(|now| json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": now}}}));
    let current: Vec<Value> = annotated(object, CURRENT_METRICS).iter().map(|m| restored(&STATUSES, m)).collect();
    // The annotation knows more than the number.
    put_list(object, "/status/currentMetrics", if current.is_empty() { now.into_iter().collect() } else { current });
    let conditions = annotated(object, CONDITIONS);
    put_list(object, "/status/conditions", conditions);
    for annotation in [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR] {
        object.remove_annotation(annotation);
    }
}

/// Is it what v1 has a field for?
fn is_processors(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric.pointer("/resource/target/averageUtilization").is_some_and(|v| !v.is_null())
}

fn take_list(object: &mut Object, pointer: &str) -> Vec<Value> {
    match object.remove(pointer) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn put_list(object: &mut Object, pointer: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.set(pointer, list);
    }
}

fn annotate(object: &mut Object, annotation: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.set_annotation(annotation, &Value::Array(list).to_string());
    }
}

/// The JSON in an annotation; what is none is as if it were not there.
fn parsed(object: &Object, annotation: &str) -> Option<Value> {
    serde_json::from_str(object.annotation(annotation)?).ok()
}

fn annotated(object: &Object, annotation: &str) -> Vec<Value> {
    match parsed(object, annotation) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// A metric of v2 as the annotation has it.
fn renamed(names: &[Names], metric: &Value) -> Value {
    let mut out = Map::from_iter([("type".to_owned(), metric["type"].clone())]);
    for names in names {
        if let Some(from) = metric.get(names.field).filter(|v| v.is_object()) {
            let pairs = names.pairs.iter().filter_map(|(v2, old)| Some(((*old).to_owned(), from.pointer(v2)?.clone())));
            out.insert(names.field.to_owned(), Value::Object(pairs.collect()));
        }
    }
    Value::Object(out)
}

/// The other way round. What v2 calls the target's type follows from which number there is.
fn restored(names: &[Names], metric: &Value) -> Value {
    let mut out = Map::from_iter([("type".to_owned(), metric["type"].clone())]);
    for names in names.iter().filter(|names| metric["type"] == names.kind || metric.get(names.field).is_some()) {
        let Some(from) = metric.get(names.field).filter(|v| v.is_object()) else { continue };
        let mut restored = json!({});
        for (v2, old) in names.pairs {
            if let Some(value) = from.get(*old).filter(|v| !v.is_null()) {
                insert(&mut restored, v2, value.clone());
            }
        }
        if let Some(target) = restored.get_mut("target").and_then(Value::as_object_mut) {
            let has = |field: &str| target.contains_key(field);
            let kind = match (has("averageUtilization"), has("averageValue")) {
                (true, _) => "Utilization",
                (false, true) => "AverageValue",
                (false, false) => "Value",
            };
            target.insert("type".to_owned(), kind.into());
        }
        out.insert(names.field.to_owned(), restored);
    }
    Value::Object(out)
}

fn insert(into: &mut Value, pointer: &str, value: Value) {
    let mut at = into;
    for step in pointer.split('/').skip(1) {
        at = &mut at[step];
    }
    *at = value;
}
