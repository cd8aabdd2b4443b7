//! A pod's overhead and place follow from its runtime class.

use super::Refusal;
use crate::object::Object;
use serde_json::Value;

pub(super) fn admit(pod: &mut Object, class: Option<&Object>) -> Result<(), Refusal> {
    let overhead = pod.get("/spec/overhead").filter(|map| is_filled(map)).cloned();
    let Some(name) = pod.get_str("/spec/runtimeClassName").map(str::to_owned) else {
        return match overhead {
            None => Ok(()),
            Some(_) => Err(Refusal(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned(),
            )),
        };
    };
    let Some(class) = class else {
        return Err(Refusal(format!("pod rejected: RuntimeClass {name:?} not found")));
    };
    let wanted = class.get("/overhead/podFixed").filter(|map| is_filled(map));
    match (wanted, overhead) {
        (Some(wanted), None) => pod.set("/spec/overhead", wanted.clone()),
        (wanted, Some(given)) if wanted != Some(&given) => {
            return Err(Refusal(
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned(),
            ));
        }
        _ => {}
    }
    for (key, value) in class.get("/scheduling/nodeSelector").and_then(Value::as_object).into_iter().flatten() {
        let own = pod.get("/spec/nodeSelector").and_then(|selector| selector.get(key)).cloned();
        match own {
            Some(own) if own != *value => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                return Err(Refusal(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(&own)
                )));
            }
            Some(_) => {}
            None => {
                let mut selector =
                    pod.get("/spec/nodeSelector").and_then(Value::as_object).cloned().unwrap_or_default();
                selector.insert(key.clone(), value.clone());
                pod.set("/spec/nodeSelector", selector);
            }
        }
    }
    let mut tolerations = pod.get("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    for toleration in class.get("/scheduling/tolerations").and_then(Value::as_array).into_iter().flatten() {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if !tolerations.is_empty() {
        pod.set("/spec/tolerations", tolerations);
    }
    Ok(())
}

fn is_filled(value: &Value) -> bool {
    value.as_object().is_some_and(|map| !map.is_empty())
}
