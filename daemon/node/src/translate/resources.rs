//! Requests and limits, as the kubelet computes them.

use super::Facts;
use reddwarf_host::spec::{ContainerRole, Resources};
use reddwarf_objects::Quantity;
use reddwarf_objects::pod::{Container, Pod, PodSpec, QosClass, ResourceList};

/// CPU in thousandths.
pub(crate) fn cpu(list: &ResourceList) -> Option<u64> {
    amount(list.get("cpu").map(Quantity::millis))
}

/// Memory in bytes.
pub(crate) fn memory(list: &ResourceList) -> Option<u64> {
    bytes(list, "memory")
}

/// Any other amount, in its own unit.
pub(super) fn bytes(list: &ResourceList, name: &str) -> Option<u64> {
    amount(list.get(name).map(Quantity::units))
}

/// Huge pages of one size in bytes.
fn huge_pages(list: &ResourceList, name: &str) -> Option<u64> {
    amount(list.get(name).map(Quantity::units))
}

/// Zero and less stand for "nothing said", as in Kubernetes.
fn amount(value: Option<i64>) -> Option<u64> {
    value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0)
}

/// One amount of a [`ResourceList`].
type Pick = fn(&ResourceList) -> Option<u64>;

/// One container's limits; processes are always limited. Where it names no limit of its own, the pod's holds for it.
pub(super) fn container(pod: &PodSpec, container: &Container, default_pids: u64) -> Resources {
    let limits = &container.resources.limits;
    let limit = |pick: Pick| pick(limits).or_else(|| pick(&pod.resources.limits));
    Resources {
        cpu_request_millis: cpu(&container.resources.requests).or_else(|| limit(cpu)),
        cpu_limit_millis: limit(cpu),
        memory_limit_bytes: limit(memory),
        pids_limit: Some(default_pids),
        huge_pages_2mi_bytes: huge_pages(limits, "hugepages-2Mi"),
        huge_pages_1gi_bytes: huge_pages(limits, "hugepages-1Gi"),
    }
}

/// The pod's limits: its own, or the sum over what runs side by side and at least what its start needs; with its
/// overhead. Unlimited as soon as one container is.
pub(super) fn pod(spec: &PodSpec) -> Resources {
    let limit = |pick: Pick| pod_limit(spec, pick).map(|v| v.saturating_add(pick(&spec.overhead).unwrap_or(0)));
    Resources {
        cpu_request_millis: Some(request(spec, cpu)).filter(|v| *v > 0),
        cpu_limit_millis: limit(cpu),
        memory_limit_bytes: limit(memory),
        pids_limit: None,
        huge_pages_2mi_bytes: limit(|list| huge_pages(list, "hugepages-2Mi")),
        huge_pages_1gi_bytes: limit(|list| huge_pages(list, "hugepages-1Gi")),
    }
}

/// What a pod asks for of one resource, with its overhead: what the scheduler sets aside for it.
pub(crate) fn request(spec: &PodSpec, pick: Pick) -> u64 {
    let of_container = |c: &Container| pick(&c.resources.requests).or_else(|| pick(&c.resources.limits)).unwrap_or(0);
    let own = pick(&spec.resources.requests).or_else(|| pick(&spec.resources.limits));
    own.unwrap_or_else(|| most_at_one_time(spec, &of_container)).saturating_add(pick(&spec.overhead).unwrap_or(0))
}

fn pod_limit(spec: &PodSpec, pick: Pick) -> Option<u64> {
    if let Some(own) = pick(&spec.resources.limits) {
        return Some(own);
    }
    let of_container = |c: &Container| pick(&c.resources.limits);
    let all = spec.containers.iter().chain(&spec.init_containers).all(|c| of_container(c).is_some());
    let sum = most_at_one_time(spec, &|c| of_container(c).unwrap_or(0));
    Some(sum).filter(|v| all && *v > 0)
}

/// Containers and sidecars together; or, if that is more, an init container with the sidecars before it.
fn most_at_one_time(spec: &PodSpec, of: &dyn Fn(&Container) -> u64) -> u64 {
    let (mut sidecars, mut starting) = (0_u64, 0);
    for init in &spec.init_containers {
        if init.is_sidecar() {
            sidecars = sidecars.saturating_add(of(init));
            starting = starting.max(sidecars);
        } else {
            starting = starting.max(sidecars.saturating_add(of(init)));
        }
    }
    let running = spec.containers.iter().map(of).fold(sidecars, u64::saturating_add);
    running.max(starting)
}

/// The machine's memory in bytes, what is kept from pods included.
pub(super) fn capacity(facts: Facts<'_>) -> u64 {
    facts.host.memory_bytes.saturating_add(facts.settings.system_reserved_memory_bytes)
}

/// Pods of the system are killed as late as guaranteed ones (`system-cluster-critical` and above).
const SYSTEM_PRIORITY: i32 = 2_000_000_000;

