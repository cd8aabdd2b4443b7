//! PATCH: the four kinds of patch, for an object or a part of it.

use crate::serve::body::{Arriving, Body};
use crate::verbs::Verbs;
use crate::verbs::gate::ClientGate;
use crate::verbs::options;
use crate::wire::error::ApiError;
use crate::wire::patch::decode;
use hyper::{Request, Response};
use reddwarf_registry::{Edit, Patch};

impl Verbs {
    pub(super) async fn patch(&self, name: &str, request: Request<Arriving>) -> Result<Response<Body>, ApiError> {
        let mut options = options::write(&self.call.query, request.headers(), "PatchOptions")?;
        let (headers, bytes) = self.body(request).await?;
        let limits = &self.call.state.settings.manifest_limits;
        let (mut patch, problems) = decode(self.resource.kind, self.part, &headers, &bytes, limits)?;
        options.force = options::force(&self.call.query, &patch)?;
        options.version = Some(self.resource.kind);
        if let Patch::Apply(object) = &mut patch {
            self.place(object)?;
            Self::name(object, name)?;
        }
        let mut gate = ClientGate::of_patch(&self.call, problems);
        let (author, key) = (self.call.admit_change(), self.key(name));
        let edit = Edit::Patch(patch);
        let written = self.registry().write(&author, &key, self.part, edit, &options, &mut gate).await;
        let written = written.map_err(|e| self.refused(e))?;
        self.answered(written, gate.warnings)
    }
}
