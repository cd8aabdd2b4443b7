//! Conditions that others set on a pod: they are kept whatever is written here, and readiness gates wait for them.

use super::{StatusInput, UP_TO_DATE};
use crate::desired::PodIntent;
use reddwarf_objects::Object;
use reddwarf_objects::pod::{Condition, ConditionStatus, PodStatus};
use serde_json::Value;

/// Types that only the node sets.
const OWN: [&str; 8] = [
    "PodScheduled",
    "PodReadyToStartContainers",
    "Initialized",
    "ContainersReady",
    "Ready",
    "PodResizePending",
    "PodResizeInProgress",
    UP_TO_DATE,
];

fn is_own(kind: &str) -> bool {
    OWN.contains(&kind)
}

/// Takes the conditions of others as they stand in the registry.
pub(super) fn take_over(status: &mut PodStatus, input: StatusInput<'_>) {
    let others = input.intent.status.conditions.iter().filter(|c| !is_own(&c.kind));
    status.conditions.retain(|c| is_own(&c.kind));
    status.conditions.extend(others.cloned());
}

/// Puts the conditions that others have set by now into a status that is about to replace theirs.
pub fn keep_others(status: &mut Value, live: &Object) {
    let kind = |condition: &Value| condition.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let live = live.get("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let others: Vec<Value> = live.filter(|c| !is_own(&kind(c)) && kind(c) != "DisruptionTarget").cloned().collect();
    let Some(status) = status.as_object_mut() else { return };
    let conditions = status.entry("conditions").or_insert_with(|| Value::Array(Vec::new()));
    let Some(conditions) = conditions.as_array_mut() else { return };
    // What was taken away meanwhile must not come back; what only the node could have set for the pod's end stays.
    conditions.retain(|c| is_own(&kind(c)) || kind(c) == "DisruptionTarget");
    conditions.extend(others);
}

/// Why a pod whose containers are ready is not: a gate's condition is missing or does not hold.
pub(super) fn shut_gates(input: StatusInput<'_>) -> Option<String> {
    let shut = input.intent.pod.spec.readiness_gates.iter().filter_map(|gate| {
        let kind = &gate.condition_type;
        match input.intent.status.condition(kind) {
            None => Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some(Condition { status: ConditionStatus::True, .. }) => None,
            Some(Condition { status, .. }) => {
                Some(format!("the status of pod readiness gate {kind:?} is not \"True\", but {status:?}"))
            }
        }
    });
    let shut: Vec<_> = shut.collect();
    (!shut.is_empty()).then(|| shut.join(", "))
}

/// How the pod's gates stand: what changes in others' conditions concerns the node only as far as that.
pub(crate) fn gates(intent: &PodIntent) -> Vec<Option<ConditionStatus>> {
    let gates = intent.pod.spec.readiness_gates.iter();
    gates.map(|gate| intent.status.condition(&gate.condition_type).map(|c| c.status)).collect()
}
