//! Kubernetes verbs, one code path for every kind.
//!
//! ```text
//!  answer ─ virtual kind ────────────→ computed
//!         ├ log, exec, ... ──────────→ streams/
//!         ├ binding, eviction, ... ──→ pods       (actions: POST)
//!         └ object or a part of it ──→ list, watch, read ; create, update, patch, delete
//!                                       (status, scale, finalize, ephemeralcontainers, resize: see registry::Part)
//! ```
//!
//! What URLs say about a write is read in `options`; what a client's write must pass besides the registry is `gate`.

mod computed;
mod create;
mod delete;
pub(crate) mod gate;
pub(crate) mod list;
mod metrics;
mod options;
mod patch;
mod pods;
mod update;
pub(crate) mod watch;

use crate::access::{reviews, service_account};
use crate::serve::body::{Arriving, Body, read};
use crate::serve::dispatch::{Call, WrittenName};
use crate::streams;
use crate::wire::answer::{respond, respond_error, respond_raw, respond_value, warn, warn_first};
use crate::wire::error::{ApiError, key_of};
use crate::wire::request::ResourceRequest;
use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use reddwarf_objects::{Kind, Object, ObjectKey, bodies};
use reddwarf_registry::{Part, Registry, RegistryError, Written};
use serde_json::{Value, json};

/// Answers a request about objects. Of a deprecated kind every answer says so, refusals too.
///
/// # Errors
/// Statuses as kube-apiserver's.
pub(crate) async fn answer(
    call: Call,
    resource: ResourceRequest,
    request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let deprecation = resource.kind.deprecation().map(|said| (said, call.accept.clone()));
    let answer = carried_out(call, resource, request).await;
    let Some((said, accept)) = deprecation else { return answer };
    let mut response = answer.unwrap_or_else(|error| respond_error(&accept, &error));
    warn_first(&mut response, said);
    Ok(response)
}

async fn carried_out(
    call: Call,
    resource: ResourceRequest,
    request: Request<Arriving>,
) -> Result<Response<Body>, ApiError> {
    let method = request.method().clone();
    if resource.kind.is_core("Binding") {
        call.accept.form()?;
        return Box::pin(Verbs::new(call, resource, Part::Main).bind(request)).await;
    }
    if resource.kind.is_core("ServiceAccount") && resource.subresource.as_deref() == Some("token") {
        return Box::pin(service_account::request::answer(&call, &resource, request)).await;
    }
    if reviews::is_review(resource.kind) {
        return Box::pin(reviews::answer(&call, &resource, request)).await;
    }
    if resource.kind.is_virtual {
        return Box::pin(computed::answer(&call, &resource, &method)).await;
    }
    if resource.subresource.is_none() && !resource.kind.allows(resource.verb(&method, false)) {
        return Err(ApiError::method_not_allowed());
    }
    if resource.subresource.as_deref().is_some_and(streams::is_stream) {
        return Box::pin(streams::answer(call, &resource, request)).await;
    }
    if method != hyper::Method::GET || !call.query.flag("watch") {
        call.accept.form()?;
    }
    let part = match resource.subresource.as_deref() {
        None => Part::Main,
        Some(name) => match Part::of_subresource(resource.kind, name) {
            Some(part) => part,
            None => return Box::pin(pods::answer(call, resource, request)).await,
        },
    };
    Verbs::new(call, resource, part).answer(request).await
}

/// A request about an object, a part of it, or a collection.
struct Verbs {
    call: Call,
    resource: ResourceRequest,
    part: Part,
}

impl Verbs {
    fn new(call: Call, resource: ResourceRequest, part: Part) -> Self {
        Self { call, resource, part }
    }

