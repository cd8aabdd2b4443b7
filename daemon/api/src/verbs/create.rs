//! POST to a collection.

use crate::serve::body::{Arriving, Body};
use crate::verbs::Verbs;
use crate::verbs::gate::ClientGate;
use crate::verbs::options;
use crate::wire::decode::{Decoded, Reading, decode_body};
use crate::wire::error::ApiError;
use hyper::{Request, Response};
use reddwarf_objects::Kind;
use serde_json::Value;

impl Verbs {
    pub(super) async fn create(&self, request: Request<Arriving>) -> Result<Response<Body>, ApiError> {
        let kind = self.resource.kind;
        if kind.namespaced && self.resource.namespace.is_none() {
            return Err(ApiError::method_not_allowed());
        }
        let options = options::write(&self.call.query, request.headers(), "CreateOptions")?;
        let Decoded { mut object, warnings } = self.object(kind, request).await?;
        self.place(&mut object)?;
        if object.get("/metadata/resourceVersion").and_then(Value::as_str).is_some_and(|v| !v.is_empty()) {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let mut gate = ClientGate::new(&self.call);
        let written = self.registry().create_through(&self.call.admit_change(), object, &options, &mut gate).await?;
        self.answered(written, warnings)
    }

    /// The object of `kind` in the body.
    pub(super) async fn object(&self, kind: &Kind, request: Request<Arriving>) -> Result<Decoded, ApiError> {
        let (headers, bytes) = self.body(request).await?;
        let reading = Reading {
            strictness: self.call.query.get("fieldValidation"),
            limits: &self.call.state.settings.manifest_limits,
        };
        decode_body(kind, &headers, &bytes, &reading)
    }
}
