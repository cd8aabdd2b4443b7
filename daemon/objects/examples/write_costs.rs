//! What patches and managedFields cost, in microseconds of one core: `cargo run --release -p reddwarf-objects --example write_costs`.

use chrono::{DateTime, Utc};
use reddwarf_objects::{
    Kind, Object,
    apply::{self, FieldManager},
    default, kinds, patch,
};
use serde_json::{Value, json};
use std::hint::black_box;

const ROUNDS: u32 = 20_000;

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "default", "labels": {"app": "web", "tier": "front"}, "annotations": {"a.b/c": "d"}},
        "spec": {"containers": [
            {"name": "web", "image": "registry.example.com/web:1.2.3", "ports": [{"containerPort": 8080}, {"containerPort": 9090, "name": "metrics"}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 5},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            {"name": "side", "image": "registry.example.com/side:4", "args": ["--x"]}],
            "volumes": [{"name": "data", "emptyDir": {}}]}})
}

/// Nanoseconds that this process has spent on a processor: other programs don't count.
fn cpu_time() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

fn measure(what: &str, mut round: impl FnMut()) {
    (0..ROUNDS / 10).for_each(|_| round());
    let start = cpu_time();
    (0..ROUNDS).for_each(|_| round());
    println!("{what:<50} {:>7.2} µs", (cpu_time() - start) as f64 / 1e3 / f64::from(ROUNDS));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let now = DateTime::<Utc>::UNIX_EPOCH;
    let kind: &Kind = kinds().by_gvk("v1", "Pod").ok_or("no Pod")?;
    let manager = FieldManager { name: "bench", subresource: None };
    let config = Object::from_value(pod())?;
    let mut plain = config.clone();
    default(kind, &mut plain);
    let mut created = plain.clone();
    apply::track(kind, None, &mut created, &manager, now);
    let text = created.to_json();
    println!("a pod of {} bytes, {} of them managedFields", text.len(), text.len() - plain.to_json().len());

    measure("copying the pod (in all that follows)", || drop(black_box(plain.clone())));
    measure("track a create", || {
        let mut new = plain.clone();
        apply::track(kind, None, &mut new, &manager, now);
        black_box(new);
    });
    measure("track an update of one field", || {
        let mut new = created.clone();
        new.set("/spec/containers/0/image", "other");
        apply::track(kind, Some(&created), &mut new, &manager, now);
        black_box(new);
    });
    let status = FieldManager { name: "kubelet", subresource: Some("status") };
    measure("track an update of status", || {
        let mut new = created.clone();
        new.set("/status", json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
        apply::track(kind, Some(&created), &mut new, &status, now);
        black_box(new);
    });
    measure("track an update that changes nothing", || {
        let mut new = created.clone();
        apply::track(kind, Some(&created), &mut new, &manager, now);
        black_box(new);
    });
    measure("apply, new", || drop(black_box(apply::apply(kind, None, &config, &manager, false, now))));
    let applied = apply::apply(kind, None, &config, &manager, false, now)?;
    measure("apply again, nothing changes", || {
        drop(black_box(apply::apply(kind, Some(&applied), &config, &manager, false, now)))
    });
    let mut less = config.clone();
    less.remove("/spec/volumes");
    measure("apply again, a field left out", || {
        drop(black_box(apply::apply(kind, Some(&applied), &less, &manager, false, now)))
    });
    let strategic = json!({"spec": {"$setElementOrder/containers": [{"name": "web"}, {"name": "side"}],
        "containers": [{"name": "web", "image": "x:2", "$setElementOrder/env": [{"name": "A"}, {"name": "B"}, {"name": "C"}, {"name": "D"}], "env": [{"name": "D", "value": "4"}]}]}});
    let value = created.value();
    measure("strategic merge patch", || {
        let mut doc = value.clone();
        black_box(patch::strategic(kind, &mut doc, &strategic).is_ok());
    });
    let operations = json!([{"op": "test", "path": "/spec/containers/0/name", "value": "web"}, {"op": "replace", "path": "/spec/containers/0/image", "value": "x:2"}]);
    measure("JSON patch", || {
        let mut doc = value.clone();
        black_box(patch::json(&mut doc, &operations).is_ok());
    });
    Ok(())
}
