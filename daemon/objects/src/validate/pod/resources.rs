//! Rules of limits and requests.

use crate::{
    field::{FieldError, FieldReason},
    names,
    quantity::Quantity,
    validate::{
        at::{At, Errors},
        rules,
    },
};

/// `resources` of a container. `claims` are the names of the pod's claims.
pub(super) fn check_container(resources: &At<'_, '_>, claims: &[&str], errors: &mut Errors) {
    check_amounts(resources, rules::container_resource_name, errors);
    check_claims(&resources.child("claims"), claims, errors);
}

/// The resources of a pod besides its containers': they are limits.
pub(in crate::validate) fn check_overhead(overhead: &At<'_, '_>, errors: &mut Errors) {
    // The reference checks it as if it were `limits` of a container.
    let at = At::top("limits", overhead.value);
    let mut found = Vec::new();
    for (name, amount) in at.entries() {
        rules::container_resource_name(name, &amount, &mut found);
        rules::resource_amount(name, &amount, &mut found);
    }
    let prefix = overhead.path();
    errors.extend(found.into_iter().map(|mut error| {
        let segments = prefix.segments().iter().chain(error.path.segments()).cloned().collect();
        error.path = crate::field::FieldPath::from_segments(segments);
        error
    }));
}

/// `resources` of a pod.
pub(super) fn check_pod_level(resources: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    if resources.has("claims") {
        resources.child("claims").forbidden(errors, "claims cannot be set for Resources at pod-level");
    }
    check_amounts(resources, pod_resource_name, errors);
    check_against_containers(resources, spec, errors);
}

fn pod_resource_name(name: &str, at: &At<'_, '_>, errors: &mut Errors) {
    if rules::resource_name(name, at, errors) && !matches!(name, "cpu" | "memory") && !rules::is_huge_pages(name) {
        at.not_supported(errors, name, &["cpu", "memory"]);
    }
}

fn check_amounts(resources: &At<'_, '_>, check_name: fn(&str, &At<'_, '_>, &mut Errors), errors: &mut Errors) {
    let (limits, requests) = (resources.child("limits"), resources.child("requests"));
    let mut computes = false;
    let mut huge_pages = false;
    for list in [&limits, &requests] {
        for (name, amount) in list.entries() {
            check_name(name, &amount, errors);
            rules::resource_amount(name, &amount, errors);
            if std::ptr::eq(list, &requests) {
                check_request(name, &amount, &limits, &requests, errors);
            }
            computes |= matches!(name, "cpu" | "memory");
            if rules::is_huge_pages(name) {
                huge_pages = true;
                check_huge_pages(name, &amount, errors);
            }
        }
    }
    if huge_pages && !computes {
        resources.forbidden(errors, "HugePages require cpu or memory");
    }
}

fn check_request(name: &str, amount: &At<'_, '_>, limits: &At<'_, '_>, requests: &At<'_, '_>, errors: &mut Errors) {
    let limit = limits.value.get(name).and_then(|limit| Quantity::from_value(limit).ok());
    match (rules::quantity(amount), limit) {
        (Some(request), Some(limit)) if request != limit && !rules::allows_overcommit(name) => {
            let message = format!("must be equal to {name} limit of {limit}");
            requests.invalid_value(errors, request.to_string(), message);
        }
        (Some(request), Some(limit)) if request > limit => {
            let message = format!("must be less than or equal to {name} limit of {limit}");
            requests.invalid_value(errors, request.to_string(), message);
        }
        (Some(_), None) if !rules::allows_overcommit(name) => {
            limits.required(errors, "Limit must be set for non overcommitable resources");
        }
        _ => {}
    }
}

fn check_huge_pages(name: &str, at: &At<'_, '_>, errors: &mut Errors) {
    let size = name.strip_prefix("hugepages-").and_then(|size| size.parse::<Quantity>().ok());
    let (Some(size), Some(amount)) = (size, rules::quantity(at)) else { return };
    if size.units() <= 0 || amount.units() % size.units() != 0 {
        let message = format!("{amount} is not positive integer multiple of {name}");
        at.invalid_value(errors, amount.to_string(), message);
    }
}

fn check_claims(claims: &At<'_, '_>, known: &[&str], errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for claim in claims.items() {
        let (name, request) = (claim.text("name"), claim.text("request"));
        if name.is_empty() {
            claim.required(errors, "");
            continue;
        }
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
        if seen.iter().any(|other| other == name) {
            claim.duplicate(errors, name);
        } else {
            if !request.is_empty() {
                claim.child("request").check_text(errors, names::dns1123_label);
            }
            let parts = request.is_empty() && seen.iter().any(|other| other.split('/').next() == Some(name));
            if seen.contains(&key) {
                claim.duplicate(errors, key.as_str());
            } else if parts {
                claim.duplicate(errors, name);
            }
            seen.push(key);
        }
        if !known.contains(&name) {
            let mut names = known.to_vec();
            names.sort_unstable();
            let list = if names.is_empty() { " which is empty".to_owned() } else { format!(": {}", names.join(", ")) };
            let mut error = FieldError::not_found(&claim.path(), name);
            error.message = format!("must be one of the names in pod.spec.resourceClaims{list}");
            errors.push(error);
        }
    }
}

/// A pod's own requests cover its containers', its limits bound theirs.
fn check_against_containers(resources: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    let containers = spec.child("containers");
    let requests = resources.child("requests");
    let mut sums: std::collections::BTreeMap<&str, Quantity> = std::collections::BTreeMap::new();
    for container in containers.items() {
        for (name, amount) in container.child("resources").child("requests").entries() {
            if let Some(amount) = rules::quantity(&amount) {
                let sum = sums.entry(name).or_insert(Quantity::from_units(0));
                *sum = *sum + amount;
            }
        }
    }
    for (name, sum) in sums {
        let own = rules::quantity(&requests.map_key(name)).unwrap_or(Quantity::from_units(0));
        if sum > own {
            let message = format!("must be greater than or equal to aggregate container requests of {sum}");
            requests.map_key(name).invalid_value(errors, own.to_string(), message);
        }
    }
    for (index, container) in containers.items().enumerate() {
        for (name, amount) in container.child("resources").child("limits").entries() {
            let (Some(limit), Some(own)) =
                (rules::quantity(&amount), rules::quantity(&resources.child("limits").map_key(name)))
            else {
                continue;
            };
            if limit > own {
                let message = format!("must be less than or equal to pod limits of {own}");
                let (list, shown) = (resources.child("containers"), limit.to_string());
                list.index(index).map_key(name).child("limits").invalid_value(errors, shown, message);
            }
        }
    }
}

/// `resizePolicy` of a container.
pub(super) fn check_resize_policy(policies: &At<'_, '_>, never_restarts: bool, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for policy in policies.items() {
        let (name, restart) = (policy.text("resourceName"), policy.text("restartPolicy"));
        if seen.contains(&name) {
            policy.duplicate(errors, name);
        }
        seen.push(name);
        for (value, allowed) in [(name, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])] {
            if value.is_empty() {
                policies.required(errors, "");
            } else if !allowed.contains(&value) {
                policies.not_supported(errors, value, &allowed);
            }
        }
        if never_restarts && restart != "NotRequired" {
            let message = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            policies.raw(errors, FieldReason::Invalid, format!("{restart:?}"), message);
        }
    }
}
