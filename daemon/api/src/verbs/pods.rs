//! What is done to pods by POST: binding, eviction, and the end that a node declares.

use crate::serve::body::{Arriving, Body};
use crate::serve::dispatch::Call;
use crate::verbs::{Verbs, options};
use crate::wire::decode::Decoded;
use crate::wire::error::{ApiError, key_of};
use crate::wire::request::ResourceRequest;
use hyper::{Method, Request, Response, StatusCode};
use reddwarf_objects::kind::bodies;
use reddwarf_objects::{Kind, kinds};
use reddwarf_registry::Part;
use serde_json::{Value, json};

/// Answers a request to a subresource that is an action.
///
/// # Errors
/// 404 for those that there are not, 405.
pub(super) async fn answer(
    call: Call,
    resource: ResourceRequest,
    request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let (pod, post) = (resource.kind.is_core("Pod"), request.method() == Method::POST);
    let subresource = resource.subresource.clone().unwrap_or_default();
    let verbs = Verbs::new(call, resource, Part::Main);
    match subresource.as_str() {
        "binding" | "eviction" | "finalize" if pod && !post => Err(ApiError::method_not_allowed()),
        "binding" if pod => verbs.bind(request).await,
        "eviction" if pod => verbs.evict(request).await,
        "finalize" if pod => verbs.finish().await,
        "log" | "exec" => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::unknown_resource()),
    }
}

impl Verbs {
    /// POST to `bindings` or to a pod's `binding`: a scheduler has chosen a node.
    pub(super) async fn bind(&self, request: Request<Arriving>) -> Result<Response<Body>, ApiError> {
        let (Some(pods), Some(kind)) = (kinds().by_alias("pods"), kinds().by_gvk("v1", "Binding")) else {
            return Err(ApiError::unknown_resource());
        };
        if request.method() != Method::POST || self.resource.namespace.is_none() {
            return Err(ApiError::method_not_allowed());
        }
        let options = options::write(&self.call.query, request.headers(), "CreateOptions")?;
        let Decoded { mut object, .. } = self.object(kind, request).await?;
        self.place(&mut object)?;
        if let Some(name) = &self.resource.name {
            Self::name(&mut object, name)?;
        }
        let key = key_of(pods, self.resource.namespace.as_deref(), object.name());
        self.registry().bind(&self.call.admit_change(), &key, &object, options.dry_run).await?;
        Ok(self.success(StatusCode::CREATED, None))
    }

    /// POST to a pod's `eviction`: a delete that asks the disruption budgets.
    async fn evict(&self, request: Request<Arriving>) -> Result<Response<Body>, ApiError> {
        let name = self.resource.name.clone().unwrap_or_default();
        let kind: &Kind = bodies().by_gvk("policy/v1", "Eviction").unwrap_or(self.resource.kind);
        let Decoded { object: mut eviction, .. } = self.object(kind, request).await?;
        self.place(&mut eviction)?;
        Self::name(&mut eviction, &name)?;
        let wanted = eviction.get("/deleteOptions").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
        let options = options::checked(&wanted, &self.call.query)?;
        self.registry().evict(&self.call.admit_change(), &self.key(&name), &options).await?;
        Ok(self.success(StatusCode::CREATED, None))
    }

    /// POST to a pod's `finalize`: nothing of it runs any more. Only one that is being deleted goes.
    async fn finish(&self) -> Result<Response<Body>, ApiError> {
        let name = self.resource.name.clone().unwrap_or_default();
        let key = self.key(&name);
        let pod = self.registry().get(&key)?;
        let uid = pod.uid().unwrap_or_default();
        if !self.registry().finish_delete(&key, uid).await? {
            let text = format!("Operation cannot be fulfilled on pods \"{name}\": it is not being deleted");
            return Err(ApiError::new(409, "Conflict", text).with_details(json!({"name": name, "kind": "pods"})));
        }
        Ok(self.success(StatusCode::OK, Some(json!({"name": name, "kind": "pods", "uid": uid}))))
    }
}
