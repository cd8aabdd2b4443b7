//! May this be written? The last step of every write: it gives the author without whom the registry takes nothing.

use crate::access::policy::check_write;
use crate::serve::dispatch::Call;
use crate::wire::error::ApiError;
use reddwarf_objects::{Kind, Object};
use reddwarf_registry::Author;

impl Call {
    /// Admits an object as it is to be written; `old` is what is there now.
    ///
    /// # Errors
    /// 403 for pods that would reach the host and are not an admin's.
    pub(crate) fn admit(&self, kind: &Kind, old: Option<&Object>, new: &Object) -> Result<Author, ApiError> {
        check_write(&self.principal, kind, old, new)?;
        Ok(self.principal.author())
    }

    /// Admits what makes no new object: deletions and writes of a status. That the verb may be used is all there is to
    /// check.
    pub(crate) fn admit_change(&self) -> Author {
        self.principal.author()
    }
}
