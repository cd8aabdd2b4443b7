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

/// The node's own word on why the pod ends (`disrupted`); another reason is somebody else's, such as a taint's.
fn is_own_end(condition: &Value) -> bool {
    let is = |field: &str, text: &str| condition.get(field).and_then(Value::as_str) == Some(text);
    is("type", "DisruptionTarget") && is("reason", "TerminationByKubelet")
}

/// Puts the conditions that others have set by now into a status that is about to replace theirs.
pub fn keep_others(status: &mut Value, live: &Object) {
    let kind = |condition: &Value| condition.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let live = live.get("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let others: Vec<Value> = live.filter(|c| !is_own(&kind(c)) && !is_own_end(c)).cloned().collect();
    let Some(status) = status.as_object_mut() else { return };
    let conditions = status.entry("conditions").or_insert_with(|| Value::Array(Vec::new()));
    let Some(conditions) = conditions.as_array_mut() else { return };
    // What was taken away meanwhile must not come back; what the node itself says of the pod's end stays.
    conditions.retain(|c| is_own(&kind(c)) || is_own_end(c));
    let ends = conditions.iter().any(is_own_end);
    conditions.extend(others.into_iter().filter(|c| !ends || kind(c) != "DisruptionTarget"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whose_word_on_the_end_of_a_pod_is_kept() {
        let end = |reason: &str| json!({"type": "DisruptionTarget", "status": "True", "reason": reason});
        let (ready, own, taint) =
            (json!({"type": "Ready"}), end("TerminationByKubelet"), end("DeletionByTaintManager"));
        let table = [
            // Written to the pod while this status was on its way.
            (vec![], vec![taint.clone()], vec![taint.clone()]),
            (vec![taint.clone()], vec![], vec![]),
            (vec![own.clone()], vec![], vec![own.clone()]),
            (vec![own.clone()], vec![taint], vec![own.clone()]),
            // A pod that begins anew.
            (vec![], vec![own], vec![]),
        ];
        for (ours, live, expected) in table {
            let with = |more: &[Value]| [std::slice::from_ref(&ready), more].concat();
            let live = Object::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
                "status": {"conditions": with(&live)}}));
            let mut status = json!({"conditions": with(&ours)});
            keep_others(&mut status, &live.unwrap());
            assert_eq!(status["conditions"], json!(with(&expected)), "{ours:?}");
        }
    }
}
