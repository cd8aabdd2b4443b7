//! Workloads seen as an autoscaling/v1 Scale (<https://kubernetes.io/docs/reference/kubernetes-api/autoscaling-resources/scale-v1/>).
//! Pure. Every kind with this subresource keeps its number in `spec.replicas` and counts in `status.replicas`.

use crate::RegistryError;
use reddwarf_objects::{FieldError, FieldPath, Kind, Object};
use serde_json::{Map, Value, json};

/// Where a workload keeps the number.
pub(crate) const REPLICAS: &str = "/spec/replicas";

/// The Scale of a workload.
pub(crate) fn of(kind: &Kind, object: &Object) -> Result<Value, RegistryError> {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.get(&format!("/metadata/{field}")) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let number = |pointer: &str| object.get(pointer).and_then(Value::as_i64).unwrap_or(0);
    let mut spec = Map::new();
    if number(REPLICAS) != 0 {
        spec.insert("replicas".to_owned(), number(REPLICAS).into());
    }
    let mut status = json!({"replicas": number("/status/replicas")});
    if let Some(selector) = selector(kind, object).filter(|s| !s.is_empty()) {
        status["selector"] = selector.into();
    }
    Ok(json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}))
}

/// The workload that a written Scale asks for: identity and number, nothing else.
///
/// # Errors
/// [`RegistryError::Invalid`], [`RegistryError::BadRequest`].
pub(crate) fn wanted(kind: &Kind, scale: &Value) -> Result<Object, RegistryError> {
    let text = |pointer: &str| scale.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (version, name) = (text("/apiVersion"), text("/kind"));
    if !matches!((version, name), ("autoscaling/v1" | "", "Scale" | "")) {
        return Err(RegistryError::BadRequest(format!(
            "{name} in version \"{version}\" cannot be handled as a Scale: expected autoscaling/v1"
        )));
    }
    let replicas = match scale.pointer(REPLICAS) {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().ok_or_else(|| {
            RegistryError::BadRequest(format!(
                "Scale in version \"v1\" cannot be handled as a Scale: spec.replicas: {value} is no whole number"
            ))
        })?,
    };
    let path = FieldPath::of("spec.replicas");
    let error = match i32::try_from(replicas) {
        Ok(0..) => None,
        Ok(_) => Some("must be greater than or equal to 0"),
        Err(_) => Some("must be a whole number of 32 bits"),
    };
    if let Some(message) = error {
        return Err(RegistryError::Invalid {
            kind: "Scale".to_owned(),
            group: "autoscaling".to_owned(),
            name: text("/metadata/name").to_owned(),
            errors: vec![FieldError::invalid(&path, replicas, message)],
        });
    }
    let mut object =
        Object::new(kind, Some(text("/metadata/namespace")).filter(|n| !n.is_empty()), text("/metadata/name"));
    for field in ["uid", "resourceVersion"] {
        if let Some(value) = scale.pointer(&format!("/metadata/{field}")) {
            object.set(&format!("/metadata/{field}"), value.clone());
        }
    }
    object.set(REPLICAS, replicas);
    Ok(object)
}

/// The pods of a workload as a label selector, `app=web,tier in (a,b)`.
fn selector(kind: &Kind, object: &Object) -> Option<String> {
    let selector = object.get("/spec/selector")?;
    let labels = if kind.is_core("ReplicationController") { Some(selector) } else { selector.get("matchLabels") };
    let mut parts: Vec<(String, String)> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = expression.get("key").and_then(Value::as_str).unwrap_or_default();
        let mut values: Vec<&str> = Vec::new();
        values
            .extend(expression.get("values").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str));
        values.sort_unstable();
        let values = values.join(",");
        let text = match expression.get("operator").and_then(Value::as_str) {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key.to_owned(),
            Some("DoesNotExist") => format!("!{key}"),
            _ => continue,
        };
        parts.push((key.to_owned(), text));
    }
    parts.sort();
    Some(parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reddwarf_objects::kinds;

    #[test]
    fn a_deployment_as_its_scale_and_back() {
        let kind = kinds().by_alias("deploy").unwrap();
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "rec", "resourceVersion": "7", "labels": {"a": "b"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"},
                "matchExpressions": [{"key": "tier", "operator": "In", "values": ["b", "a"]}]}},
            "status": {"replicas": 2}});
        let scale = of(kind, &Object::from_value(value).unwrap()).unwrap();
        assert_eq!(
            scale,
            json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
                "metadata": {"name": "web", "namespace": "rec", "resourceVersion": "7"},
                "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "app=web,tier in (a,b)"}})
        );
        let back = wanted(kind, &scale).unwrap();
        assert_eq!((back.get(REPLICAS), back.resource_version()), (Some(&json!(3)), Some(7)));
        let negative = json!({"metadata": {"name": "web"}, "spec": {"replicas": -1}});
        assert_eq!(
            wanted(kind, &negative).unwrap_err().to_string(),
            "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
    }
}
