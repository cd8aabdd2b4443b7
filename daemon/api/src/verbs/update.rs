//! PUT: the whole of an object, or of a part of it.

use crate::serve::body::{Arriving, Body};
use crate::verbs::Verbs;
use crate::verbs::gate::ClientGate;
use crate::verbs::options;
use crate::wire::decode::Decoded;
use crate::wire::error::ApiError;
use hyper::{Request, Response};
use reddwarf_registry::Edit;

impl Verbs {
    pub(super) async fn update(&self, name: &str, request: Request<Arriving>) -> Result<Response<Body>, ApiError> {
        let options = options::write(&self.call.query, request.headers(), "UpdateOptions")?;
        let Decoded { mut object, warnings } = self.object(self.body_kind(), request).await?;
        self.place(&mut object)?;
        Self::name(&mut object, name)?;
        let mut gate = ClientGate::new(&self.call);
        let (author, key) = (self.call.admit_change(), self.key(name));
        let edit = Edit::Replace(object);
        let written = self.registry().write(&author, &key, self.part, edit, &options, &mut gate).await;
        let written = written.map_err(|e| self.refused(e))?;
        self.answered(written, warnings)
    }
}
