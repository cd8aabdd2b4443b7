//! What an object takes of a ResourceQuota (Kubernetes: "Resource Quotas"). Pure.

use crate::{Kind, Object, Quantity};
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts by resource name, as in `spec.hard`.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads a list of resources such as `spec.hard`; what is no quantity is left out.
pub fn amounts(list: Option<&Value>) -> Amounts {
    let all = list.and_then(Value::as_object).into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.clone(), Quantity::from_value(value).ok()?))).collect()
}

/// Adds one list to another.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).copied().unwrap_or_else(|| Quantity::from_units(0)) + *amount;
        total.insert(name.clone(), sum);
    }
}

/// Everything that an object takes, under every name that a quota may use for it. Nothing for pods that have ended.
pub fn usage(kind: &Kind, object: &Object) -> Amounts {
    let one = Quantity::from_units(1);
    let mut used = Amounts::new();
    if kind.is_core("Pod") && is_over(object) {
        used.insert("count/pods".to_owned(), one);
        return used;
    }
    used.insert(format!("count/{}", kind.group_resource()), one);
    let plain = [
        "configmaps",
        "pods",
        "persistentvolumeclaims",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "services",
    ];
    if kind.group.is_empty() && plain.contains(&kind.plural) {
        used.insert(kind.plural.to_owned(), one);
    }
    match (kind.group, kind.kind) {
        ("", "Pod") => add(&mut used, &pod(object)),
        ("", "Service") => add(&mut used, &service(object)),
        ("", "PersistentVolumeClaim") => add(&mut used, &claim(object)),
        _ => {}
    }
    used
}

/// Does a quota count this object? Scopes only ever narrow pods down.
pub fn counts(quota: &Object, kind: &Kind, object: &Object) -> bool {
    let scopes = quota.get("/spec/scopes").and_then(Value::as_array).into_iter().flatten();
    let plain = scopes.filter_map(Value::as_str).map(|scope| (scope, "Exists", Vec::new()));
    let selector = quota.get("/spec/scopeSelector/matchExpressions").and_then(Value::as_array);
    let expressions = selector.into_iter().flatten().map(|e| {
        let text = |field: &str| e.get(field).and_then(Value::as_str).unwrap_or_default();
        let values = e.get("values").and_then(Value::as_array).into_iter().flatten();
        (text("scopeName"), text("operator"), values.filter_map(Value::as_str).collect::<Vec<_>>())
    });
    plain
        .chain(expressions)
        .all(|(scope, operator, values)| kind.is_core("Pod") && in_scope(object, scope, operator, &values))
}

fn in_scope(pod: &Object, scope: &str, operator: &str, values: &[&str]) -> bool {
    let limited = pod.get("/spec/activeDeadlineSeconds").and_then(Value::as_i64).is_some();
    let best_effort =
        || crate::pod::Pod::from_object(pod).is_ok_and(|p| p.qos_class() == crate::pod::QosClass::BestEffort);
    match scope {
        "Terminating" => limited,
        "NotTerminating" => !limited,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = pod.get_str("/spec/priorityClassName").filter(|c| !c.is_empty());
            match operator {
                "In" => class.is_some_and(|c| values.contains(&c)),
                "NotIn" => class.is_some_and(|c| !values.contains(&c)),
                "DoesNotExist" => class.is_none(),
                _ => class.is_some(),
            }
        }
        _ => false,
    }
}

fn is_over(pod: &Object) -> bool {
    matches!(pod.get_str("/status/phase"), Some("Succeeded" | "Failed"))
}

