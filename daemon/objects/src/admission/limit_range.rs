//! Limits and requests that a namespace gives its containers, and the bounds that it sets.

use super::Refusal;
use super::usage::{Amounts, amounts, pod_limits, pod_requests};
use crate::{object::Object, quantity::Quantity};
use serde_json::{Map, Value, json};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The limits of all ranges that are for `kind`.
fn limits_for<'a>(ranges: &'a [Object], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = ranges.iter().filter_map(|range| range.get("/spec/limits")?.as_array()).flatten();
    all.filter(move |limit| limit.get("type").is_some_and(|t| t == kind))
}

/// Gives a pod's containers the limits and requests that they lack.
pub(super) fn fill(pod: &mut Object, ranges: &[Object]) {
    for range in ranges {
        let mut said = Vec::new();
        let of = |list: &'static str| -> Map<String, Value> {
            limits_for(std::slice::from_ref(range), "Container")
                .filter_map(|limit| limit.get(list)?.as_object())
                .flatten()
                .map(|(name, amount)| (name.clone(), amount.clone()))
                .collect()
        };
        let (limits, requests) = (of("default"), of("defaultRequest"));
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            let spec = pod.map_mut().get_mut("spec");
            let containers = spec.and_then(|spec| spec.get_mut(list)?.as_array_mut());
            for container in containers.into_iter().flatten() {
                fill_container(container, what, &limits, &requests, &mut said);
            }
        }
        if !said.is_empty() {
            pod.set_annotation(ANNOTATION, &format!("LimitRanger plugin set: {}", said.join("; ")));
        }
    }
}

fn fill_container(
    container: &mut Value,
    what: &str,
    limits: &Map<String, Value>,
    requests: &Map<String, Value>,
    said: &mut Vec<String>,
) {
    let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(map) = container.as_object_mut() else { return };
    let Some(resources) = map.entry("resources").or_insert_with(|| json!({})).as_object_mut() else { return };
    for (list, defaults, word) in [("requests", requests, "request"), ("limits", limits, "limit")] {
        let own = resources.get(list).and_then(Value::as_object).cloned().unwrap_or_default();
        let missing: Vec<_> = defaults.iter().filter(|(resource, _)| !own.contains_key(*resource)).collect();
        if missing.is_empty() {
            continue;
        }
        let names: Vec<&str> = missing.iter().map(|(resource, _)| resource.as_str()).collect();
        said.push(format!("{} {word} for {what} {name}", names.join(", ")));
        let mut filled = own;
        filled.extend(missing.into_iter().map(|(resource, amount)| (resource.clone(), amount.clone())));
        resources.insert(list.to_owned(), Value::Object(filled));
    }
}

/// Is a pod within the bounds?
pub(super) fn check_pod(pod: &Object, ranges: &[Object]) -> Result<(), Refusal> {
    let mut said = Vec::new();
    for limit in limits_for(ranges, "Container") {
        for list in ["containers", "initContainers"] {
            for container in pod.get(&format!("/spec/{list}")).and_then(Value::as_array).into_iter().flatten() {
                let of = |list: &str| amounts(container.pointer(&format!("/resources/{list}")));
                check_bounds(limit, "Container", &of("requests"), &of("limits"), &mut said);
            }
        }
    }
    for limit in limits_for(ranges, "Pod") {
        check_bounds(limit, "Pod", &pod_requests(pod), &pod_limits(pod), &mut said);
    }
    refuse(said)
}

/// Is a claim within the bounds?
pub(super) fn check_claim(claim: &Object, ranges: &[Object]) -> Result<(), Refusal> {
    let requests = amounts(claim.get("/spec/resources/requests"));
    let mut said = Vec::new();
    for limit in limits_for(ranges, "PersistentVolumeClaim") {
        let of = |list: &str| amounts(limit.get(list));
        for (name, least) in of("min") {
            check_least("PersistentVolumeClaim", &name, least, requests.get(&name), None, &mut said);
        }
        for (name, most) in of("max") {
            if let Some(request) = requests.get(&name).filter(|request| **request > most) {
                let text = "maximum {} usage per PersistentVolumeClaim is {}, but request is {}";
                said.push(fill_in(text, &[&name, &most.to_string(), &request.to_string()]));
            }
        }
    }
    refuse(said)
}

fn refuse(said: Vec<String>) -> Result<(), Refusal> {
    match said.as_slice() {
        [] => Ok(()),
        [only] => Err(Refusal(only.clone())),
        _ => Err(Refusal(format!("[{}]", said.join(", ")))),
    }
}

fn fill_in(text: &str, values: &[&str]) -> String {
    values.iter().fold(text.to_owned(), |text, value| text.replacen("{}", value, 1))
}

fn check_bounds(limit: &Value, kind: &str, requests: &Amounts, limits: &Amounts, said: &mut Vec<String>) {
    for (name, least) in amounts(limit.get("min")) {
        check_least(kind, &name, least, requests.get(&name), limits.get(&name), said);
    }
    for (name, most) in amounts(limit.get("max")) {
        let start = format!("maximum {name} usage per {kind} is {most}");
        match (limits.get(&name), requests.get(&name)) {
            (None, _) => said.push(format!("{start}.  No limit is specified")),
            (Some(limit), _) if *limit > most => said.push(format!("{start}, but limit is {limit}")),
            (_, Some(request)) if *request > most => said.push(format!("{start}, but request is {request}")),
            _ => {}
        }
    }
    for (name, most) in amounts(limit.get("maxLimitRequestRatio")) {
        let start = format!("{name} max limit to request ratio per {kind} is {most}");
        match (requests.get(&name).filter(|r| !r.is_zero()), limits.get(&name).filter(|l| !l.is_zero())) {
            (None, _) => said.push(format!("{start}, but no request is specified or request is 0")),
            (_, None) => said.push(format!("{start}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let found = limit.ratio(request);
                if found > most.ratio(&Quantity::from_units(1)) {
                    said.push(format!("{start}, but provided ratio is {found:.6}"));
                }
            }
        }
    }
}

fn check_least(
    kind: &str,
    name: &str,
    least: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
    said: &mut Vec<String>,
) {
    let start = format!("minimum {name} usage per {kind} is {least}");
    match (request, limit) {
        (None, _) => said.push(format!("{start}.  No request is specified")),
        (Some(request), _) if *request < least => said.push(format!("{start}, but request is {request}")),
        (_, Some(limit)) if *limit < least => said.push(format!("{start}, but limit is {limit}")),
        _ => {}
    }
}
