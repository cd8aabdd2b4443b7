//! Kubernetes verbs, one code path for every kind.

mod computed;
pub(crate) mod list;
pub(crate) mod watch;

use crate::serve::body::{Body, read};
use crate::serve::dispatch::Call;
use crate::streams::{exec, logs};
use crate::wire::answer::{respond, respond_list, respond_raw, respond_value, warn};
use crate::wire::decode::{Decoded, decode_object, decode_options, decode_patch};
use crate::wire::error::{ApiError, key_of};
use crate::wire::request::ResourceRequest;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use reddwarf_objects::{FieldError, FieldPath, Object, ObjectKey, patch};
use reddwarf_registry::{DeleteOptions, Deleted, Preconditions, Registry, WriteOptions, Written};
use serde_json::{Value, json};

/// Answers a request about objects.
///
/// # Errors
/// Statuses as kube-apiserver's.
pub(crate) async fn answer(
    call: Call,
    resource: ResourceRequest,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let method = request.method().clone();
    if resource.kind.is_virtual {
        return computed::answer(&call, &resource, &method);
    }
    if resource.subresource.is_none() && !resource.kind.allows(resource.verb(&method, false)) {
        return Err(ApiError::method_not_allowed());
    }
    match (resource.subresource.as_deref(), &method) {
        (Some("log"), &Method::GET) => return logs::answer(&call, &resource).await,
        (Some("exec"), &Method::GET | &Method::POST) => return exec::answer(call, &resource, request).await,
        (None | Some("status"), _) => {}
        (Some("log" | "exec"), _) => return Err(ApiError::method_not_allowed()),
        (Some(_), _) => return Err(ApiError::unknown_resource()),
    }
    call.accept.form()?;
    let verbs = Verbs { call, resource };
    let status = verbs.resource.subresource.is_some();
    match (method.as_str(), verbs.resource.name.clone()) {
        ("GET", None) if verbs.call.query.flag("watch") => watch::answer(&verbs.call, &verbs.resource),
        ("GET", None) => list::answer(&verbs.call, &verbs.resource).await,
        ("GET", Some(name)) => verbs.get(&name),
        ("POST", None) => verbs.create(request).await,
        ("PUT", Some(name)) => verbs.update(&name, status, request).await,
        ("PATCH", Some(name)) => verbs.patch(&name, status, request).await,
        ("DELETE", Some(name)) if !status => verbs.delete(&name, request).await,
        ("DELETE", None) => verbs.delete_collection(request).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

struct Verbs {
    call: Call,
    resource: ResourceRequest,
}

impl Verbs {
    fn registry(&self) -> &Registry {
        &self.call.state.deps.registry
    }

    fn key(&self, name: &str) -> ObjectKey {
        key_of(self.resource.kind, self.resource.namespace.as_deref(), name)
    }

    fn get(&self, name: &str) -> Result<Response<Body>, ApiError> {
        let object = self.registry().get_raw(&self.key(name))?;
        Ok(respond_raw(&self.call, self.resource.kind, StatusCode::OK, &object))
    }

    async fn create(&self, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let kind = self.resource.kind;
        if kind.namespaced && self.resource.namespace.is_none() {
            return Err(ApiError::method_not_allowed());
        }
        let options = self.write_options("CreateOptions")?;
        let Decoded { mut object, warnings } = self.object(request).await?;
        self.place(&mut object)?;
        if object.get("/metadata/resourceVersion").and_then(Value::as_str).is_some_and(|v| !v.is_empty()) {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let author = self.call.admit(kind, None, &object)?;
        let written = self.registry().create(&author, object, options).await?;
        Ok(self.answered(StatusCode::CREATED, written, warnings))
    }

    async fn update(&self, name: &str, status: bool, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let options = self.write_options("UpdateOptions")?;
        let Decoded { mut object, warnings } = self.object(request).await?;
        self.place(&mut object)?;
        if object.name().is_empty() {
            object.set_name(name);
        } else if object.name() != name {
            let text =
                format!("the name of the object ({}) does not match the name on the URL ({name})", object.name());
            return Err(ApiError::bad_request(text));
        }
        let written = if status {
            self.registry().update_status(&self.call.admit_change(), object, options).await?
        } else {
            let old = self.registry().find(&self.key(name))?;
            let author = self.call.admit(self.resource.kind, old.as_ref(), &object)?;
            self.registry().update(&author, object, options).await?
        };
        Ok(self.answered(StatusCode::OK, written, warnings))
    }

    async fn patch(&self, name: &str, status: bool, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let options = self.write_options("PatchOptions")?;
        let headers = request.headers().clone();
        let bytes = self.body(request).await?;
        let patch = decode_patch(&headers, &bytes)?;
        let key = self.key(name);
        let kind = self.resource.kind;
        let old = self.registry().get(&key)?;
        let mut patched = old.value();
        patch::merge_patch(&mut patched, &patch);
        // Checked as a whole here; the registry applies the patch again to whatever is there then.
        let Decoded { object, warnings } = decode_object(kind, patched, self.call.query.get("fieldValidation"))?;
        let author = self.call.admit(kind, Some(&old), &object)?;
        let patch = without_unknown(&patch, &old, &object);
        let written = if status {
            self.registry().merge_patch_status(&author, &key, &patch, options).await?
        } else {
            self.registry().merge_patch(&author, &key, &patch, options).await?
        };
        Ok(self.answered(StatusCode::OK, written, warnings))
    }

    async fn delete(&self, name: &str, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let options = self.delete_options(request).await?;
        let kind = self.resource.kind;
        let deleted = self.registry().delete(&self.call.admit_change(), &self.key(name), &options).await?;
        match deleted {
            Deleted::Marked(object) => Ok(respond(&self.call, kind, StatusCode::OK, &object)),
            Deleted::Gone(object) => {
                let mut details = json!({"name": name, "kind": kind.plural, "uid": object.uid()});
                if !kind.group.is_empty() {
                    details["group"] = kind.group.into();
                }
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
                });
                Ok(respond_value(&self.call, StatusCode::OK, &status))
            }
        }
    }

    async fn delete_collection(&self, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let kind = self.resource.kind;
        if kind.namespaced && self.resource.namespace.is_none() {
            return Err(ApiError::method_not_allowed());
        }
        let options = self.delete_options(request).await?;
        let query = list::query(&self.call, &self.resource)?;
        let deleted = self.registry().delete_collection(&self.call.admit_change(), &query, &options).await?;
        let objects: Vec<Object> = deleted.iter().map(|d| d.object().clone()).collect();
        Ok(respond_list(&self.call, kind, self.registry().revision().get(), &objects))
    }

    /// The object as written, with what a person should know.
    fn answered(&self, code: StatusCode, written: Written, mut warnings: Vec<String>) -> Response<Body> {
        warnings.extend(written.warnings);
        let mut response = respond(&self.call, self.resource.kind, code, &written.object);
        warn(&mut response, &warnings);
        response
    }

    async fn body(&self, request: Request<Incoming>) -> Result<bytes::Bytes, ApiError> {
        let limits = &self.call.state.settings.limits;
        read(request.into_body(), limits.body_bytes, limits.body_timeout).await
    }

    async fn object(&self, request: Request<Incoming>) -> Result<Decoded, ApiError> {
        let headers = request.headers().clone();
        let bytes = self.body(request).await?;
        let kind = self.resource.kind;
        let strict = self.call.query.get("fieldValidation");
        let value =
            crate::wire::decode::parse(kind, &headers, &bytes, strict, &self.call.state.settings.manifest_limits)?;
        decode_object(kind, value, strict)
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

    fn write_options(&self, of: &str) -> Result<WriteOptions, ApiError> {
        Ok(WriteOptions { dry_run: dry_run(self.call.query.all("dryRun"), of)? })
    }

    async fn delete_options(&self, request: Request<Incoming>) -> Result<DeleteOptions, ApiError> {
        let headers = request.headers().clone();
        let bytes = self.body(request).await?;
        let body = decode_options(&headers, &bytes)?;
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let in_body: Vec<&str> = body["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let dry = dry_run(self.call.query.all("dryRun").chain(in_body), "DeleteOptions")?;
        let grace = match self.call.query.number("gracePeriodSeconds")? {
            Some(seconds) => Some(seconds),
            None => body["gracePeriodSeconds"].as_i64(),
        };
        if let Some(negative) = grace.filter(|g: &i64| *g < 0) {
            let path = FieldPath::of("gracePeriodSeconds");
            let error = FieldError::invalid(&path, negative, "must be greater than or equal to 0");
            return Err(ApiError::invalid_options("DeleteOptions", "meta.k8s.io", &[error]));
        }
        Ok(DeleteOptions {
            grace_period_seconds: grace,
            preconditions: Preconditions {
                uid: text("/preconditions/uid"),
                resource_version: text("/preconditions/resourceVersion"),
            },
            dry_run: dry,
        })
    }
}

/// `dryRun=All` is the only value there is.
fn dry_run<'a>(values: impl Iterator<Item = &'a str>, of: &str) -> Result<bool, ApiError> {
    let mut dry = false;
    for value in values.filter(|v| !v.is_empty()) {
        if value != "All" {
            let error = FieldError::not_supported(&FieldPath::of("dryRun"), value, &["All"]);
            return Err(ApiError::invalid_options(of, "meta.k8s.io", &[error]));
        }
        dry = true;
    }
    Ok(dry)
}

/// A patch without what the schema does not know: that was pruned from `checked`, the whole as it would be.
fn without_unknown(patch: &Value, old: &Object, checked: &Object) -> Value {
    fn keep(patch: &Value, old: Option<&Value>, checked: Option<&Value>) -> Option<Value> {
        match (patch, checked) {
            (Value::Null, _) => Some(Value::Null),
            (Value::Object(map), Some(Value::Object(_))) => {
                let part = |v: Option<&Value>, key: &str| v.and_then(|v| v.get(key)).cloned();
                let kept = map.iter().filter_map(|(key, value)| {
                    let (old, checked) = (part(old, key), part(checked, key));
                    keep(value, old.as_ref(), checked.as_ref()).map(|value| (key.clone(), value))
                });
                Some(Value::Object(kept.collect()))
            }
            (Value::Object(_), _) => old.map(|_| patch.clone()),
            // A list or scalar as it came out of the check.
            (_, checked) => checked.cloned(),
        }
    }
    keep(patch, Some(&old.value()), Some(&checked.value())).unwrap_or_else(|| json!({}))
}
