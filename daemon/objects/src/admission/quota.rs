//! Quotas: a new object that would exceed one is refused, else it is charged to all that cover it.

use super::Refusal;
pub use super::usage::{Amounts, add, amounts, usage};

use crate::{kind::Kind, object::Object, pod::Pod, pod::QosClass, quantity::Quantity};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What a new object costs one quota.
#[derive(Clone, Debug, PartialEq)]
pub struct Charge {
    /// Which of the quotas.
    pub index: usize,
    /// Its status with the object counted.
    pub status: Value,
}

/// Charges an object to the quotas of its namespace: a new one, or by how much it has grown since `before`. What is used already is
/// what the quotas' status says, or else what `there`, all objects of the kind in the namespace, use.
///
/// # Errors
/// [`Refusal`] when it exceeds one, or lacks what one must be told.
pub fn charge(
    kind: &Kind,
    before: Option<&Object>,
    object: &Object,
    quotas: &[Object],
    there: Option<&[Object]>,
) -> Result<Vec<Charge>, Refusal> {
    if quotas.is_empty() {
        return Ok(Vec::new());
    }
    let cost = match before {
        None => usage(kind, object),
        Some(before) => growth(&usage(kind, before), usage(kind, object)),
    };
    let mut charges = Vec::new();
    for (index, quota) in quotas.iter().enumerate().filter(|(_, quota)| counts(quota, kind, object)) {
        let hard = amounts(quota.get("/spec/hard"));
        let asked: Amounts =
            cost.iter().filter(|(name, _)| hard.contains_key(*name)).map(|(n, a)| (n.clone(), *a)).collect();
        if kind.is_core("Pod") && before.is_none() {
            check_told(quota, &hard, object)?;
        }
        if asked.is_empty() {
            continue;
        }
        let already = used(quota, kind, &asked, there)
            .ok_or_else(|| Refusal(format!("status unknown for quota: {}", quota.name())))?;
        let mut used = already.clone();
        let mut exceeded = BTreeSet::new();
        for (name, amount) in &asked {
            let sum = used.entry(name.clone()).or_insert(Quantity::from_units(0));
            *sum = *sum + *amount;
            if hard.get(name).is_some_and(|most| *sum > *most) && !amount.is_zero() {
                exceeded.insert(name.as_str());
            }
        }
        if !exceeded.is_empty() {
            let zero = Quantity::from_units(0);
            let show = |of: &Amounts| {
                let texts = exceeded.iter().map(|name| format!("{name}={}", of.get(*name).unwrap_or(&zero)));
                texts.collect::<Vec<_>>().join(",")
            };
            return Err(Refusal(format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                quota.name(),
                show(&asked),
                show(&already),
                show(&hard)
            )));
        }
        let used: Map<String, Value> =
            used.into_iter().map(|(name, amount)| (name, amount.to_string().into())).collect();
        if asked.values().any(|amount| !amount.is_zero()) {
            let hard = quota.get("/spec/hard").cloned().unwrap_or_default();
            charges.push(Charge { index, status: json!({"hard": hard, "used": used}) });
        }
    }
    Ok(charges)
}

/// What is used more than before; what is used less stays charged until somebody counts.
fn growth(before: &Amounts, now: Amounts) -> Amounts {
    let more = |(name, amount): (String, Quantity)| match before.get(&name) {
        None => Some((name, amount)).filter(|_| !amount.is_zero()),
        Some(before) => (amount > *before).then(|| (name, amount - *before)),
    };
    now.into_iter().filter_map(more).collect()
}

/// What is used of a quota. None when nobody has counted what is asked for.
fn used(quota: &Object, kind: &Kind, asked: &Amounts, there: Option<&[Object]>) -> Option<Amounts> {
    let mut used = amounts(quota.get("/status/used"));
    let Some(there) = there else { return asked.keys().all(|name| used.contains_key(name)).then_some(used) };
    used.extend(asked.keys().map(|name| (name.clone(), Quantity::from_units(0))));
    for object in there.iter().filter(|object| counts(quota, kind, object)) {
        for (name, amount) in usage(kind, object) {
            if let (true, Some(sum)) = (asked.contains_key(&name), used.get_mut(&name)) {
                *sum = *sum + amount;
            }
        }
    }
    Some(used)
}

/// A quota over a compute resource must be told by every container how much it takes.
fn check_told(quota: &Object, hard: &Amounts, pod: &Object) -> Result<(), Refusal> {
    let mut missing = Vec::new();
    for name in hard.keys() {
        let (list, resource) = match name.split_once('.') {
            None if matches!(name.as_str(), "cpu" | "memory") => ("requests", name.as_str()),
            Some((list @ ("requests" | "limits"), resource @ ("cpu" | "memory"))) => (list, resource),
            _ => continue,
        };
        if pod.get(&format!("/spec/resources/{list}/{resource}")).is_some() {
            continue;
        }
        let silent: BTreeSet<&str> = ["containers", "initContainers"]
            .into_iter()
            .filter_map(|field| pod.get(&format!("/spec/{field}"))?.as_array())
            .flatten()
            .filter(|container| container.pointer(&format!("/resources/{list}/{resource}")).is_none())
            .filter_map(|container| container.get("name")?.as_str())
            .collect();
        if !silent.is_empty() {
            missing.push(format!("{name} for: {}", silent.into_iter().collect::<Vec<_>>().join(",")));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Refusal(format!("failed quota: {}: must specify {}", quota.name(), missing.join("; "))))
}

/// Does a quota count an object: do all its scopes hold?
pub fn counts(quota: &Object, kind: &Kind, object: &Object) -> bool {
    let scopes = quota.get("/spec/scopes").and_then(Value::as_array).into_iter().flatten();
    let scopes = scopes.filter_map(Value::as_str).map(|scope| (scope, "Exists", Vec::new()));
    let selected = quota.get("/spec/scopeSelector/matchExpressions").and_then(Value::as_array).into_iter().flatten();
    let selected = selected.map(|expression| {
        let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
        let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
        (text("scopeName"), text("operator"), values.filter_map(Value::as_str).collect())
    });
    scopes.chain(selected).all(|(scope, operator, values)| holds(scope, operator, &values, kind, object))
}

fn holds(scope: &str, operator: &str, values: &[&str], kind: &Kind, object: &Object) -> bool {
    let one_of = |found: Option<&str>| match operator {
        "In" => found.is_some_and(|found| values.contains(&found)),
        "NotIn" => found.is_none_or(|found| !values.contains(&found)),
        "DoesNotExist" => found.is_none(),
        _ => found.is_some(),
    };
    if scope == "VolumeAttributesClass" {
        return kind.is_core("PersistentVolumeClaim") && one_of(object.get_str("/spec/volumeAttributesClassName"));
    }
    if !kind.is_core("Pod") {
        return false;
    }
    let ends = object.get("/spec/activeDeadlineSeconds").is_some();
    let best_effort = Pod::from_object(object).is_ok_and(|pod| pod.qos_class() == QosClass::BestEffort);
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => one_of(object.get_str("/spec/priorityClassName").filter(|name| !name.is_empty())),
        "CrossNamespacePodAffinity" => crosses_namespaces(object),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Object) -> bool {
    let crosses = |term: &Value| {
        term.get("namespaces").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
            || term.get("namespaceSelector").is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = |field: &str| {
            let pointer = format!("/spec/affinity/{kind}/{field}DuringSchedulingIgnoredDuringExecution");
            pod.get(&pointer).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        terms("required").iter().any(crosses)
            || terms("preferred").iter().any(|term| term.get("podAffinityTerm").is_some_and(crosses))
    })
}
