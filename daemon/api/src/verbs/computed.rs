//! Kinds that are never stored: what they show is worked out when somebody asks.
//!
//! | kind | shows |
//! |---|---|
//! | ComponentStatus | the checks of `/readyz` |
//! | APIService | the groups and versions of the table of kinds, all served by the daemon itself |
//! | NodeMetrics, PodMetrics | what is used just now (`metrics.rs`) |

use super::metrics;
use crate::serve::body::Body;
use crate::serve::dispatch::Call;
use crate::wire::answer::{respond, respond_list};
use crate::wire::error::{ApiError, key_of};
use crate::wire::request::ResourceRequest;
use hyper::{Method, Response, StatusCode};
use reddwarf_objects::selector::{FieldSelector, LabelSelector};
use reddwarf_objects::{Kind, Object, kinds};
use reddwarf_registry::RegistryError;
use serde_json::{Value, json};

/// Answers `get` and `list` of a virtual kind.
///
/// # Errors
/// 404, 405; 400 for selectors that can't be read.
pub(crate) async fn answer(
    call: &Call,
    resource: &ResourceRequest,
    method: &Method,
) -> Result<Response<Body>, ApiError> {
    let kind = resource.kind;
    let reads = method == Method::GET && !call.query.flag("watch") && kind.allows("list");
    let subresource = resource.subresource.as_deref();
    if !reads || subresource.is_some_and(|sub| sub != "status") {
        return Err(ApiError::method_not_allowed());
    }
    let objects = match kind.kind {
        "ComponentStatus" => component_statuses(call, kind),
        "APIService" => api_services(call, kind),
        "NodeMetrics" | "PodMetrics" => metrics::objects(call, resource).await?,
        _ => return Err(ApiError::method_not_allowed()),
    };
    match &resource.name {
        Some(name) => match objects.iter().find(|o| o.name() == name) {
            Some(object) => Ok(respond(call, kind, StatusCode::OK, object)),
            None if kind.group == metrics::GROUP => Err(metrics::not_found(resource, name)),
            None => Err(RegistryError::NotFound(key_of(kind, None, name)).into()),
        },
        None => {
            let wanted = selected(call, kind, objects)?;
            Ok(respond_list(call, kind, call.state.deps.registry.revision().get(), &wanted))
        }
    }
}

fn selected(call: &Call, kind: &Kind, mut objects: Vec<Object>) -> Result<Vec<Object>, ApiError> {
    let text = |key: &str| call.query.get(key).unwrap_or_default();
    let labels = LabelSelector::parse(text("labelSelector")).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let fields = FieldSelector::parse(kind, text("fieldSelector")).map_err(|e| ApiError::bad_request(e.to_string()))?;
    objects.retain(|object| labels.matches(object) && fields.matches(object));
    Ok(objects)
}

fn component_statuses(call: &Call, kind: &Kind) -> Vec<Object> {
    let checks = call.state.deps.runtime.checks();
    let of = |check: crate::types::Check| {
        let mut object = Object::new(kind, None, &check.name);
        let mut condition = json!({"type": "Healthy", "status": if check.ok { "True" } else { "False" }});
        condition["message"] = if check.ok { json!("ok") } else { json!(check.message) };
        object.set("/conditions", json!([condition]));
        object
    };
    checks.into_iter().map(of).collect()
}

/// As the reference lists the groups that it serves without an aggregated server.
fn api_services(call: &Call, kind: &Kind) -> Vec<Object> {
    // The oldest object there is tells since when this host serves them.
    let since = kinds().by_group_resource("", "namespaces").and_then(|namespaces| {
        let default = call.state.deps.registry.find(&key_of(namespaces, None, "default")).ok().flatten()?;
        default.get("/metadata/creationTimestamp").cloned()
    });
    let mut objects: Vec<Object> = Vec::new();
    for served in kinds().iter() {
        let name = format!("{}.{}", served.version, served.group);
        if objects.iter().all(|o| o.name() != name) {
            objects.push(api_service(kind, served, &name, since.as_ref()));
        }
    }
    objects.sort_by(|a, b| a.name().cmp(b.name()));
    objects
}

fn api_service(kind: &Kind, served: &Kind, name: &str, since: Option<&Value>) -> Object {
    let mut object = Object::new(kind, None, name);
    object.set("/metadata/labels", json!({"kube-aggregator.kubernetes.io/automanaged": "onstart"}));
    let mut condition = json!({
        "type": "Available", "status": "True", "reason": "Local", "message": "Local APIServices are always available",
    });
    if let Some(since) = since {
        object.set("/metadata/creationTimestamp", since.clone());
        condition["lastTransitionTime"] = since.clone();
    }
    let (group_priority, version_priority) = if served.group.is_empty() { (18000, 1) } else { (17000, 15) };
    let mut spec = json!({
        "version": served.version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
    });
    if !served.group.is_empty() {
        spec["group"] = served.group.into();
    }
    object.set("/spec", spec);
    object.set("/status", json!({"conditions": [condition]}));
    object
}
