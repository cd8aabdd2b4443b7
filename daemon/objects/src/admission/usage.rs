//! What an object uses of a namespace's quotas.
//!
//! Source: Kubernetes "Resource Quotas".

use crate::{kind::Kind, object::Object, quantity::Quantity};
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts by resource, as in `spec.hard`.
pub type Amounts = BTreeMap<String, Quantity>;

/// A map of quantities; what is none is left out.
pub fn amounts(value: Option<&Value>) -> Amounts {
    let map = value.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(name, amount)| Some((name.clone(), Quantity::from_value(amount).ok()?))).collect()
}

/// Adds one list to another.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.entry(name.clone()).or_insert(Quantity::from_units(0));
        *sum = *sum + *amount;
    }
}

/// What the containers of a pod ask for together: all at once, or an init container and the sidecars before it.
fn of_containers(pod: &Object, list: &str) -> Amounts {
    let containers = |field: &str| pod.get(&format!("/spec/{field}")).and_then(Value::as_array).into_iter().flatten();
    let of = |container: &Value| amounts(container.pointer(&format!("/resources/{list}")));
    let mut running = Amounts::new();
    containers("containers").for_each(|container| add(&mut running, &of(container)));
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in containers("initContainers") {
        let asked = of(container);
        let mut now = sidecars.clone();
        add(&mut now, &asked);
        now.retain(|name, _| asked.contains_key(name));
        if container.get("restartPolicy").is_some_and(|policy| policy == "Always") {
            add(&mut sidecars, &asked);
            add(&mut running, &asked);
        }
        grow(&mut peak, now);
    }
    grow(&mut running, peak);
    // What the pod says as a whole counts instead of its containers' sum.
    running.extend(amounts(pod.get(&format!("/spec/resources/{list}"))));
    running
}

/// Keeps the greater of both amounts.
fn grow(most: &mut Amounts, other: Amounts) {
    for (name, amount) in other {
        let most = most.entry(name).or_insert(amount);
        *most = (*most).max(amount);
    }
}

/// What a pod asks for.
pub(super) fn pod_requests(pod: &Object) -> Amounts {
    let mut sum = of_containers(pod, "requests");
    add(&mut sum, &amounts(pod.get("/spec/overhead")));
    sum
}

/// What a pod may use.
pub(super) fn pod_limits(pod: &Object) -> Amounts {
    let mut sum = of_containers(pod, "limits");
    let mut overhead = amounts(pod.get("/spec/overhead"));
    overhead.retain(|name, _| sum.contains_key(name));
    add(&mut sum, &overhead);
    sum
}

/// What an object uses, under every name that a quota can give it. Nothing for a pod that has ended.
pub fn usage(kind: &Kind, object: &Object) -> Amounts {
    let one = Quantity::from_units(1);
    let mut used = Amounts::new();
    if kind.is_core("Pod") && matches!(object.get_str("/status/phase"), Some("Succeeded" | "Failed")) {
        used.insert("count/pods".to_owned(), one);
        return used;
    }
    used.insert(format!("count/{}", kind.group_resource()), one);
    match (kind.group, kind.kind) {
        ("", "Pod") => {
            used.insert("pods".to_owned(), one);
            add_pod(&mut used, object);
        }
        ("", "Service") => {
            used.insert("services".to_owned(), one);
            add_service(&mut used, object);
        }
        ("", "PersistentVolumeClaim") => add_claim(&mut used, object),
        ("", "ConfigMap" | "Secret" | "ReplicationController" | "ResourceQuota") => {
            used.insert(kind.plural.to_owned(), one);
        }
        _ => {}
    }
    used
}

fn add_pod(used: &mut Amounts, pod: &Object) {
    for (name, amount) in pod_requests(pod) {
        used.insert(format!("requests.{name}"), amount);
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            used.insert(name, amount);
        }
    }
    for (name, amount) in pod_limits(pod) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), amount);
        }
    }
}

fn add_service(used: &mut Amounts, service: &Object) {
    let ports = service.get("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
    let ports = Quantity::from_units(i64::try_from(ports).unwrap_or(i64::MAX));
    let none = Quantity::from_units(0);
    let (node_ports, balancers) = match service.get_str("/spec/type") {
        Some("NodePort") => (ports, none),
        Some("LoadBalancer") => {
            let allocates = service.get("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
            (if allocates { ports } else { none }, Quantity::from_units(1))
        }
        _ => (none, none),
    };
    used.insert("services.nodeports".to_owned(), node_ports);
    used.insert("services.loadbalancers".to_owned(), balancers);
}

fn add_claim(used: &mut Amounts, claim: &Object) {
    let one = Quantity::from_units(1);
    used.insert("persistentvolumeclaims".to_owned(), one);
    let storage = amounts(claim.get("/spec/resources/requests")).remove("storage");
    let class = claim.get_str("/spec/storageClassName").filter(|class| !class.is_empty());
    if let Some(class) = class {
        used.insert(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), one);
    }
    if let Some(storage) = storage {
        used.insert("requests.storage".to_owned(), storage);
        if let Some(class) = class {
            used.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), storage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