    /// Every verb that waits does so in a place of its own: what a get is answered in, as most requests are, would else be as large as the
    /// largest of them, and is moved on its way to here.
    async fn answer(self, request: Request<Arriving>) -> Result<Response<Body>, ApiError> {
        let method = request.method().clone();
        match (method.as_str(), self.resource.name.clone(), self.part) {
            ("GET", None, _) if self.call.query.flag("watch") => {
                Box::pin(watch::answer(&self.call, &self.resource, request)).await
            }
            ("GET", None, _) => Box::pin(list::answer(&self.call, &self.resource)).await,
            ("GET" | "PATCH", Some(_), Part::Finalize) => Err(ApiError::method_not_allowed()),
            ("GET", Some(name), _) => self.get(&name),
            ("POST", None, _) => Box::pin(self.create(request)).await,
            ("PUT", Some(name), _) => Box::pin(self.update(&name, request)).await,
            ("PATCH", Some(name), _) => Box::pin(self.patch(&name, request)).await,
            ("DELETE", Some(name), Part::Main) => Box::pin(self.delete(&name, request)).await,
            ("DELETE", None, _) => Box::pin(self.delete_collection(request)).await,
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    fn registry(&self) -> &Registry {
        &self.call.state.deps.registry
    }

    fn key(&self, name: &str) -> ObjectKey {
        key_of(self.resource.kind, self.resource.namespace.as_deref(), name)
    }

    fn get(&self, name: &str) -> Result<Response<Body>, ApiError> {
        let kind = self.resource.kind;
        if self.part == Part::Scale {
            return self.scaled(StatusCode::OK, &self.registry().get(&self.key(name))?);
        }
        Ok(self.registry().look(&self.key(name), |object| respond_raw(&self.call, kind, StatusCode::OK, object))?)
    }

    /// The Scale of a workload.
    fn scaled(&self, code: StatusCode, workload: &Object) -> Result<Response<Body>, ApiError> {
        let scale = self.part.view(self.resource.kind, workload)?;
        let scale = Object::from_value(scale).map_err(ApiError::internal)?;
        Ok(respond(&self.call, self.body_kind(), code, &scale))
    }

    /// The kind that this part's clients send and see.
    fn body_kind(&self) -> &'static Kind {
        match self.part {
            Part::Scale => bodies().by_gvk("autoscaling/v1", "Scale").unwrap_or(self.resource.kind),
            _ => self.resource.kind,
        }
    }

    /// What was written, as this part's clients see it, with what a person should know.
    fn answered(&self, written: Written, mut warnings: Vec<String>) -> Result<Response<Body>, ApiError> {
        let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
        warnings.extend(written.warnings);
        let mut response = match self.part {
            Part::Scale => self.scaled(code, &written.object)?,
            _ => match &written.stored {
                Some(stored) => respond_raw(&self.call, self.resource.kind, code, stored.as_ref()),
                None => respond(&self.call, self.resource.kind, code, &written.object),
            },
        };
        warn(&mut response, &warnings);
        response.extensions_mut().insert(WrittenName(written.object.name().to_owned()));
        Ok(response)
    }

    /// A refused write. Clients repeat conflicts of a Scale for minutes without a word (kubectl does), and a file does not give
    /// way: the code is the same, the reason one that is shown at once.
    fn refused(&self, error: RegistryError) -> ApiError {
        let owned = matches!(error, RegistryError::FileOwned { .. });
        let mut error = ApiError::from(error);
        if owned && self.part == Part::Scale {
            error.reason = "Forbidden";
        }
        error
    }

    /// A Status that says that all went well.
    fn success(&self, code: StatusCode, details: Option<Value>) -> Response<Body> {
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        if let Some(details) = details {
            status["details"] = details;
        }
        if code == StatusCode::CREATED {
            status["code"] = 201.into();
        }
        respond_value(&self.call, code, &status)
    }

    /// The request's headers and body.
    async fn body(&self, request: Request<Arriving>) -> Result<(HeaderMap, Bytes), ApiError> {
        let limits = &self.call.state.settings.limits;
        let (parts, body) = request.into_parts();
        Ok((parts.headers, read(body, limits.body_bytes, limits.body_timeout).await?))
    }

    /// Puts the object into the namespace of the URL.
    fn place(&self, object: &mut Object) -> Result<(), ApiError> {
        match (object.namespace(), self.resource.namespace.as_deref()) {
            (Some(given), Some(url)) if given != url => Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )),
            (_, url) => {
                object.set_namespace(url);
                Ok(())
            }
        }
    }

    /// Gives the object the name of the URL, or refuses another one.
    fn name(object: &mut Object, name: &str) -> Result<(), ApiError> {
        match object.name() {
            "" => object.set_name(name),
            same if same == name => {}
            other => {
                let text = format!("the name of the object ({other}) does not match the name on the URL ({name})");
                return Err(ApiError::bad_request(text));
            }
        }
        Ok(())
    }
}
