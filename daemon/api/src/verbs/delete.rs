//! DELETE of one object or of a collection.

use crate::serve::body::{Arriving, Body};
use crate::verbs::{Verbs, list, options};
use crate::wire::answer::{respond, respond_list, warn};
use crate::wire::error::ApiError;
use hyper::{Request, Response, StatusCode};
use reddwarf_objects::{Kind, Object};
use reddwarf_registry::{DeleteOptions, Deleted};
use serde_json::json;

impl Verbs {
    pub(super) async fn delete(&self, name: &str, request: Request<Arriving>) -> Result<Response<Body>, ApiError> {
        let kind = self.resource.kind;
        let (headers, body) = self.body(request).await?;
        let options = options::delete(&self.call.query, &headers, &body)?;
        let deleted = self.registry().delete(&self.call.admit_change(), &self.key(name), &options).await?;
        let mut response = self.deleted(name, &deleted);
        warn(&mut response, &warnings(kind, &options));
        Ok(response)
    }

    /// An object that is still there, or of a kind whose last state is shown, is answered; else that it is gone.
    pub(super) fn deleted(&self, name: &str, deleted: &Deleted) -> Response<Body> {
        let kind = self.resource.kind;
        match deleted {
            Deleted::Gone(object) if !shown_when_gone(kind) => {
                let mut details = json!({"name": name, "kind": kind.plural, "uid": object.uid()});
                if !kind.group.is_empty() {
                    details["group"] = kind.group.into();
                }
                self.success(StatusCode::OK, Some(details))
            }
            Deleted::Gone(object) | Deleted::Marked(object) => respond(&self.call, kind, StatusCode::OK, object),
        }
    }

    pub(super) async fn delete_collection(&self, request: Request<Arriving>) -> Result<Response<Body>, ApiError> {
        let kind = self.resource.kind;
        if kind.namespaced && self.resource.namespace.is_none() {
            return Err(ApiError::method_not_allowed());
        }
        let (headers, body) = self.body(request).await?;
        let options = options::delete(&self.call.query, &headers, &body)?;
        let query = list::query(&self.call, &self.resource)?;
        let deleted = self.registry().delete_collection(&self.call.admit_change(), &query, &options).await?;
        let objects: Vec<Object> = deleted.into_iter().map(Deleted::into_object).collect();
        let mut response = respond_list(&self.call, kind, self.registry().revision().get(), &objects);
        warn(&mut response, &warnings(kind, &options));
        Ok(response)
    }
}

/// Kinds of which the reference answers the last state instead of a Status.
fn shown_when_gone(kind: &Kind) -> bool {
    let core = [
        "Namespace",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "PodTemplate",
        "ResourceQuota",
        "Service",
        "ServiceAccount",
    ];
    kind.group.is_empty() && core.contains(&kind.kind)
}

fn warnings(kind: &Kind, options: &DeleteOptions) -> Vec<String> {
    if kind.group == "batch" && kind.kind == "Job" && options.propagation.is_none() {
        let text = "child pods are preserved by default when jobs are deleted; \
            set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";
        return vec![text.to_owned()];
    }
    Vec::new()
}
