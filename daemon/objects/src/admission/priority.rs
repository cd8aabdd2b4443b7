//! A pod's priority follows from its class.

use super::Refusal;
use crate::object::Object;
use serde_json::Value;

/// Classes that are always there.
const SYSTEM: [(&str, i64); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

struct Priority {
    class: Option<String>,
    value: i64,
    preemption: String,
}

pub(super) fn admit(pod: &mut Object, classes: &[Object]) -> Result<(), Refusal> {
    let priority = of(pod, classes)?;
    if let Some(given) = pod.get("/spec/priority").and_then(Value::as_i64).filter(|given| *given != priority.value) {
        return Err(Refusal(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from \
             the given PriorityClass name",
            priority.value
        )));
    }
    if let Some(given) = pod.get_str("/spec/preemptionPolicy").filter(|given| *given != priority.preemption) {
        return Err(Refusal(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {} \
             from the given PriorityClass name",
            priority.preemption
        )));
    }
    pod.set("/spec/priority", priority.value);
    pod.set("/spec/preemptionPolicy", priority.preemption);
    if let Some(class) = priority.class {
        pod.set("/spec/priorityClassName", class);
    }
    Ok(())
}

fn of(pod: &Object, classes: &[Object]) -> Result<Priority, Refusal> {
    let value = |class: &Object| class.map().get("value").and_then(Value::as_i64).unwrap_or(0);
    let from = |class: &Object| Priority {
        class: Some(class.name().to_owned()),
        value: value(class),
        preemption: class.get_str("/preemptionPolicy").unwrap_or("PreemptLowerPriority").to_owned(),
    };
    let plain = |class: Option<&str>, value| Priority {
        class: class.map(str::to_owned),
        value,
        preemption: "PreemptLowerPriority".to_owned(),
    };
    match pod.get_str("/spec/priorityClassName").filter(|name| !name.is_empty()) {
        Some(name) => classes
            .iter()
            .find(|class| class.name() == name)
            .map(from)
            .or_else(|| SYSTEM.iter().find(|(known, _)| *known == name).map(|(name, value)| plain(Some(name), *value)))
            .ok_or_else(|| Refusal(format!("no PriorityClass with name {name} was found"))),
        None => {
            let defaults = classes.iter().filter(|class| class.map().get("globalDefault") == Some(&Value::Bool(true)));
            // Of several defaults the lowest counts.
            Ok(defaults.min_by_key(|class| value(class)).map_or_else(|| plain(None, 0), from))
        }
    }
}
