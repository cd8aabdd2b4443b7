//! A pod's priority follows from its class.

use super::Refusal;
use crate::object::Object;
use serde_json::Value;

/// A class that every cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemClass {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: i64,
    /// What it is for.
    pub description: &'static str,
}

/// The classes that are always there.
pub const SYSTEM_CLASSES: [SystemClass; 2] = [
    SystemClass {
        name: "system-node-critical",
        value: 2_000_001_000,
        description: "Used for system critical pods that must not be moved from their current node.",
    },
    SystemClass {
        name: "system-cluster-critical",
        value: 2_000_000_000,
        description: "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    },
];

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
            .or_else(|| SYSTEM_CLASSES.iter().find(|of| of.name == name).map(|of| plain(Some(of.name), of.value)))
            .ok_or_else(|| Refusal(format!("no PriorityClass with name {name} was found"))),
        None => Ok(default_of(classes).map_or_else(|| plain(None, 0), from)),
    }
}

fn value(class: &Object) -> i64 {
    class.map().get("value").and_then(Value::as_i64).unwrap_or(0)
}

fn is_default(class: &Object) -> bool {
    class.map().get("globalDefault") == Some(&Value::Bool(true))
}

/// Of several defaults the lowest counts.
fn default_of(classes: &[Object]) -> Option<&Object> {
    classes.iter().filter(|class| is_default(class)).min_by_key(|class| value(class))
}

/// Is a class, new or changed, the default beside another one?
///
/// # Errors
/// [`Refusal`] that names the other.
pub fn check_default(class: &Object, classes: &[Object]) -> Result<(), Refusal> {
    match default_of(classes).filter(|other| is_default(class) && other.name() != class.name()) {
        Some(other) => Err(Refusal(format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            other.name()
        ))),
        None => Ok(()),
    }
}