/// How readily a container is killed when the machine has no memory left (the kubelet's rule): guaranteed ones last,
/// best-effort ones first, others the sooner the less they asked for.
pub(super) fn oom_score_adj(pod: &Pod, container: &Container, role: ContainerRole, capacity: u64) -> i32 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    let narrow = |score: i64| i32::try_from(score).unwrap_or(0);
    if pod.spec.priority.is_some_and(|p| p >= SYSTEM_PRIORITY) {
        return narrow(GUARANTEED);
    }
    match pod.qos_class() {
        QosClass::Guaranteed => narrow(GUARANTEED),
        QosClass::BestEffort => narrow(BEST_EFFORT),
        QosClass::Burstable => {
            let own = burstable_score(&pod.spec, container, capacity);
            // A sidecar must not be killed before what it serves.
            let sidecar = role == ContainerRole::Init && container.is_sidecar();
            let served = pod.spec.containers.iter().filter(|_| sidecar);
            let score = served.map(|c| burstable_score(&pod.spec, c, capacity)).fold(own, i64::min);
            narrow(score.clamp(BEST_EFFORT + GUARANTEED, BEST_EFFORT - 1))
        }
    }
}

fn burstable_score(spec: &PodSpec, container: &Container, capacity: u64) -> i64 {
    let of = |c: &Container| memory(&c.resources.requests).or_else(|| memory(&c.resources.limits)).unwrap_or(0);
    // What the pod asks for beyond its containers is for all of them alike.
    let own = memory(&spec.resources.requests).or_else(|| memory(&spec.resources.limits)).unwrap_or(0);
    let all = || spec.containers.iter().chain(spec.init_containers.iter().filter(|c| c.is_sidecar()));
    let asked: u64 = all().map(of).fold(0, u64::saturating_add);
    let share = own.saturating_sub(asked) / (all().count().max(1) as u64);
    let request = u128::from(of(container).saturating_add(share));
    let part = 1000 * request / u128::from(capacity.max(1));
    1000 - i64::try_from(part).unwrap_or(i64::MAX).min(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod_of(spec: Value) -> Pod {
        Pod { metadata: Default::default(), spec: serde_json::from_value(spec).unwrap() }
    }

    fn with(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn a_pod_needs_what_runs_at_one_time() {
        let sidecar =
            |cpu: &str| json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let spec = json!({"initContainers": [sidecar("100m"), with(json!({"cpu": "1"}), json!({})), sidecar("200m")],
            "containers": [with(json!({"cpu": "250m"}), json!({})), with(json!({"cpu": "250m"}), json!({}))]});
        assert_eq!(request(&pod_of(spec.clone()).spec, cpu), 1100, "the init container beside the first sidecar");
        let mut spec = spec;
        spec["overhead"] = json!({"cpu": "10m"});
        assert_eq!(request(&pod_of(spec.clone()).spec, cpu), 1110);
        spec["resources"] = json!({"requests": {"cpu": "2"}});
        assert_eq!(request(&pod_of(spec).spec, cpu), 2010, "what the pod says counts alone");
    }

    #[test]
    fn a_pod_is_limited_when_all_of_it_is() {
        let limits = |m: &str| with(json!({}), json!({"memory": m, "cpu": "1"}));
        let both = pod_of(json!({"containers": [limits("64Mi"), limits("32Mi")], "overhead": {"memory": "4Mi"}})).spec;
        assert_eq!(pod(&both).memory_limit_bytes, Some(100 << 20));
        assert_eq!(pod(&both).cpu_limit_millis, Some(2000), "no overhead of CPU");
        let one = pod_of(json!({"containers": [limits("64Mi"), with(json!({}), json!({}))]})).spec;
        assert_eq!(pod(&one).memory_limit_bytes, None);
        let level = json!({"containers": [limits("64Mi"), with(json!({}), json!({}))], "resources": {"limits": {"memory": "128Mi"}}});
        let level = pod_of(level).spec;
        assert_eq!(pod(&level).memory_limit_bytes, Some(128 << 20));
        assert_eq!(container(&level, &level.containers[1], 9).memory_limit_bytes, Some(128 << 20));
        assert_eq!(container(&level, &level.containers[0], 9).memory_limit_bytes, Some(64 << 20));
    }

    #[test]
    fn scores_follow_the_class() {
        const CAPACITY: u64 = 1000 << 20;
        let score = |spec: Value| {
            let pod = pod_of(spec);
            oom_score_adj(&pod, &pod.spec.containers[0], ContainerRole::Main, CAPACITY)
        };
        let same = json!({"cpu": "1", "memory": "64Mi"});
        assert_eq!(score(json!({"containers": [with(same.clone(), same)]})), -997);
        assert_eq!(score(json!({"containers": [with(json!({}), json!({}))]})), 1000);
        assert_eq!(score(json!({"priority": 2_000_001_000, "containers": [with(json!({}), json!({}))]})), -997);
        let burstable = |memory: &str| json!({"containers": [with(json!({"memory": memory}), json!({}))]});
        assert_eq!(score(burstable("100Mi")), 900);
        assert_eq!(score(burstable("1Ki")), 999);
        assert_eq!(score(burstable("1000Mi")), 3);
        assert_eq!(score(burstable("9000Gi")), 3);
        let shared = json!({"containers": [with(json!({"memory": "100Mi"}), json!({})), with(json!({}), json!({}))], "resources": {"requests": {"memory": "300Mi"}}});
        assert_eq!(score(shared), 800, "100 Mi of its own and half of what is left");
        let pod = pod_of(
            json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [with(json!({"memory": "400Mi"}), json!({}))]}),
        );
        assert_eq!(oom_score_adj(&pod, &pod.spec.init_containers[0], ContainerRole::Init, CAPACITY), 600);
    }
}
