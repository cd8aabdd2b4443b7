//! Requests and limits.

use reddwarf_host::spec::Resources;
use reddwarf_objects::Quantity;
use reddwarf_objects::pod::{Container, PodSpec, ResourceList};

/// CPU in thousandths.
pub(super) fn cpu(list: &ResourceList) -> Option<u64> {
    amount(list.get("cpu").map(Quantity::millis))
}

/// Memory in bytes.
pub(super) fn memory(list: &ResourceList) -> Option<u64> {
    bytes(list, "memory")
}

/// Any other amount, in its own unit.
pub(super) fn bytes(list: &ResourceList, name: &str) -> Option<u64> {
    amount(list.get(name).map(Quantity::units))
}

/// Zero and less stand for "nothing said", as in Kubernetes.
fn amount(value: Option<i64>) -> Option<u64> {
    value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0)
}

/// One container's limits; processes are always limited.
pub(super) fn container(container: &Container, default_pids: u64) -> Resources {
    let limits = &container.resources.limits;
    Resources {
        cpu_request_millis: cpu(&container.resources.requests).or_else(|| cpu(limits)),
        cpu_limit_millis: cpu(limits),
        memory_limit_bytes: memory(limits),
        pids_limit: Some(default_pids),
    }
}

/// The pod's limits: the sum over what runs side by side, at least what one init container needs. Unlimited as soon
/// as one container is.
pub(super) fn pod(spec: &PodSpec) -> Resources {
    let of = |pick: &dyn Fn(&Container) -> Option<u64>| {
        let side_by_side = spec.containers.iter().chain(spec.init_containers.iter().filter(|c| c.is_sidecar()));
        let first = spec.init_containers.iter().filter(|c| !c.is_sidecar());
        Combined {
            all: side_by_side.clone().chain(first.clone()).all(|c| pick(c).is_some()),
            sum: side_by_side
                .filter_map(pick)
                .fold(0, u64::saturating_add)
                .max(first.filter_map(pick).max().unwrap_or(0)),
        }
    };
    let request = of(&|c| cpu(&c.resources.requests).or_else(|| cpu(&c.resources.limits)));
    Resources {
        cpu_request_millis: Some(request.sum).filter(|v| *v > 0),
        cpu_limit_millis: of(&|c| cpu(&c.resources.limits)).limit(),
        memory_limit_bytes: of(&|c| memory(&c.resources.limits)).limit(),
        pids_limit: None,
    }
}

struct Combined {
    all: bool,
    sum: u64,
}

impl Combined {
    fn limit(self) -> Option<u64> {
        Some(self.sum).filter(|v| self.all && *v > 0)
    }
}