/// All containers and sidecars together, or the largest init container when that is more.
fn pod(object: &Object) -> Amounts {
    let mut used = Amounts::new();
    for (field, prefix) in [("requests", "requests."), ("limits", "limits.")] {
        let of = |container: &Value| amounts(container.pointer(&format!("/resources/{field}")));
        let list = |name: &str| object.get(&format!("/spec/{name}")).and_then(Value::as_array).into_iter().flatten();
        let is_sidecar = |c: &&Value| c.get("restartPolicy").and_then(Value::as_str) == Some("Always");
        let mut together = Amounts::new();
        list("containers").chain(list("initContainers").filter(is_sidecar)).for_each(|c| add(&mut together, &of(c)));
        for container in list("initContainers").filter(|c| !is_sidecar(c)) {
            for (name, amount) in of(container) {
                let most = together.get(&name).copied().map_or(amount, |t| t.max(amount));
                together.insert(name, most);
            }
        }
        for (name, amount) in together {
            if field == "requests" && matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                used.insert(name.clone(), amount);
            }
            used.insert(format!("{prefix}{name}"), amount);
        }
    }
    used
}

fn service(object: &Object) -> Amounts {
    let ports = object.get("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
    let ports = Quantity::from_units(i64::try_from(ports).unwrap_or(i64::MAX));
    let one = Quantity::from_units(1);
    let mut used = Amounts::new();
    match object.get_str("/spec/type") {
        Some("NodePort") => drop(used.insert("services.nodeports".to_owned(), ports)),
        Some("LoadBalancer") => {
            used.insert("services.loadbalancers".to_owned(), one);
            if object.get("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)) {
                used.insert("services.nodeports".to_owned(), ports);
            }
        }
        _ => {}
    }
    used
}

fn claim(object: &Object) -> Amounts {
    let mut used = Amounts::new();
    let storage = amounts(object.get("/spec/resources/requests")).remove("storage");
    let class = object.get_str("/spec/storageClassName").filter(|c| !c.is_empty());
    if let Some(storage) = storage {
        used.insert("requests.storage".to_owned(), storage);
        if let Some(class) = class {
            used.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), storage);
        }
    }
    if let Some(class) = class {
        used.insert(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), Quantity::from_units(1));
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use serde_json::json;

    fn used(value: Value) -> BTreeMap<String, String> {
        let object = Object::from_value(value).unwrap();
        usage(object.known_kind().unwrap(), &object).into_iter().map(|(k, v)| (k, v.to_string())).collect()
    }

    #[test]
    fn what_a_pod_takes() {
        let container =
            |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"memory": "1Gi"}}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
            "containers": [container("100m"), container("200m")], "initContainers": [container("1")]}});
        let all = used(pod.clone());
        let of = |name: &str| all.get(name).map(String::as_str);
        assert_eq!(
            (of("cpu"), of("requests.cpu"), of("limits.memory"), of("memory")),
            (Some("1"), Some("1"), Some("2Gi"), None)
        );
        assert_eq!((of("pods"), of("count/pods")), (Some("1"), Some("1")));
        let mut ended = pod;
        ended["status"] = json!({"phase": "Succeeded"});
        assert_eq!(used(ended), [("count/pods".to_owned(), "1".to_owned())].into());
    }

    #[test]
    fn what_others_take() {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "5Gi"}}}});
        let claim = used(claim);
        assert_eq!(claim["requests.storage"], "5Gi");
        assert_eq!(claim["fast.storageclass.storage.k8s.io/persistentvolumeclaims"], "1");
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{}, {}]}});
        assert_eq!(used(service)["services.nodeports"], "2");
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}});
        assert_eq!(used(job), [("count/jobs.batch".to_owned(), "1".to_owned())].into());
    }

    #[test]
    fn scopes_narrow_down() {
        let pod = Object::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"priorityClassName": "high", "containers": [{"name": "c"}]}}))
        .unwrap();
        let kind = kinds().by_gvk("v1", "Pod").unwrap();
        for (spec, expected) in [
            (json!({}), true),
            (json!({"scopes": ["BestEffort"]}), true),
            (json!({"scopes": ["BestEffort", "Terminating"]}), false),
            (json!({"scopes": ["NotTerminating"]}), true),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}),
                true,
            ),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "NotIn", "values": ["high"]}]}}),
                false,
            ),
        ] {
            let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": spec});
            assert_eq!(counts(&Object::from_value(quota).unwrap(), kind, &pod), expected, "{spec}");
        }
    }
}
