//! Which pod and which container a stream is for.

use crate::runtime::PodName;
use crate::serve::dispatch::Call;
use crate::wire::error::{ApiError, key_of};
use crate::wire::request::{Query, ResourceRequest};
use reddwarf_objects::Object;
use serde_json::Value;

/// The pod of a subresource request.
///
/// # Errors
/// 404.
pub(super) fn pod(call: &Call, resource: &ResourceRequest) -> Result<(Object, PodName), ApiError> {
    let (Some(namespace), Some(name)) = (resource.namespace.as_deref(), resource.name.as_deref()) else {
        return Err(ApiError::unknown_resource());
    };
    if !resource.kind.is_core("Pod") {
        return Err(ApiError::unknown_resource());
    }
    let object = call.state.deps.registry.get(&key_of(resource.kind, Some(namespace), name))?;
    Ok((object, PodName { namespace: namespace.to_owned(), name: name.to_owned() }))
}

/// The container asked for, or the only one, or the default one.
///
/// # Errors
/// 400 naming those there are.
pub(super) fn container(query: &Query, pod: &Object) -> Result<String, ApiError> {
    let names = |list: &str| -> Vec<&str> {
        let containers = pod.get(&format!("/spec/{list}")).and_then(Value::as_array);
        containers.into_iter().flatten().filter_map(|c| c.get("name")?.as_str()).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    if let Some(wanted) = query.get("container") {
        if main.iter().chain(&init).chain(&names("ephemeralContainers")).any(|name| *name == wanted) {
            return Ok(wanted.to_owned());
        }
        return Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {}", pod.name())));
    }
    let default = pod.annotation("kubectl.kubernetes.io/default-container");
    match (main.as_slice(), default) {
        ([only], _) => Ok((*only).to_owned()),
        (several, Some(default)) if several.contains(&default) => Ok(default.to_owned()),
        (several, _) => {
            let mut text = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                pod.name(),
                several.join(" ")
            );
            if !init.is_empty() {
                text = format!("{text} or one of the init containers: [{}]", init.join(" "));
            }
            Err(ApiError::bad_request(text))
        }
    }
}
